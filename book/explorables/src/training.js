// Full-batch training on two spirals, as gradutils.networks.train does it.

import { backward, forward, layerNorms, makeEngine, makeNetwork, view } from "./engine.js";
import { normals, stream, uniform } from "./random.js";

export const SAMPLES = 128;
export const WIDTH = 16;
const PADDED = 4; // the kernels take multiples of 4: two inputs and two outputs are padded by zeros

/** Activation and sigma_w of the three sick networks. */
const PATIENTS = {
  "deep sigmoid": ["sigmoid", 1],
  "deep ReLU, small weights": ["relu", 0.8],
  "deep ReLU, large weights": ["relu", 3],
};
const CRITICAL = { sigmoid: 4, relu: Math.SQRT2 };

/** Two spirals of one turn with noise 0.05, as in gradutils.datasets: points by row, and labels. */
export function spirals(seed) {
  const key = stream(seed, 1000);
  const noise = normals(new Float64Array(2 * SAMPLES), stream(seed, 1001));
  const x = new Float64Array(2 * SAMPLES), labels = [];
  for (let i = 0; i < SAMPLES; i++) {
    const radius = Math.sqrt(0.01 + 0.99 * uniform(key, i));
    const angle = 2 * Math.PI * radius + Math.PI * (i % 2);
    labels.push(i % 2);
    x[2 * i] = radius * Math.cos(angle) + 0.05 * noise[2 * i];
    x[2 * i + 1] = radius * Math.sin(angle) + 0.05 * noise[2 * i + 1];
  }
  return { x, labels };
}

/** What the settings say of the network with the chosen fixes, or of the patient without them. */
export function recipe(state, fixed) {
  const [ownActivation, ownSigma] = PATIENTS[state.patient];
  const fix = (name) => fixed && state[name];
  const activation = fix("relu") ? "relu" : ownActivation;
  return {
    depth: state.depth, seed: state.seed, learningRate: Number(state.learning_rate),
    activation,
    sigmaW: fix("initialization") ? CRITICAL[activation] : ownSigma,
    centred: fix("initialization") && activation === "sigmoid",
    normalization: fix("batch_norm"), residual: fix("residual"),
    clip: fix("clipping"), adam: fix("adam"),
  };
}

/** A network at step 0, with an engine of its own. */
export function makeTrainer(settings) {
  const { depth, seed, sigmaW, centred } = settings;
  const engine = makeEngine();
  const widths = [PADDED, ...Array(depth).fill(WIDTH), PADDED];
  const net = makeNetwork(engine, { ...settings, widths, batch: SAMPLES, moments: true });
  const { x, labels } = spirals(seed);
  fillPadded(view(engine, net.input, SAMPLES * PADDED), PADDED, x, 2, 1);
  net.layers.forEach((layer, l) => {
    const fanIn = l ? WIDTH : 2, fanOut = l < depth ? WIDTH : 2;
    const drawn = normals(new Float64Array(fanIn * fanOut), stream(seed, 2 * l + 2));
    const weights = view(engine, layer.weights, layer.fanIn * layer.fanOut);
    const biases = view(engine, layer.biases, layer.fanOut);
    for (const address of layer.moments) view(engine, address, layer.fanOut).fill(0);
    for (const address of layer.moments.slice(0, 2)) view(engine, address, weights.length).fill(0);
    weights.fill(0);
    fillPadded(weights, layer.fanOut, drawn, fanOut, sigmaW / Math.sqrt(fanIn));
    biases.fill(0);
    // A sigmoid's mean of 1/2 is taken off by the biases of the next layer.
    if (centred && l) weights.forEach((w, k) => (biases[k % layer.fanOut] -= w / 2));
  });
  const points = labels.map((label, i) => [x[2 * i], x[2 * i + 1], label]);
  const trainer = { engine, net, labels, points, settings, step: 0, losses: [], norms: [] };
  evaluate(trainer);
  return trainer;
}

function fillPadded(target, targetColumns, source, columns, factor) {
  for (let k = 0; k < source.length; k++) {
    target[Math.floor(k / columns) * targetColumns + (k % columns)] = factor * source[k];
  }
}

