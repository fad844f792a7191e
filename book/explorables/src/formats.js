// Explorable 5: a product of factors in four number formats.

import { axes, chart, decades, format, legend, line } from "./chart.js";
import { normals, stream } from "./random.js";

/** Bits of the significand, exponent of the smallest normal number, and the largest number. */
const FORMATS = {
  float64: { bits: 53, lowest: -1022, largest: Number.MAX_VALUE },
  float32: { bits: 24, lowest: -126, largest: (2 - 2 ** -23) * 2 ** 127 },
  bfloat16: { bits: 8, lowest: -126, largest: (2 - 2 ** -7) * 2 ** 127 },
  float16: { bits: 11, lowest: -14, largest: 65504 },
};
const LOOKS = {
  float64: ["theory", ""], float32: ["green", "circle"],
  bfloat16: ["orange dashdot", "up"], float16: ["blue dashed", "down"],
};

const bytes = new DataView(new ArrayBuffer(8));

function exponentOf(x) {
  bytes.setFloat64(0, x);
  return ((bytes.getUint16(0) >> 4) & 0x7ff) - 1023;
}

/** Round to the nearest number of a format, ties to even; subnormals and infinity included. */
export function roundTo(x, name) {
  if (name === "float64") return x;
  if (name === "float32") return Math.fround(x);
  if (!Number.isFinite(x) || x === 0) return x;
  const { bits, lowest, largest } = FORMATS[name];
  const unit = 2 ** (Math.max(exponentOf(x), lowest) - bits + 1);
  const shift = 3 * 2 ** 51; // adding it leaves no bit below 1, and rounds ties to even
  const rounded = (x / unit + shift - shift) * unit;
  if (rounded === 0) return x < 0 ? -0 : 0;
  return Math.abs(rounded) > largest ? Math.sign(x) * Infinity : rounded;
}

/** A product as hardware of a 16-bit format has it: computed in float32, then rounded. */
export const times = (a, b, name) =>
  roundTo(name === "float64" ? a * b : Math.fround(a * b), name);

/** The factors of all layers, in double precision. */
export const factorsOf = ({ factor, spread, layers, seed }) =>
  Array.from(normals(new Float64Array(layers), stream(seed, 0)), (z) => factor * Math.exp(spread * z));

/** The gradient after 0, 1, ... layers, as the format stores it. */
export function chain(factors, scale, name) {
  const stored = [roundTo(scale, name)];
  for (const factor of factors) {
    stored.push(times(stored[stored.length - 1], roundTo(factor, name), name));
  }
  return stored;
}

/** What happens to a format on the way, in words. */
function fate(name, stored, errors) {
  const { lowest } = FORMATS[name];
  const first = (test) => stored.findIndex(test);
  const infinite = first((g) => !Number.isFinite(g)), zero = first((g) => g === 0);
  if (infinite >= 0) return `${name} overflows in layer ${infinite}`;
  const subnormal = first((g) => Math.abs(g) < 2 ** lowest);
  const early = subnormal >= 0 ? `loses digits from layer ${subnormal}` : "";
  const last = stored[stored.length - 1];
  const since = stored.map((g) => g !== last).lastIndexOf(true) + 1;
  if (last !== 0 && Math.abs(last) < 2 ** lowest && since < stored.length - 1) {
    const multiple = last / 2 ** (lowest - FORMATS[name].bits + 1);
    const often = multiple === 1 ? "" : `${multiple} times `;
    return `${name} ${early} and sticks at ${often}its smallest number from layer ${since}`;
  }
  if (zero >= 0) return `${name} ${early ? `${early} and ` : ""}is zero from layer ${zero}`;
  const off = `ends with an error of ${format(errors[errors.length - 1], 2)}`;
  return `${name} ${early ? `${early} and ` : ""}${off}`;
}

function limits(at, name, right) {
  const { bits, lowest, largest } = FORMATS[name];
  return [largest, 2 ** lowest, 2 ** (lowest - bits + 1)]
    .filter((v) => Math.log10(v) > at.y[0] && Math.log10(v) < at.y[1])
    .map((v) => line(at, [0, right], [v, v], `thin ${LOOKS[name][0].split(" ")[1] ?? ""}`))
    .join("");
}

export const formats = {
  name: "formats",
  draw(state) {
    const names = Object.keys(FORMATS);
    const scale = 2 ** state.loss_scale;
    const factors = factorsOf(state);
    const stored = Object.fromEntries(names.map((name) => [name, chain(factors, scale, name)]));
    const exact = stored.float64;
    const error = (name) => stored[name].map((g, l) => Math.abs(g / exact[l] - 1));
    const errors = Object.fromEntries(names.slice(1).map((name) => [name, error(name)]));
    const layers = exact.map((_, l) => l);
    const draw = (at, values) => names.filter((name) => values[name])
      .map((name) => line(at, layers, values[name], ...LOOKS[name])).join("");
    const x = [0, state.layers];
    const size = axes({ x, y: decades(Object.values(stored), 4), log: true });
    const wrong = axes({ x, y: [-9, 1], log: true });
    const ends = names.slice(1).map((name) => fate(name, stored[name], errors[name]));
    const off = names.slice(1).map((name) => stored[name][state.layers] / exact[state.layers]);
    const look = off.some((ratio) => !Number.isFinite(ratio)) ? "exploding"
      : off.some((ratio) => Math.abs(ratio - 1) > 0.5) ? "vanishing" : "healthy";
    return {
      charts:
        chart(size, {
          title: "Gradient as stored", xLabel: "layers passed", yLabel: "with loss scale",
          alt: `The gradient by layer in four formats. ${ends.join("; ")}.`,
        }, limits(size, "float16", state.layers) + limits(size, "float32", state.layers) +
          draw(size, stored)) +
        chart(wrong, {
          title: "Relative error", xLabel: "layers passed", yLabel: "against float64",
          alt: `The relative error by layer. ${ends.join("; ")}.`,
        }, draw(wrong, errors)),
      legend: legend([
        ...names.map((name) => [LOOKS[name][0], name, LOOKS[name][1]]),
        ["thin", "largest, smallest normal and smallest number of float32"],
        ["thin dashed", "the same of float16"],
      ]),
      verdict: `${ends.join("; ")}.`,
      look,
      table: {
        caption: "The gradient with its loss scale, as stored",
        columns: ["layers passed", ...names],
        rows: layers.map((l) => [l, ...names.map((name) => stored[name][l])]),
      },
      values: { stored },
    };
  },
};
