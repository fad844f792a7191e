// A prediction: the reader chooses, and then sees what follows beside what was measured.

import { keep, read, write } from "./store.js";

const folded = () => document.documentElement.classList.contains("folds");

/** Show what follows a prediction. */
const open = (block) => {
  const after = block.nextElementSibling;
  after.hidden = false;
  after.classList.add("open");
  block.classList.add("committed");
  dispatchEvent(new Event("resize")); // the theme finds the blocks that scroll, and figures their size
};

/** Say what the reader said, and what was measured. */
const tell = (block, said) => {
  const { right, measured } = block.dataset;
  const options = [...block.querySelectorAll(".options > li")];
  const parts = [];
  if (options.length) {
    options.forEach((option, index) => {
      const button = option.querySelector("button");
      button.disabled = true;
      option.classList.toggle("said", index + 1 === said);
      option.classList.toggle("right", index + 1 === Number(right));
    });
    const words = (number) => `“${options[number - 1].textContent.trim()}”`;
    if (said === Number(right)) parts.push(`You said ${words(said)}, and so it is.`);
    else if (said) parts.push(`You said ${words(said)}. It is ${words(right)}.`);
    else parts.push(`It is ${words(right)}.`);
  } else if (said !== null) {
    parts.push(`You said ${said}.`);
  }
  if (measured) parts.push(`Measured: ${measured}.`);
  block.querySelector(".outcome").textContent = parts.join(" ");
};

const commit = (block, said) => {
  keep("predictions", block.id, { said, right: Number(block.dataset.right ?? block.dataset.value) });
  tell(block, said);
  open(block);
};

const choices = (block) => {
  block.querySelectorAll(".options > li").forEach((option, index) => {
    const text = option.querySelector("p") ?? option;
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.append(...text.childNodes);
    button.addEventListener("click", () => commit(block, index + 1));
    text.append(button);
  });
};

const slider = (block) => {
  const input = block.querySelector("input");
  const shown = block.querySelector("output");
  const show = () => (shown.textContent = input.value);
  input.addEventListener("input", show);
  show();
  block.querySelector(".commit").addEventListener("click", () => {
    input.disabled = true;
    commit(block, Number(input.value));
  });
};

const ways = (block) => {
  block.querySelector("[name=show]").addEventListener("click", () => {
    tell(block, null);
    open(block);
  });
  block.querySelector("[name=show-all]").addEventListener("click", () => {
    write({ ...read(), showAll: true });
    for (const other of document.querySelectorAll(".predict")) open(other);
  });
};

/** Fold in a way into which the browser's own search looks, and which it opens. */
const fold = (block) => {
  const after = block.nextElementSibling;
  if (after.classList.contains("open")) return;
  after.hidden = "until-found";
  after.addEventListener("beforematch", () => open(block));
};

/** Open the fold that holds the place to which the address leads. */
const follow = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const after = target?.closest(".after-predict:not(.open)");
  if (!after) return;
  open(after.previousElementSibling);
  target.scrollIntoView();
};

/** Set up the predictions of a page. */
export const start = () => {
  const { predictions } = read();
  const blocks = [...document.querySelectorAll(".predict")];
  for (const block of blocks) {
    const input = block.querySelector("input");
    if (input) slider(block);
    else choices(block);
    const kept = predictions[block.id];
    if (kept) {
      if (input) input.value = kept.said;
      tell(block, kept.said);
    }
    ways(block);
    if (kept || !folded()) open(block);
  }
  follow();
  addEventListener("hashchange", follow);
  // When the page has come: the theme measures what is not hidden, and would lay it out for that.
  addEventListener("load", () => setTimeout(() => {
    blocks.forEach(fold);
    document.documentElement.classList.remove("folds");
  }));
};
