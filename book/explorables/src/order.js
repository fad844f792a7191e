// Explorable 2: the plane of weight and bias deviations, with its ordered and its chaotic phase.

import { axes, chart, decades, format, legend, line, MARKS } from "./chart.js";
import { regime } from "./depth.js";
import { profile } from "./engine.js";
import {
  chi, correlationFixedPoint, correlationMap, criticalSigmaW, depthScale, fixedPoint,
  profileTheory, secondMomentMap,
} from "./theory.js";

const PLANE = axes({ x: [0, 4], y: [0, 1] });
const BIASES = Array.from({ length: 21 }, (_, k) => k / 20); // where the critical line is computed
const SHOWN = Array.from({ length: 17 }, (_, k) => k / 16); // correlations
const NETWORK = { width: 32, batch: 64 };

const lines = new Map(); // activation -> sigma_w of the critical line at BIASES, as far as known

function criticalLine(activation) {
  if (!lines.has(activation)) lines.set(activation, []);
  return lines.get(activation);
}

/** Add one point to an activation's critical line; tell whether any is still missing. */
function addPoint(activation) {
  const known = criticalLine(activation);
  if (known.length === BIASES.length) return false;
  known.push(criticalSigmaW(activation, BIASES[known.length], known[known.length - 1] ?? 1));
  return known.length < BIASES.length;
}

/** The numbers of one point of the plane. */
export function compute({ activation, sigma_w, sigma_b }) {
  const q = fixedPoint(activation, sigma_w, sigma_b);
  const settled = q > 0 && q < Infinity;
  const c = settled ? correlationFixedPoint(activation, sigma_w, sigma_b, q) : NaN;
  return {
    q, c,
    chi: chi(activation, sigma_w, sigma_b, q),
    xi: depthScale(activation, sigma_w, sigma_b, q, c),
  };
}

function plane(state, look, words) {
  const known = criticalLine(state.activation);
  const biases = BIASES.slice(0, known.length);
  const [x, y] = [PLANE.left(state.sigma_w), PLANE.top(state.sigma_b)];
  return chart(PLANE, {
    title: "The plane", xLabel: "σ_w", yLabel: "σ_b", role: "group",
    alt: "Plane of the deviations of weights and biases, with the critical line.",
  }, line(PLANE, known, biases, "theory") +
    `<g class="point" tabindex="0" role="slider" aria-label="Point in the plane, moved by the arrow keys" ` +
    `aria-valuemin="0.1" aria-valuemax="4" aria-valuenow="${state.sigma_w}" ` +
    `aria-valuetext="sigma_w ${state.sigma_w}, sigma_b ${state.sigma_b}: ${words}">` +
    `<circle cx="${x}" cy="${y}" r="16" class="grip"/>` +
    `<circle cx="${x}" cy="${y}" r="6" class="marks ${look}"/></g>`);
}

function cobweb({ activation, sigma_w, sigma_b }, { q }) {
  const end = q > 0 && q < Infinity ? 1.6 * Math.max(q, 1) : 2;
  const at = axes({ x: [0, end], y: [0, end] });
  const next = (value) => secondMomentMap(activation, value, sigma_w, sigma_b);
  const grid = Array.from({ length: 41 }, (_, k) => (end * k) / 40);
  const [xs, ys] = [[1], [1]];
  for (let k = 0, value = 1; k < 30 && value < 1e9; k++) {
    const image = next(value);
    xs.push(value, image);
    ys.push(image, image);
    value = image;
  }
  return chart(at, {
    title: "Second moment", xLabel: "q", yLabel: "q of the next layer",
    alt: `The map of the second moment; from 1 it goes to ${format(q)}.`,
  }, line(at, [0, end], [0, end], "thin") + line(at, grid, grid.map(next), "theory") +
    line(at, xs, ys, "green", "circle"));
}

function correlations({ activation, sigma_w, sigma_b }, { q, c }) {
  const at = axes({ x: [0, 1], y: [0, 1] });
  const title = "Correlation";
  if (!(q > 0 && q < Infinity)) {
    const why = `none: the second moment goes to ${q}`;
    return chart(at, { title, xLabel: "c", yLabel: "", alt: `${title}: ${why}.` },
      `<text x="60" y="100">${why}</text>`);
  }
  const next = SHOWN.map((value) => correlationMap(activation, value, sigma_w, sigma_b, q));
  const [x, y] = [at.left(c), at.top(c)];
  return chart(at, {
    title, xLabel: "c", yLabel: "c of the next layer",
    alt: `The map of the correlation of two inputs; two inputs end at ${format(c)}.`,
  }, line(at, [0, 1], [0, 1], "thin") + line(at, SHOWN, next, "theory") +
    `<circle cx="${x}" cy="${y}" r="5" class="marks green"/>`);
}

