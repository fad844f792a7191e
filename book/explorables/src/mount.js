// Puts an explorable into an element: controls, charts, verdict, a table of the numbers.

import specification from "../explorables.json";
import { escape, format } from "./chart.js";
import { makeEngine } from "./engine.js";

let engine;
const sharedEngine = () => (engine ??= makeEngine());
let count = 0;

export const defaults = (name) =>
  Object.fromEntries(specification[name].controls.map((c) => [c.name, c.default]));

/** A control's value as its type has it, kept within its range; the default if it makes no sense. */
export function checked(control, value) {
  if (control.options) return control.options.find((o) => String(o) === String(value)) ?? control.default;
  if (typeof control.default === "boolean") return value === true || value === "true";
  const number = Number(value);
  if (value === "" || !Number.isFinite(number)) return control.default;
  const stepped = Math.round(number / control.step) * control.step;
  return +Math.min(control.max, Math.max(control.min, stepped)).toFixed(6);
}

function controlMarkup(control, id, value) {
  const { name, label, min, max, step, options } = control;
  const text = escape(label).replace(/_(\w)/, "<sub>$1</sub>");
  const head = `<div class="control"><label for="${id}">${text}</label>`;
  if (options) {
    const items = options.map((o) => `<option${o === value ? " selected" : ""}>${escape(o)}</option>`);
    return `${head}<select id="${id}" name="${name}">${items.join("")}</select></div>`;
  }
  if (typeof control.default === "boolean") {
    return `${head}<input id="${id}" name="${name}" type="checkbox"${value ? " checked" : ""}></div>`;
  }
  return `${head}<input id="${id}" name="${name}" type="range" min="${min}" max="${max}" ` +
    `step="${step}" value="${value}"><output for="${id}">${format(value, 4)}</output></div>`;
}

/** Everything that is inside the element; build.mjs writes it for pages without script, too. */
export function markup(name, state, { drawn, live, id }) {
  const { title, summary, controls, buttons = [] } = specification[name];
  const inputs = controls.map((c) => controlMarkup(c, `${id}-${c.name}`, state[c.name]));
  const note = live ? "" : "A picture of the live figure: its controls need JavaScript.";
  const push = (label, action) =>
    `<button type="button" data-action="${action}"${live ? "" : " disabled"}>${escape(label)}</button>`;
  return `<p class="heading">${escape(title)}</p><p>${escape(summary)}</p>` +
    `<fieldset class="controls"${live ? "" : " disabled"}>${inputs.join("")}</fieldset>` +
    `<div class="buttons">${buttons.map(([label, action]) => push(label, action)).join("")}` +
    `${push("Reset", "reset")}${push("Copy link", "link")}</div>` +
    `<div class="picture"><div class="charts" tabindex="0" role="group" aria-label="Charts">` +
    `${drawn.charts}</div><div class="below"><div class="legend">${drawn.legend}</div>` +
    `<p class="verdict ${drawn.look}">${escape(drawn.verdict)}</p></div></div>` +
    `<details><summary>The numbers</summary><div class="table" tabindex="0" role="region" ` +
    `aria-label="The numbers of ${escape(title)}"></div></details>` +
    `<p class="note" role="status">${note}</p>`;
}

export function tableMarkup({ caption, columns, rows }) {
  const cells = (row) => row.map((v) => `<td>${typeof v === "number" ? format(v, 4) : escape(v)}</td>`);
  return `<table><caption>${escape(caption)}</caption>` +
    `<thead><tr>${columns.map((c) => `<th scope="col">${escape(c)}</th>`).join("")}</tr></thead>` +
    `<tbody>${rows.map((row) => `<tr>${cells(row).join("")}</tr>`).join("")}</tbody></table>`;
}

/**
 * Bring an explorable to life in `root`.
 *
 * options: state (what the controls start with), onState and onValues (called with what the reader
 * set and with the numbers shown), address (whether settings stand in the page's address).
 * Returns { set(changes), stop() }.
 */
