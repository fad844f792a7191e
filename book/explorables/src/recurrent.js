// Recurrent networks of 16 units: Jacobians over time, and their spectral norms. Rows are samples,
// as in gradutils.recurrent. A matrix is an array of its entries, row by row.

import { normals, stream, uniform } from "./random.js";

export const UNITS = 16;
const n = UNITS;

const gaussian = (count, key, scale = 1) =>
  normals(new Float64Array(count), key).map((value) => scale * value);

/** a b, where a has `inner` columns and b `columns`. */
export function product(a, b, inner, columns) {
  const rows = a.length / inner, out = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let k = 0; k < inner; k++) {
      const value = a[i * inner + k];
      for (let j = 0; j < columns; j++) out[i * columns + j] += value * b[k * columns + j];
    }
  }
  return out;
}

export function transpose(a, columns) {
  const rows = a.length / columns, out = new Float64Array(a.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) out[j * rows + i] = a[i * columns + j];
  }
  return out;
}

/** Make the rows orthonormal, in place (Gram and Schmidt, twice against rounding). */
function orthonormalize(a, columns) {
  for (let i = 0; i < a.length; i += columns) {
    const row = a.subarray(i, i + columns);
    for (let k = 0; k < 2 * i; k += columns) {
      const other = a.subarray(k % i, (k % i) + columns);
      const along = row.reduce((sum, value, j) => sum + value * other[j], 0);
      other.forEach((value, j) => (row[j] -= along * value));
    }
    const size = Math.hypot(...row);
    row.forEach((value, j) => (row[j] = value / size));
  }
  return a;
}

/** The angles of the eigenvalues, one for each pair. */
export const angles = (seed) =>
  Array.from({ length: n / 2 }, (_, k) => Math.PI * uniform(stream(seed, 1), k));

/**
 * A matrix whose eigenvalues all have the modulus `radius`: rotations of pairs, and above them
 * `shear` times Gaussian entries, which move no eigenvalue; all in a random orthogonal basis.
 */
export function recurrentMatrix({ radius, shear, seed }) {
  const block = gaussian(n * n, stream(seed, 0), shear / Math.sqrt(n));
  angles(seed).forEach((angle, k) => {
    const [i, j] = [2 * k, 2 * k + 1];
    const [cosine, sine] = [radius * Math.cos(angle), radius * Math.sin(angle)];
    block.fill(0, n * i, n * i + j + 1);
    block.fill(0, n * j, n * j + j + 1);
    block[n * i + i] = block[n * j + j] = cosine;
    block[n * i + j] = -sine;
    block[n * j + i] = sine;
  });
  const basis = orthonormalize(gaussian(n * n, stream(seed, 2)), n);
  return product(product(transpose(basis, n), block, n, n), basis, n, n);
}

/** The inputs of all steps, a row for each. */
export const inputs = (steps, scale, seed) => gaussian(steps * n, stream(seed, 3), scale);

