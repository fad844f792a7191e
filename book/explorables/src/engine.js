// Deep networks on the kernels: what gradutils.networks.MLP computes, layer by layer.
//
// Layer l computes h_l = x_{l-1} W_l + b_l and x_l = phi(norm(h_l)); with a skip connection
// h_l = h_{l-1} + x_{l-1} W_l + b_l. The output is h_L. Rows are samples.

import * as kernels from "./kernels";
import { multiply } from "./multiply.plain";
import { use } from "./memory.js";
import { normals, stream } from "./random.js";
import fused from "wasm:fused";
import simd from "wasm:simd";

/** The names that the kernels number; build.mjs puts the tables of GRADUTILS in here. */
export const ACTIVATIONS = GRADUTILS.activations;

const TABLE = 3840; // bytes of the table of the normal distribution function
const PLAIN = { ...kernels, multiply };
use(new Float64Array(TABLE / 8));
kernels.prepare(0);

/**
 * The kernels and their memory: the first of the backends that the browser has.
 *
 * "fused" is WebAssembly with products that multiply and add in one rounding, "simd" without, and
 * "plain" is JavaScript.
 */
export function makeEngine({ backend = "fused" } = {}) {
  const engine = { bytes: 0, backend: "plain", ops: PLAIN, begin: 0 };
  try {
    if (backend === "plain") throw new Error("asked for");
    Object.assign(engine, { backend: "simd", ops: { ...instantiate(simd) }, begin: 65536 });
    if (backend === "simd") throw new Error("asked for");
    engine.ops.multiply = instantiate(fused, engine.ops.memory).multiply;
    engine.backend = "fused";
  } catch {
    // An old browser, or one that forbids WebAssembly: go on with what there is.
  }
  reserve(engine, engine.begin + TABLE);
  return engine;
}

/** What a binary exports; `memory` is for one that brings none. */
function instantiate(binary, memory) {
  const code = Uint8Array.from(atob(binary), (c) => c.charCodeAt(0));
  const imports = { env: { abort() {}, memory } };
  return new WebAssembly.Instance(new WebAssembly.Module(code), imports).exports;
}

/** Make room for so many bytes. */
function reserve(engine, bytes) {
  if (bytes > engine.bytes) {
    const { memory } = engine.ops;
    if (memory) {
      const missing = bytes - memory.buffer.byteLength;
      if (missing > 0) memory.grow(Math.ceil(missing / 65536));
    }
    engine.numbers = new Float64Array(memory ? memory.buffer : bytes / 8);
    engine.bytes = 8 * engine.numbers.length;
  }
  enter(engine);
  engine.ops.prepare(engine.begin);
}

/** Plain kernels have one memory at a time. Each begins with the table, which theory.js needs. */
function enter(engine) {
  if (engine.ops === PLAIN) use(engine.numbers);
}

/** The entries of an array of the engine, as a view, good until a larger network is made. */
export const view = (engine, address, count) =>
  engine.numbers.subarray(address >> 3, (address >> 3) + count);

/**
 * Lay out a network in the engine's memory, in place of the one before.
 *
 * options: widths (multiples of 4), batch (too), activation, normalization, residual and moments,
 * which makes room for Adam (true or false). Weights and biases are for the caller to fill; each layer lists the addresses of its
 * arrays.
 */
export function makeNetwork(engine, options) {
  const { widths, batch, activation, normalization, residual, moments } = options;
  let top = engine.begin + TABLE;
  const take = (count) => {
    const address = top;
    top += 8 * count;
    return address;
  };
  const widest = Math.max(...widths);
  const net = {
    batch, normalization, residual,
    kind: ACTIVATIONS.indexOf(activation),
    input: take(batch * widths[0]),
    gradOutput: take(batch * widths[widths.length - 1]),
    scratch: take(batch * widest),
    transposed: take(widest * widest),
    layers: [],
  };
  for (let l = 1; l < widths.length; l++) {
    const [fanIn, fanOut] = [widths[l - 1], widths[l]];
    net.layers.push({
      fanIn, fanOut,
      skips: residual && l > 1 && fanIn === fanOut,
      weights: take(fanIn * fanOut), biases: take(fanOut),
      weightGradient: take(fanIn * fanOut), biasGradient: take(fanOut),
      pre: take(batch * fanOut), normalized: take(batch * fanOut), deviation: take(fanOut),
      output: take(batch * fanOut), slope: take(batch * fanOut), delta: take(batch * fanOut),
      moments: moments && [fanIn * fanOut, fanIn * fanOut, fanOut, fanOut].map(take),
    });
  }
  reserve(engine, top);
  return net;
}