/** Forward and backward pass; keeps loss, accuracy and gradient norms of this step. */
function evaluate(trainer) {
  const { engine, net, labels } = trainer;
  forward(engine, net);
  const last = net.layers[net.layers.length - 1];
  const logits = view(engine, last.pre, SAMPLES * PADDED);
  const gradient = view(engine, net.gradOutput, SAMPLES * PADDED);
  let loss = 0, right = 0;
  for (let i = 0; i < SAMPLES; i++) {
    const margin = logits[PADDED * i + 1] - logits[PADDED * i]; // log-odds of class 1
    const wrong = labels[i] ? -margin : margin;
    loss += (Math.max(wrong, 0) + Math.log1p(Math.exp(-Math.abs(wrong)))) / SAMPLES;
    right += wrong < 0 ? 1 : 0;
    const pull = 1 / (1 + Math.exp(-wrong)) / SAMPLES;
    gradient[PADDED * i] = labels[i] ? pull : -pull;
    gradient[PADDED * i + 1] = -gradient[PADDED * i];
  }
  backward(engine, net);
  trainer.losses.push(loss);
  trainer.accuracy = right / SAMPLES;
  trainer.norms.push(layerNorms(engine, net).weights);
  trainer.stopped = !Number.isFinite(loss);
}

/** One step of gradient descent or Adam, after clipping. */
export function advance(trainer) {
  if (trainer.stopped) return;
  const { ops } = trainer.engine;
  const { adam, clip, learningRate } = trainer.settings;
  const arrays = trainer.net.layers.flatMap((layer) => [
    [layer.fanIn * layer.fanOut, layer.weights, layer.weightGradient, ...layer.moments.slice(0, 2)],
    [layer.fanOut, layer.biases, layer.biasGradient, ...layer.moments.slice(2)],
  ]);
  const square = (sum, [count, , gradient]) => sum + ops.sumOfSquares(count, gradient);
  const total = clip ? Math.sqrt(arrays.reduce(square, 0)) : 0;
  const factor = total > 1 ? 1 / total : 1;
  const t = ++trainer.step;
  const rate = (learningRate * Math.sqrt(1 - 0.999 ** t)) / (1 - 0.9 ** t);
  for (const [count, p, gradient, m, v] of arrays) {
    ops.scale(count, factor, gradient, gradient);
    if (adam) ops.adam(count, rate, p, gradient, m, v);
    else ops.combine(count, 1, p, -learningRate, gradient, p);
  }
  evaluate(trainer);
}

/**
 * The probability of class 1 on a grid over the plane out to `reach`, top row first. Batch
 * normalisation keeps the means and deviations of the training samples.
 */
export function probabilities(trainer, rows, columns, [reachX, reachY]) {
  const { engine, net } = trainer;
  const points = rows * columns;
  const grid = (trainer.grid ??= makeEngine());
  const widths = [PADDED, ...net.layers.map((layer) => layer.fanOut)];
  const copy = makeNetwork(grid, { ...trainer.settings, widths, batch: points });
  const input = view(grid, copy.input, points * PADDED).fill(0);
  for (let k = 0; k < points; k++) {
    input[PADDED * k] = reachX * ((2 * (k % columns) + 1) / columns - 1);
    input[PADDED * k + 1] = reachY * (1 - (2 * Math.floor(k / columns) + 1) / rows);
  }
  const standards = net.layers.map((layer, l) => {
    const to = copy.layers[l];
    const count = layer.fanIn * layer.fanOut;
    view(grid, to.weights, count).set(view(engine, layer.weights, count));
    view(grid, to.biases, layer.fanOut).set(view(engine, layer.biases, layer.fanOut));
    return net.normalization && l < net.layers.length - 1 && standardOf(engine, layer);
  });
  forward(grid, copy, standards);
  const logits = view(grid, copy.layers[copy.layers.length - 1].pre, points * PADDED);
  return Float64Array.from({ length: points }, (_, k) =>
    1 / (1 + Math.exp(logits[PADDED * k] - logits[PADDED * k + 1])));
}

/** Mean and deviation of each unit over the training samples. */
function standardOf(engine, { pre, normalized, deviation, fanOut }) {
  const [h, z] = [view(engine, pre, fanOut), view(engine, normalized, fanOut)];
  const scale = view(engine, deviation, fanOut).slice();
  return { mean: h.map((value, j) => value - z[j] * scale[j]), scale };
}
