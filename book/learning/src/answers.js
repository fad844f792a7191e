// An answer to an exercise, judged in the page by what the package expects.

import Formula from "fparser";
import { keep, read } from "./store.js";

/** Return what the package expects: a table of answers, masked so that nobody reads it by chance. */
export const unmask = (text, key) => {
  const bytes = Uint8Array.from(atob(text), (sign, index) =>
    sign.charCodeAt(0) ^ key.charCodeAt(index % key.length));
  return JSON.parse(new TextDecoder().decode(bytes));
};

// What a reader may copy from a formula, in the parser's words.
const SIGNS = [
  [/\*\*/g, "^"], [/\bpi\b|π/g, "PI"], [/σ/g, "sigma"], [/²/g, "^2"], [/³/g, "^3"], [/[·×]/g, "*"], [/−/g, "-"],
  [/√\s*/g, "sqrt"], [/\bsqrt([\w.]+)/g, "sqrt($1)"],
];

/** Return the value of an expression such as `2^-24` or `log(7)`, at given values of its variables. */
export const value = (expression, variables = {}) => {
  const formula = new Formula(SIGNS.reduce((text, [sign, word]) => text.replaceAll(sign, word), expression));
  return formula.evaluate({ ...variables, ln: Math.log, e: Math.E });
};

const near = (given, right, exact, tolerance) =>
  exact ? given === right : Math.abs(given - right) <= tolerance * Math.abs(right);

/** Judge numbers: `looks` is [what they are, the numbers that are so], the right ones first. */
export const judge = (given, { looks, whole }, tolerance) => {
  const right = looks[0][1];
  if (given.length !== right.length) {
    return right.length === 1
      ? "one number is asked for, with a point before its decimals"
      : `${right.length} numbers are asked for, with commas between`;
  }
  if (!given.every(Number.isFinite)) return "this is not a finite number";
  const are = (numbers, exact) => given.every((x, i) => near(x, numbers[i], exact, tolerance));
  if (are(right, whole)) return "right";
  if (whole && Math.abs(given[0] - right[0]) <= 1) {
    return "off by one or less: count again, and give a whole number";
  }
  const like = looks.slice(1).filter(([, numbers]) => are(numbers, false)).map(([text]) => text);
  if (like.length) return `this looks like ${like.join(", or ")}`;
  const ratios = given.map((x, i) => x / right[i]);
  if (ratios.every((ratio) => ratio < 0)) return "wrong sign, and another size";
  if (ratios.every((ratio) => ratio > 1)) return ratios.every((ratio) => ratio < 1.1) ? "too large, but near" : "too large";
  if (ratios.every((ratio) => ratio < 1)) return ratios.every((ratio) => ratio > 0.9) ? "too small, but near" : "too small";
  return "not right";
};

const example = ([name] = []) => (name ? `2*${name}^2, with a * in every product` : "2^-24 or sqrt(2)/3");

/** Judge what a reader has written. */
export const verdict = (text, expected, tolerance) => {
  if (!text.trim()) return "not answered yet";
  try {
    const given = expected.parameters
      ? expected.draws.map((draw) =>
        value(text, Object.fromEntries(expected.parameters.map((name, i) => [name, draw[i]]))))
      : text.split(",").map((part) => value(part));
    return judge(given, expected, tolerance);
  } catch {
    const wanted = expected.parameters ? `a formula in ${expected.parameters.join(", ")}` : "a number or a formula";
    return `this cannot be read: write ${wanted}, such as ${example(expected.parameters)}`;
  }
};

/** Set up the answers of a page. */
export const start = () => {
  for (const form of document.querySelectorAll("form.answer")) {
    const { exercise, expected, tolerance } = form.dataset;
    const table = unmask(expected, exercise);
    const fields = [...form.querySelectorAll("input")];
    const show = (field, says) => {
      const told = field.closest("p").querySelector("output");
      told.textContent = says;
      told.classList.toggle("right", says === "right");
    };
    for (const field of fields) {
      const kept = read().answers[`${exercise} ${field.name}`];
      if (kept) {
        field.value = kept.text;
        show(field, kept.says);
      }
    }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      for (const field of fields) {
        const says = verdict(field.value, table[field.name], Number(tolerance));
        show(field, says);
        if (field.value.trim()) keep("answers", `${exercise} ${field.name}`, { text: field.value, says });
      }
    });
  }
};
