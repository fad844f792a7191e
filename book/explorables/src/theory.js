// Mean-field theory of wide networks, as gradutils.theory has it.

import { phi, slope } from "./kernels";
import { ACTIVATIONS } from "./engine.js"; // fills the table that phi reads

const TINY = 1e-12, HUGE = 1e12; // outside, a second moment counts as 0 or as infinite

// Double-exponential quadrature on the half-line, x = exp(t - exp(-t)): exact to rounding for
// functions that are smooth on each side of zero. The density falls as exp(-x^2 / 2).
const STEP = 1 / 32, NODES = [], WEIGHTS = [];
for (let t = -4.25; t < 2.5; t += STEP) {
  const x = Math.exp(t - Math.exp(-t));
  const density = Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
  NODES.push(x);
  WEIGHTS.push(STEP * density * x * (1 + Math.exp(-t)));
}

/** The mean of f(sqrt(q) z) over z ~ N(0, 1). */
export function gaussianAverage(f, q) {
  const deviation = Math.sqrt(q);
  let sum = 0;
  for (let i = 0; i < NODES.length; i++) {
    const h = deviation * NODES[i];
    sum += WEIGHTS[i] * (f(h) + f(-h));
  }
  return sum;
}

/** The means of phi(h), phi(h)^2 and phi'(h)^2 over h = sqrt(q) z, z ~ N(0, 1). */
function averages(kind, q) {
  const deviation = Math.sqrt(q);
  const sums = [0, 0, 0];
  const add = (weight, h) => {
    const value = phi(kind, h);
    sums[0] += weight * value;
    sums[1] += weight * value ** 2;
    sums[2] += weight * slope(kind, h, value) ** 2;
  };
  for (let i = 0; i < NODES.length; i++) {
    add(WEIGHTS[i], deviation * NODES[i]);
    add(WEIGHTS[i], -deviation * NODES[i]);
  }
  return sums;
}

const kindOf = (activation) => ACTIVATIONS.indexOf(activation);

/** The mean of f(u) f(v) over Gaussian u, v of variance q and correlation c; every other node. */
function pairAverage(f, q, c) {
  // In polar coordinates the kinks at u = 0 and v = 0 are rays; Gauss-Legendre between them.
  const theta = Math.acos(Math.min(1, Math.max(-1, c)));
  const deviation = Math.sqrt(q);
  const tau = 2 * Math.PI;
  const rays = [0.25, 0.75, theta / tau + 0.25, (theta / tau + 0.75) % 1].sort((a, b) => a - b);
  let sum = 0;
  rays.forEach((from, k) => {
    const size = (k < 3 ? rays[k + 1] : rays[0] + 1) - from;
    if (size < 1e-15) return;
    LEGENDRE.forEach(([point, weight]) => {
      const angle = tau * (from + (size * (point + 1)) / 2);
      const [along, across] = [Math.cos(angle), Math.cos(angle - theta)];
      let radial = 0;
      for (let i = 0; i < NODES.length; i += 2) {
        const r = deviation * NODES[i];
        radial += 2 * WEIGHTS[i] * NODES[i] * f(r * along) * f(r * across);
      }
      sum += (radial * weight * size) / 2;
    });
  });
  return sum * Math.sqrt(tau);
}

/** Points and weights of Gauss-Legendre quadrature on (-1, 1), by Newton's method. */
const LEGENDRE = Array.from({ length: 32 }, (_, i) => {
  const n = 32;
  let x = Math.cos((Math.PI * (i + 0.75)) / (n + 0.5)), derivative = 1;
  for (let round = 0; round < 8; round++) {
    let [before, value] = [1, x];
    for (let k = 2; k <= n; k++) {
      [before, value] = [value, ((2 * k - 1) * x * value - (k - 1) * before) / k];
    }
    derivative = (n * (x * value - before)) / (x * x - 1);
    x -= value / derivative;
  }
  return [x, 2 / ((1 - x * x) * derivative * derivative)];
});

/** The second moment of the next layer's pre-activations. */
export function secondMomentMap(activation, q, sigmaW, sigmaB) {
  const kind = kindOf(activation);
  return sigmaW ** 2 * gaussianAverage((h) => phi(kind, h) ** 2, q) + sigmaB ** 2;
}

/** Where the second moment settles, started at q = 1: 0 if it dies, Infinity if it grows. */
export function fixedPoint(activation, sigmaW, sigmaB) {
  const growth = (logQ) => {
    const q = Math.exp(logQ);
    return secondMomentMap(activation, q, sigmaW, sigmaB) / q - 1;
  };
  const step = growth(0);
  if (Math.abs(step) < 1e-12) return 1;
  // The map increases with q, so the iteration stops at the first root that it meets.
  const end = Math.log(step > 0 ? HUGE : TINY);
  let near = 0;
  for (let k = 1; k <= 60; k++) {
    const far = (end * k) / 60;
    if (growth(far) * step <= 0) return Math.exp(bisect(growth, near, far));
    near = far;
  }
  return step > 0 ? Infinity : 0;
}

