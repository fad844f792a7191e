// The page of the reader's own predictions and answers.

import { clear, parse, read, write } from "./store.js";

const row = (tag, cells) => {
  const made = document.createElement("tr");
  for (const text of cells) made.append(Object.assign(document.createElement(tag), { textContent: text }));
  return made;
};

/** Return one chapter's line: predictions made and right, what guessing would get, answers right. */
export const counted = (chapter, { predictions, answers }) => {
  const made = chapter.predictions.filter(({ id }) => predictions[id]);
  const chosen = made.filter(({ options }) => options);
  const right = chosen.filter(({ id }) => predictions[id].said === predictions[id].right);
  const guessing = chosen.reduce((sum, { options }) => sum + 1 / options, 0);
  const solved = chapter.answers.filter((name) => answers[name]?.says === "right");
  return {
    made: made.length, of: chapter.predictions.length, chosen: chosen.length,
    right: right.length, guessing, solved: solved.length, answers: chapter.answers.length,
  };
};

const cells = (title, c) => [
  title, `${c.made} of ${c.of}`, c.chosen ? `${c.right} of ${c.chosen}` : "", c.chosen ? c.guessing.toFixed(1) : "",
  c.answers ? `${c.solved} of ${c.answers}` : "",
];

const total = (counts) =>
  counts.reduce((sum, c) => Object.fromEntries(Object.keys(c).map((key) => [key, (sum[key] ?? 0) + c[key]])), {});

const draw = (place, chapters) => {
  const state = read();
  const counts = chapters.map((chapter) => counted(chapter, state));
  const table = place.querySelector("table");
  table.tBodies[0].replaceChildren(...chapters.map((chapter, i) => row("td", cells(chapter.title, counts[i]))));
  const all = total(counts);
  table.tFoot.replaceChildren(row("td", cells("All chapters", all)));
  place.querySelector(".summary").textContent = !all.chosen
    ? "No prediction with a choice yet."
    : `${all.right} of ${all.chosen} choices were right. Guessing would have got ${all.guessing.toFixed(1)}.`;
  place.querySelector("[name=fold]").checked = !state.showAll;
};

/** Set up the page. */
export const start = () => {
  const place = document.querySelector("#progress");
  if (!place) return;
  const chapters = JSON.parse(place.dataset.chapters);
  const say = (text) => (place.querySelector("[role=status]").textContent = text);
  const button = (name) => place.querySelector(`[name=${name}]`);
  button("fold").addEventListener("change", ({ target }) => write({ ...read(), showAll: !target.checked }));
  button("save").addEventListener("click", () => {
    const file = new Blob([JSON.stringify(read(), null, 1)], { type: "application/json" });
    const link = Object.assign(document.createElement("a"), {
      href: URL.createObjectURL(file), download: "predictions-and-answers.json",
    });
    link.click();
    URL.revokeObjectURL(link.href);
    say("Saved as predictions-and-answers.json.");
  });
  button("load").addEventListener("change", async ({ target }) => {
    try {
      write(parse(await target.files[0].text()));
      say("Loaded.");
    } catch (error) {
      say(error.message);
    }
    target.value = "";
    draw(place, chapters);
  });
  button("clear").addEventListener("click", () => {
    if (!confirm("Forget all predictions and answers?")) return;
    clear();
    say("All predictions and answers are forgotten.");
    draw(place, chapters);
  });
  draw(place, chapters);
};