export function mount(root, explorable, options = {}) {
  const { name } = explorable;
  const { controls } = specification[name];
  const id = `explorable-${name}-${count++}`;
  const initial = { ...defaults(name), ...options.state };
  const state = { ...initial, ...(options.address ? fromAddress(name, controls) : {}) };
  const host = { root, state, engine: sharedEngine(), set, show, redraw };
  const first = explorable.draw(state, host.engine);
  root.classList.add("explorable");
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", specification[name].title);
  root.innerHTML = markup(name, state, { drawn: first, live: true, id });
  const find = (selector) => root.querySelector(selector);
  const parts = {
    charts: find(".charts"), legend: find(".legend"), verdict: find(".verdict"),
    details: find("details"), table: find(".table"), note: find(".note"),
  };
  host.charts = parts.charts;
  const live = explorable.attach?.(host);
  let shown = first, settled = 0;
  options.onValues?.({ ...first.values, look: first.look });

  // At once: the browser hands over one movement of a pointer per frame, just before it paints.
  function redraw() {
    show(explorable.draw(state, host.engine));
  }

  function show(drawn) {
    shown = drawn;
    redrawInto(parts.charts, drawn.charts);
    redrawInto(parts.legend, drawn.legend);
    parts.verdict.textContent = drawn.verdict;
    parts.verdict.className = `verdict ${drawn.look}`;
    if (parts.details.open) parts.table.innerHTML = tableMarkup(drawn.table);
    options.onValues?.({ ...drawn.values, look: drawn.look });
    clearTimeout(settled);
    settled = setTimeout(rest, 300);
  }

  /** When the hand rests, a screen reader hears the verdict, and the address follows. */
  function rest() {
    parts.note.replaceChildren(hidden(shown.verdict));
    if (options.address) toAddress(name, state, initial);
  }

  function set(changes) {
    let changed = false;
    for (const control of controls) {
      if (!(control.name in changes)) continue;
      const value = checked(control, changes[control.name]);
      if (value === state[control.name]) continue;
      state[control.name] = value;
      changed = true;
      reflect(find(`[name="${control.name}"]`), value);
    }
    if (!changed) return;
    options.onState?.(state);
    live?.changed ? live.changed() : redraw();
  }

  function onInput({ target }) {
    if (target.name) set({ [target.name]: target.type === "checkbox" ? target.checked : target.value });
  }

  function onClick({ target }) {
    const action = target.closest("[data-action]")?.dataset.action;
    if (action === "reset") {
      set(initial);
      live?.reset?.();
    } else if (action === "link") {
      toAddress(name, state, initial);
      navigator.clipboard?.writeText(location.href)
        .then(() => (parts.note.textContent = "Link copied."))
        .catch(() => (parts.note.textContent = "The link stands in the address bar."));
    } else if (action) live?.[action]?.(target);
  }

  root.addEventListener("input", onInput);
  root.addEventListener("click", onClick);
  parts.details.addEventListener("toggle", () => {
    if (parts.details.open) parts.table.innerHTML = tableMarkup(shown.table);
  });
  root.dataset.live = host.engine.backend;
  return {
    set,
    stop() {
      clearTimeout(settled);
      live?.stop?.();
      root.removeEventListener("input", onInput);
      root.removeEventListener("click", onClick);
    },
  };
}

/** Show new markup where there is older one: what is the same stays, its focus and its layout too. */
function redrawInto(element, markup) {
  const fresh = element.cloneNode(false);
  fresh.innerHTML = markup;
  if (fresh.childNodes.length !== element.childNodes.length) element.innerHTML = markup;
  else adapt(element, fresh);
}

function adapt(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  const sameShape = old.nodeName === fresh.nodeName && old.nodeType === Node.ELEMENT_NODE;
  if (!sameShape || old.childNodes.length !== fresh.childNodes.length) {
    return old.replaceWith(fresh);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const children = [...fresh.childNodes];
  [...old.childNodes].forEach((child, k) => adapt(child, children[k]));
}

function hidden(text) {
  const span = document.createElement("span");
  span.className = "heard";
  span.textContent = text;
  return span;
}

function reflect(input, value) {
  if (input.type === "checkbox") input.checked = value;
  else input.value = value;
  if (input.type === "range") input.nextElementSibling.textContent = format(value, 4);
}

function fromAddress(name, controls) {
  const query = new URLSearchParams(location.search), found = {};
  for (const control of controls) {
    const value = query.get(`${name}.${control.name}`);
    if (value !== null) found[control.name] = checked(control, value);
  }
  return found;
}

/** Write what differs from the start into the address, so that a setting can be linked to. */
function toAddress(name, state, initial) {
  const address = new URL(location.href);
  for (const [key, value] of Object.entries(state)) {
    address.searchParams.delete(`${name}.${key}`);
    if (value !== initial[key]) address.searchParams.set(`${name}.${key}`, value);
  }
  try {
    history.replaceState(null, "", address);
  } catch {
    // Some browsers allow no change of a file's address.
  }
}