/** A root of f between a and b, where f changes its sign (regula falsi, Illinois rule). */
function bisect(f, a, b) {
  let fa = f(a), fb = f(b);
  for (let k = 0; k < 200 && fa !== 0 && Math.abs(b - a) > 1e-13; k++) {
    let c = (a * fb - b * fa) / (fb - fa);
    if (!(c > Math.min(a, b) && c < Math.max(a, b))) c = (a + b) / 2;
    const fc = f(c);
    if (fc === 0) return c;
    if (fc * fb < 0) [a, fa] = [b, fb];
    else fa /= 2;
    [b, fb] = [c, fc];
  }
  return fa === 0 ? a : b;
}

/** What one layer does to the squared norm of the gradient, at the second moment q. */
export function chi(activation, sigmaW, sigmaB, q = fixedPoint(activation, sigmaW, sigmaB)) {
  const kind = kindOf(activation);
  const at = Math.min(1e30, Math.max(1e-30, q));
  return sigmaW ** 2 * gaussianAverage((h) => slope(kind, h, phi(kind, h)) ** 2, at);
}

/**
 * The sigma_w of the critical line: chi below 1 just under it, above 1 just over it. The search
 * starts at `guess`, the line's value for a neighbouring sigmaB.
 */
export function criticalSigmaW(activation, sigmaB, guess) {
  const excess = (sigmaW) => chi(activation, sigmaW, sigmaB) - 1;
  let low = guess / 1.02, high = guess * 1.02;
  while (excess(low) >= 0) low /= 1.05;
  while (excess(high) < 0) high *= 1.05;
  return bisect(excess, low, high);
}

/** The correlation of two inputs' pre-activations one layer on, at a second moment q. */
export function correlationMap(activation, c, sigmaW, sigmaB, q) {
  const kind = kindOf(activation);
  return (sigmaW ** 2 * pairAverage((h) => phi(kind, h), q, c) + sigmaB ** 2) / q;
}

/** c*, the correlation that two different inputs reach: 1 unless chi > 1. */
export function correlationFixedPoint(activation, sigmaW, sigmaB, q) {
  const drift = (c) => correlationMap(activation, c, sigmaW, sigmaB, q) - c;
  const justBelow = 1 - 1e-6; // c = 1 is always a fixed point; is there another one below it?
  if (chi(activation, sigmaW, sigmaB, q) <= 1 || drift(justBelow) >= 0) return 1;
  return Math.abs(drift(0)) < 1e-12 ? 0 : bisect(drift, 0, justBelow);
}

/** xi, the layers in which the distance of the correlation from c* falls e-fold. */
export function depthScale(activation, sigmaW, sigmaB, q, c) {
  if (q === Infinity) return Infinity;
  let factor = chi(activation, sigmaW, sigmaB, q);
  if (factor > 1 && q > 0) {
    const kind = kindOf(activation);
    factor = sigmaW ** 2 * pairAverage((h) => slope(kind, h, phi(kind, h)), q, c);
  }
  if (Math.abs(factor - 1) < 1e-9) return Infinity;
  return factor > 0 ? -1 / Math.log(factor) : 0;
}

const BATCH_NORM = ["relu", "leaky_relu", "tanh"]; // where samples do not drift apart or collapse

/**
 * Forward signal (root mean squares) and backward signal (relative to the last layer) by layer, for
 * inputs of variance 1; null where there is no theory. With batch normalisation the batch is large.
 */
export function profileTheory({ activation, sigmaW, sigmaB, depth, residual, normalization }) {
  if (normalization && !BATCH_NORM.includes(activation)) return null;
  const kind = kindOf(activation);
  const moments = [sigmaW ** 2 + sigmaB ** 2], factors = [];
  let spread = sigmaW ** 2; // variance of h over the samples
  for (let l = 1; l < depth; l++) {
    const [mean, square, change] = averages(kind, normalization ? 1 : moments[l - 1]);
    const branch = sigmaW ** 2 * square + sigmaB ** 2;
    const back = sigmaW ** 2 * change;
    const factor = normalization ? back / spread : back;
    const added = normalization ? branch - sigmaB ** 2 - (sigmaW * mean) ** 2 : 0;
    spread = residual ? spread + added : added;
    moments.push(residual ? moments[l - 1] + branch : branch);
    factors.push(residual ? 1 + factor : factor); // from dL/dh of layer l + 1 to that of layer l
  }
  const backward = [1];
  for (const factor of factors.reverse()) backward.unshift(backward[0] * factor);
  return { forward: moments.map(Math.sqrt), backward: backward.map(Math.sqrt) };
}
