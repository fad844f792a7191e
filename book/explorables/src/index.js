// The live figures of the book: mounted in its pages, or as widgets in JupyterLab.

import { explorables } from "./figures.js";
import { mount } from "./mount.js";

export { explorables };

// For the tests, which hold these against gradutils.
export * as engine from "./engine.js";
export * as formats from "./formats.js";
export * as order from "./order.js";
export * as random from "./random.js";
export * as recurrent from "./recurrent.js";
export * as theory from "./theory.js";
export * as time from "./time.js";
export * as training from "./training.js";

/** As anywidget calls it: the model has a trait for each control, and takes the numbers shown. */
export function render({ model, el }) {
  const explorable = explorables[model.get("name")];
  const names = Object.keys(model.get("settings"));
  const settings = () => Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const box = document.createElement("div");
  el.append(box);
  // JupyterLab takes the arrow keys for itself, unless what has the focus says otherwise.
  box.addEventListener("focusin", ({ target }) => (target.dataset.lmSuppressShortcuts = "true"));
  const handle = mount(box, explorable, {
    state: settings(),
    onState(state) {
      for (const name of names) model.set(name, state[name]);
      model.save_changes();
    },
    onValues(values) {
      model.set("shown", values);
      model.save_changes();
    },
  });
  const follow = () => handle.set(settings());
  for (const name of names) model.on(`change:${name}`, follow);
  return () => {
    for (const name of names) model.off(`change:${name}`, follow);
    handle.stop();
  };
}

/** Mount every figure of the page, as soon as it comes near the window. */
function mountAll() {
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        watcher.unobserve(target);
        const state = JSON.parse(target.dataset.settings || "{}");
        mount(target, explorables[target.dataset.explorable], { state, address: true });
      }
    },
    { rootMargin: "200px" },
  );
  for (const element of document.querySelectorAll("[data-explorable]")) watcher.observe(element);
}

if (document.currentScript) mountAll(); // in the book's pages; as a module it has no such element