function profiles(norms, theory, look) {
  const layers = Array.from(norms.forward, (_, l) => l + 1);
  const both = [norms.forward, norms.backward];
  const at = axes({ x: [1, layers.length], y: decades([...both, theory.forward, theory.backward]), log: true });
  return chart(at, {
    title: "Signals by layer", xLabel: "layer", yLabel: "",
    alt: `Forward signal ${format(norms.forward[0])} to ${format(norms.forward[layers.length - 1])}, ` +
      `backward signal ${format(norms.backward[0])} in layer 1.`,
  }, line(at, layers, theory.forward, "theory") + line(at, layers, theory.backward, "theory") +
    line(at, layers, norms.forward, "thin", "square") +
    line(at, layers, norms.backward, look, MARKS[look]));
}

const phase = (factor) =>
  Math.abs(factor - 1) < 0.005 ? "On the critical line" : factor < 1 ? "Ordered" : "Chaotic";

function verdictOf(state, found, ratio) {
  const { q, c, xi } = found;
  const memory = q > 0 && q < Infinity
    ? ` Two inputs end at the correlation ${format(c, 2)}; the distance falls e-fold in ` +
      `${format(xi, 2)} layers, and such networks train up to about ${format(6 * xi, 2)} (an observation).`
    : "";
  return `${phase(found.chi)}: χ = ${format(found.chi)} at q* = ${format(q)}.${memory} Over ` +
    `${state.depth} layers this network multiplies the backward signal by ${format(ratio, 2)}.`;
}

function drawn(state, engine) {
  const found = compute(state);
  const settings = {
    ...state, ...NETWORK, sigmaW: state.sigma_w, sigmaB: state.sigma_b,
    normalization: false, residual: false,
  };
  const norms = profile(engine, settings), theory = profileTheory(settings);
  const ratio = norms.backward[0] / norms.backward[state.depth - 1];
  const look = regime(found.chi ** ((state.depth - 1) / 2));
  return {
    charts: plane(state, look, phase(found.chi)) + cobweb(state, found) +
      correlations(state, found) + profiles(norms, theory, look),
    legend: legend([
      ["theory", "theory; in the plane the critical line, χ = 1"],
      ["green", "iteration from 1, and where it ends", "circle"],
      ["thin", "forward signal, measured", "square"],
      [look, "backward signal, measured", MARKS[look]],
    ]),
    verdict: verdictOf(state, found, ratio),
    look,
    table: {
      caption: "Sizes of the signals by layer",
      columns: ["layer", "forward", "backward", "forward, theory", "backward, theory"],
      rows: Array.from(norms.forward, (value, l) =>
        [l + 1, value, norms.backward[l], theory.forward[l], theory.backward[l]]),
    },
    values: { ...found, line: [...criticalLine(state.activation)] },
  };
}

export const order = {
  name: "order",
  draw: drawn,
  still(state, engine) {
    while (addPoint(state.activation));
    return drawn(state, engine);
  },

  attach(host) {
    let timer = 0, dragged = false;
    /** One point of the critical line at a time, between which the page can do something else. */
    function complete() {
      clearTimeout(timer);
      const { activation } = host.state;
      timer = setTimeout(() => {
        if (addPoint(activation)) complete();
        else host.redraw();
      });
    }
    const point = () => host.charts.querySelector(".point");
    const planeOf = () => point().closest("[role=group]");

    function moveTo({ clientX, clientY }) {
      const { x, y } = new DOMPoint(clientX, clientY)
        .matrixTransform(planeOf().getScreenCTM().inverse());
      const [sigma_w, sigma_b] = PLANE.value(x, y);
      host.set({ sigma_w, sigma_b });
    }

    const listeners = {
      pointerdown(event) {
        if (!planeOf().contains(event.target)) return;
        if (event.pointerType === "touch" && !event.target.closest(".point")) return;
        dragged = true;
        host.root.setPointerCapture(event.pointerId);
        moveTo(event);
        event.preventDefault();
      },
      pointermove: (event) => dragged && moveTo(event),
      pointerup: () => (dragged = false),
      pointercancel: () => (dragged = false),
      keydown(event) {
        if (!event.target.closest?.(".point")) return;
        const [x, y] = {
          ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1],
        }[event.key] ?? [0, 0];
        if (!x && !y) return;
        event.preventDefault();
        const size = event.shiftKey ? 0.1 : 0.01;
        host.set({ sigma_w: host.state.sigma_w + size * x, sigma_b: host.state.sigma_b + size * y });
      },
    };
    for (const [type, listener] of Object.entries(listeners)) host.root.addEventListener(type, listener);
    if (addPoint(host.state.activation)) complete();
    return {
      changed() {
        host.redraw();
        if (criticalLine(host.state.activation).length < BIASES.length) complete();
      },
      stop() {
        clearTimeout(timer);
        for (const [type, listener] of Object.entries(listeners)) {
          host.root.removeEventListener(type, listener);
        }
      },
    };
  },
};