/** All layers' signals; `standards` holds fixed means and scales for batch normalisation, if any. */
export function forward(engine, net, standards = []) {
  const { ops } = engine;
  enter(engine);
  let x = net.input, before = null;
  net.layers.forEach((layer, l) => {
    const { fanIn, fanOut, pre } = layer;
    const count = net.batch * fanOut;
    ops.multiply(net.batch, fanOut, fanIn, x, 8 * fanIn, 8, layer.weights, pre);
    ops.addRow(net.batch, fanOut, pre, layer.biases);
    if (layer.skips) ops.combine(count, 1, before.pre, 1, pre, pre);
    if (l < net.layers.length - 1) {
      if (standards[l]) {
        const { mean, scale } = standards[l];
        const h = view(engine, pre, count), z = view(engine, layer.normalized, count);
        for (let k = 0; k < count; k++) z[k] = (h[k] - mean[k % fanOut]) / scale[k % fanOut];
      } else if (net.normalization) {
        ops.standardize(net.batch, fanOut, pre, layer.normalized, layer.deviation);
      }
      const into = net.normalization ? layer.normalized : pre;
      ops.activate(net.kind, count, into, layer.output, layer.slope);
    }
    [x, before] = [layer.output, layer];
  });
}

/** From the gradient of the loss by the output, at net.gradOutput, to those of all layers. */
export function backward(engine, net) {
  const { ops } = engine;
  enter(engine);
  const last = net.layers[net.layers.length - 1];
  ops.scale(net.batch * last.fanOut, 1, net.gradOutput, last.delta);
  for (let l = net.layers.length - 1; l >= 0; l--) {
    const layer = net.layers[l], below = net.layers[l - 1];
    const { fanIn, fanOut, delta } = layer;
    const x = l ? below.output : net.input;
    ops.multiply(fanIn, fanOut, net.batch, x, 8, 8 * fanIn, delta, layer.weightGradient);
    ops.sumRows(net.batch, fanOut, delta, layer.biasGradient);
    if (l) pullBack(engine, net, layer, below);
  }
}

function pullBack({ ops }, net, layer, below) {
  const { fanIn, fanOut } = layer;
  const count = net.batch * fanIn;
  ops.transpose(fanIn, fanOut, layer.weights, net.transposed);
  ops.multiply(net.batch, fanIn, fanOut, layer.delta, 8 * fanOut, 8, net.transposed, net.scratch);
  ops.hadamard(count, net.scratch, below.slope, below.delta);
  if (net.normalization) {
    const { delta, normalized, deviation } = below;
    ops.standardizeBack(net.batch, fanIn, delta, normalized, deviation, delta);
  }
  if (layer.skips) ops.combine(count, 1, below.delta, 1, layer.delta, below.delta);
}

/** The sizes of one batch's signals: root mean squares of h_l, norms of dL/dh_l and dL/dW_l. */
export function layerNorms(engine, net) {
  const { ops } = engine;
  enter(engine);
  const sizes = (f) => Float64Array.from(net.layers, f);
  return {
    forward: sizes(({ pre, fanOut }) => {
      const count = net.batch * fanOut;
      return Math.sqrt(ops.sumOfSquares(count, pre) / count);
    }),
    backward: sizes((l) => Math.sqrt(ops.sumOfSquares(net.batch * l.fanOut, l.delta))),
    weights: sizes((l) => Math.sqrt(ops.sumOfSquares(l.fanIn * l.fanOut, l.weightGradient))),
  };
}

const drawn = new Map(); // the last network's draws: moving the gain draws nothing anew

function draw(seed, index, count) {
  const key = `${seed} ${index} ${count}`;
  if (!drawn.has(key)) drawn.set(key, normals(new Float64Array(count), stream(seed, index)));
  return drawn.get(key);
}

/**
 * The signals of one batch through a random network of equal widths.
 *
 * settings: depth, width, batch, activation, sigmaW, sigmaB, seed, normalization, residual. Inputs
 * and the gradient of the loss by the output are standard normal, the latter scaled to norm 1.
 */
export function profile(engine, settings) {
  const { depth, width, batch, seed, sigmaW, sigmaB } = settings;
  const net = makeNetwork(engine, { ...settings, widths: Array(depth + 1).fill(width) });
  if (draw.seed !== `${seed} ${width}`) drawn.clear();
  draw.seed = `${seed} ${width}`;
  enter(engine);
  const fill = (address, numbers, factor) => {
    view(engine, address, numbers.length).set(numbers);
    engine.ops.scale(numbers.length, factor, address, address);
  };
  fill(net.input, draw(seed, 0, batch * width), 1);
  const output = draw(seed, 1, batch * width);
  fill(net.gradOutput, output, 1 / Math.hypot(...output));
  net.layers.forEach((layer, l) => {
    fill(layer.weights, draw(seed, 2 * l + 2, width * width), sigmaW / Math.sqrt(width));
    fill(layer.biases, draw(seed, 2 * l + 3, width), sigmaB);
  });
  forward(engine, net);
  backward(engine, net);
  return layerNorms(engine, net);
}
