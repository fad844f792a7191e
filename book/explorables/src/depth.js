// Explorable 1: forward signal, backward signal and weight gradients of a random deep network.

import { axes, chart, decades, format, legend, line, MARKS } from "./chart.js";
import { profile } from "./engine.js";
import { profileTheory } from "./theory.js";

const BATCH = 64;

/** What gradutils.diagnosis calls this ratio; its limits are in decades. */
export function regime(ratio) {
  const decadesGained = Math.log10(ratio);
  if (decadesGained <= -GRADUTILS.limits.vanishing) return "vanishing";
  return decadesGained < GRADUTILS.limits.exploding ? "healthy" : "exploding"; // as is NaN, which comes after inf
}

function verdictOf(norms, theory, depth) {
  const ratio = norms.backward[0] / norms.backward[depth - 1];
  const look = regime(ratio);
  if (!Number.isFinite(ratio) || !norms.forward.every(Number.isFinite)) {
    return { look, text: `${capital(look)}: the numbers leave the range of double precision.` };
  }
  const perLayer = ratio ** (1 / (depth - 1));
  const predicted = theory && (theory.backward[0] / theory.backward[depth - 1]) ** (1 / (depth - 1));
  const text = `${capital(look)}: from layer ${depth} back to layer 1 the backward signal is ` +
    `multiplied by ${format(ratio, 2)}, ${format(perLayer)} per layer` +
    (theory ? ` (theory ${format(predicted)}).` : ".");
  const seen = norms.weights[0] / norms.weights[depth - 1];
  const flat = look !== "healthy" && seen > 0.1 && seen < 10;
  return { look, text: flat ? `${text} The weight gradients do not show it.` : text };
}

const capital = (word) => word[0].toUpperCase() + word.slice(1);

function panel(layers, title, yLabel, measured, predicted, look) {
  const y = decades(predicted ? [measured, predicted] : [measured]);
  const at = axes({ x: [1, Math.max(2, layers.length)], y, log: true });
  const alt = `${title}, by layer: ${format(measured[0])} in layer 1, ` +
    `${format(measured[layers.length - 1])} in layer ${layers.length}.`;
  const inside = line(at, layers, measured, look, MARKS[look]) +
    (predicted ? line(at, layers, predicted, "theory") : "");
  return chart(at, { title, xLabel: "layer", yLabel, alt }, inside);
}

export const depth = {
  name: "depth",
  draw(state, engine) {
    const settings = {
      ...state, batch: BATCH, sigmaW: state.sigma_w, sigmaB: state.sigma_b,
      normalization: state.batch_norm,
    };
    const norms = profile(engine, settings);
    const theory = profileTheory(settings);
    const { look, text } = verdictOf(norms, theory, state.depth);
    const layers = Array.from({ length: state.depth }, (_, i) => i + 1);
    const rows = layers.map((l, i) => [
      l, norms.forward[i], norms.backward[i], norms.weights[i],
      theory ? theory.forward[i] : "", theory ? theory.backward[i] : "",
    ]);
    return {
      charts:
        panel(layers, "Forward signal", "RMS of h", norms.forward, theory?.forward, look) +
        panel(layers, "Backward signal", "norm of dL/dh", norms.backward, theory?.backward, look) +
        panel(layers, "Weight gradients", "norm of dL/dW", norms.weights, null, look),
      legend: legend([
        [look, `measured, ${BATCH} samples`, MARKS[look]],
        ["theory", theory ? "theory, infinite width" : "no theory for this combination"],
      ]),
      verdict: text,
      look,
      table: {
        caption: "Sizes of the signals by layer",
        columns: ["layer", "forward", "backward", "weights", "forward, theory", "backward, theory"],
        rows,
      },
      values: {
        forward: [...norms.forward], backward: [...norms.backward], weights: [...norms.weights],
      },
    };
  },
};