/** dx_t/dx_0 for t = 1, 2, ... of x_t = phi(x_{t-1} W + u_t), from x_0 = 0. */
export function rnnJacobians(W, u, activation) {
  const Wt = transpose(W, n), jacobians = [];
  let x = new Float64Array(n);
  for (let t = 0; t < u.length; t += n) {
    const before = jacobians[jacobians.length - 1];
    const J = before ? product(Wt, before, n, n) : Wt.slice();
    x = product(x, W, n, n).map((value, j) => value + u[t + j]);
    if (activation === "tanh") {
      x = x.map(Math.tanh);
      J.forEach((value, k) => (J[k] = (1 - x[(k / n) | 0] ** 2) * value));
    }
    jacobians.push(J);
  }
  return jacobians;
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** The weights of an LSTM as Keras draws them, gates in the order i, f, c, o. */
export const lstmWeights = (seed) => ({
  W: orthonormalize(gaussian(4 * n * n, stream(seed, 4)), 4 * n),
  U: gaussian(4 * n * n, stream(seed, 5), Math.sqrt(2 / (5 * n))), // Glorot: n inputs, 4 n outputs
});

/** dc_t/dc_0 for t = 1, 2, ... of an LSTM from zero states; h_0 is held at zero. */
export function lstmJacobians({ W, U }, u, forgetBias) {
  const Wt = transpose(W, 4 * n), jacobians = [];
  let h = new Float64Array(n), c = new Float64Array(n);
  let dh = new Float64Array(n * n), dc = new Float64Array(n * n);
  for (let k = 0; k < n; k++) dc[k * n + k] = 1;
  for (let t = 0; t < u.length; t += n) {
    const input = product(u.subarray(t, t + n), U, n, 4 * n);
    const z = product(h, W, n, 4 * n).map((value, k) => value + input[k]);
    const d = product(Wt, dh, n, n); // the gates' pre-activations by c_0
    [h, c, dc, dh] = lstmStep(z, c, dc, d, forgetBias);
    jacobians.push(dc);
  }
  return jacobians;
}

function lstmStep(z, c, dc, d, forgetBias) {
  const [h, cell] = [new Float64Array(n), new Float64Array(n)];
  const [dCell, dh] = [new Float64Array(n * n), new Float64Array(n * n)];
  for (let k = 0; k < n; k++) {
    const i = sigmoid(z[k]), f = sigmoid(z[n + k] + forgetBias);
    const g = Math.tanh(z[2 * n + k]), o = sigmoid(z[3 * n + k]);
    cell[k] = f * c[k] + i * g;
    const squashed = Math.tanh(cell[k]);
    h[k] = o * squashed;
    for (let j = k * n; j < (k + 1) * n; j++) {
      const [di, df, dg, dO] = [d[j], d[n * n + j], d[2 * n * n + j], d[3 * n * n + j]];
      dCell[j] = f * dc[j] + c[k] * f * (1 - f) * df + g * i * (1 - i) * di + i * (1 - g * g) * dg;
      dh[j] = o * (1 - squashed * squashed) * dCell[j] + squashed * o * (1 - o) * dO;
    }
  }
  return [h, cell, dCell, dh];
}

/** The largest singular value: of the tridiagonal form of J^T J, by Sturm's count. */
export function spectralNorm(J) {
  let size = 0;
  for (const value of J) size = Math.max(size, Math.abs(value));
  if (!(size > 0 && size < Infinity)) return size; // 0, infinite, or NaN
  const scaled = J.map((value) => value / size);
  const [diagonal, beside] = tridiagonal(product(transpose(scaled, n), scaled, n, n));
  let low = 0, high = 0;
  for (let i = 0; i < n; i++) {
    high = Math.max(high, diagonal[i] + Math.abs(beside[i]) + Math.abs(beside[i + 1]));
  }
  for (let round = 0; round < 60; round++) {
    const middle = (low + high) / 2;
    if (allBelow(diagonal, beside, middle)) high = middle;
    else low = middle;
  }
  return size * Math.sqrt(high);
}

/** Whether all eigenvalues of a symmetric tridiagonal matrix lie below x. */
function allBelow(diagonal, beside, x) {
  let pivot = 1;
  for (let i = 0; i < n; i++) {
    pivot = diagonal[i] - x - (beside[i] * beside[i]) / pivot;
    if (pivot >= 0) return false;
  }
  return true;
}

/** Householder's reduction of a symmetric matrix, in place: diagonal, and entry i left of it. */
function tridiagonal(A) {
  const beside = new Float64Array(n + 1), v = new Float64Array(n), q = new Float64Array(n);
  for (let k = 0; k < n - 2; k++) {
    v.fill(0);
    let square = 0;
    for (let i = k + 1; i < n; i++) square += (v[i] = A[i * n + k]) ** 2;
    beside[k + 1] = v[k + 1] > 0 ? -Math.sqrt(square) : Math.sqrt(square);
    const norm = 2 * (square - v[k + 1] * beside[k + 1]); // of the reflected vector, squared
    v[k + 1] -= beside[k + 1];
    if (norm === 0) continue;
    let along = 0;
    for (let i = k + 1; i < n; i++) {
      q[i] = 0;
      for (let j = k + 1; j < n; j++) q[i] += (2 / norm) * A[i * n + j] * v[j];
      along += (q[i] * v[i]) / norm;
    }
    for (let i = k + 1; i < n; i++) q[i] -= along * v[i];
    for (let i = k + 1; i < n; i++) {
      for (let j = k + 1; j < n; j++) A[i * n + j] -= v[i] * q[j] + q[i] * v[j];
    }
  }
  beside[n - 1] = A[(n - 1) * n + n - 2];
  return [Float64Array.from({ length: n }, (_, i) => A[i * n + i]), beside];
}
