// Explorable 4: a signal through many steps of a plain recurrent network and of an LSTM.

import { axes, chart, decades, format, legend, line, MARKS } from "./chart.js";
import { regime } from "./depth.js";
import {
  angles, inputs, lstmJacobians, lstmWeights, recurrentMatrix, rnnJacobians, spectralNorm, UNITS,
} from "./recurrent.js";

const STEPS = 200;

/** The spectral norms that the figure shows, of steps 1 to 200. */
export function compute({ radius, shear, activation, forget_bias, input_scale, seed }) {
  const u = inputs(STEPS, input_scale, seed);
  const W = recurrentMatrix({ radius, shear, seed });
  return {
    rnn: kept("rnn", [radius, shear, activation, input_scale, seed],
      () => rnnJacobians(W, u, activation).map(spectralNorm)),
    lstm: kept("lstm", [forget_bias, input_scale, seed],
      () => lstmJacobians(lstmWeights(seed), u, forget_bias).map(spectralNorm)),
    largest: spectralNorm(W),
  };
}

const last = {}; // a slider changes one of the two networks: the other is not computed again

function kept(name, settings, f) {
  const key = settings.join(" ");
  if (last[name]?.key !== key) last[name] = { key, value: f() };
  return last[name].value;
}

function plane({ radius, seed }, largest) {
  const reach = 1.15 * Math.max(1, radius, Math.min(largest, 3));
  const at = axes({ x: [-1.62 * reach, 1.62 * reach], y: [-reach, reach] });
  const around = Array.from({ length: 97 }, (_, k) => (2 * Math.PI * k) / 96);
  const circle = (r, look) =>
    line(at, around.map((a) => r * Math.cos(a)), around.map((a) => r * Math.sin(a)), look);
  const dots = angles(seed).flatMap((a) => [a, -a]).map((a) => {
    const [x, y] = [at.left(radius * Math.cos(a)), at.top(radius * Math.sin(a))];
    return `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="3.5"/>`;
  });
  return chart(at, {
    title: "Eigenvalues", xLabel: "real part", yLabel: "imaginary part",
    alt: `${UNITS} eigenvalues of modulus ${format(radius)}; the largest singular value is ${format(largest)}.`,
  }, circle(1, "thin") + circle(largest, "theory") + `<g class="marks">${dots.join("")}</g>`);
}

function verdictOf(state, rnn, lstm, forget) {
  const peak = rnn.reduce((best, v, t) => (v > rnn[best] ? t : best), 0);
  const hump = state.radius < 1 && rnn[peak] > 3
    ? ` Before that it grows: to ${format(rnn[peak], 2)} at step ${peak + 1}, though the radius is below 1.`
    : "";
  return `Over ${STEPS} steps the plain network multiplies a signal by at most ` +
    `${format(rnn[STEPS - 1], 2)} (radius alone: ${format(state.radius ** STEPS, 2)}), the cell of ` +
    `the LSTM by ${format(lstm[STEPS - 1], 2)} (forget gate at rest: ${format(forget ** STEPS, 2)}).${hump}`;
}

export const time = {
  name: "time",
  draw(state) {
    const { rnn, lstm, largest } = compute(state);
    const steps = rnn.map((_, t) => t + 1);
    const forget = 1 / (1 + Math.exp(-state.forget_bias));
    const powers = (factor) => steps.map((t) => factor ** t);
    const [alone, resting] = [powers(state.radius), powers(forget)];
    const look = regime(rnn[STEPS - 1]);
    const shown = [rnn, lstm, alone].map((values) => values.map((v) => Math.max(v, 1e-40)));
    const at = axes({ x: [0, STEPS], y: decades(shown), log: true });
    const verdict = verdictOf(state, rnn, lstm, forget);
    return {
      charts:
        chart(at, {
          title: "Jacobian over time", xLabel: "step", yLabel: "spectral norm", alt: verdict,
        }, line(at, steps, alone, "theory") + line(at, steps, resting, "thin dashed") +
          line(at, steps, lstm, "dashdot", "square") + line(at, steps, rnn, look, MARKS[look])) +
        plane(state, largest),
      legend: legend([
        [look, "plain network", MARKS[look]],
        ["theory", "radius to the power t; right: largest singular value"],
        ["dashdot", "cell of the LSTM", "square"],
        ["thin dashed", "forget gate at rest, to the power t"],
        ["thin", "right: unit circle"],
      ]),
      verdict,
      look,
      table: {
        caption: "Spectral norms of the Jacobians over time",
        columns: ["step", "plain", "radius^t", "LSTM cell", "gate^t"],
        rows: steps.map((t, k) => [t, rnn[k], alone[k], lstm[k], resting[k]]),
      },
      values: { rnn, lstm, largest },
    };
  },
};
