// Dense kernels in double precision. One source, two builds: AssemblyScript compiles it to
// WebAssembly; without WebAssembly the page runs it as plain JavaScript over a Float64Array (see
// engine.js). Addresses are bytes, matrices lie row by row, and every dimension is a multiple of 4.

// The activations in the order of gradutils.activations.ACTIVATIONS.
const SIGMOID: i32 = 1, TANH: i32 = 2, RELU: i32 = 3, LEAKY_RELU: i32 = 4, ELU: i32 = 5;
const SELU: i32 = 6, GELU: i32 = 7, SILU: i32 = 8, SOFTPLUS: i32 = 9;

const LEAKY_SLOPE: f64 = 0.2;
const SELU_SCALE: f64 = 1.0507009873554805, SELU_ALPHA: f64 = 1.6732632423543772;
const EPSILON: f64 = 1e-12; // as in gradutils.normalizations

// Taylor series of the normal distribution function around 0, 0.375, 0.75, ...: 24 cells of 20.
const CELL: f64 = 0.375, CELLS: i32 = 24, TERMS: i32 = 20;
let table: usize = 0;

/** Fill the table of the normal distribution function; it takes 3840 bytes at `start`. */
export function prepare(start: usize): void {
  table = start;
  let value: f64 = 0.5;
  for (let cell: i32 = 0; cell < CELLS; cell++) {
    const center: f64 = CELL * <f64>cell;
    // y = Phi has y'' = -x y', which gives each coefficient of y' from the two before it.
    let last: f64 = 0, slope: f64 = Math.exp((-center * center) / 2) / Math.sqrt(2 * Math.PI);
    let power: f64 = CELL, next: f64 = value;
    store<f64>(start, value);
    for (let k: i32 = 1; k < TERMS; k++) {
      const coefficient: f64 = slope / <f64>k;
      store<f64>(start + (<usize>k << 3), coefficient);
      next += coefficient * power;
      power *= CELL;
      const following: f64 = -(center * slope + last) / <f64>k;
      last = slope;
      slope = following;
    }
    value = next;
    start += 160;
  }
}

/** The normal distribution function; its absolute error is below 1e-15. */
export function normalCdf(x: f64): f64 {
  const size: f64 = Math.abs(x);
  let upper: f64 = 1;
  if (size < 8.8) {
    const cell: f64 = Math.floor(size / CELL + 0.5);
    const d: f64 = size - cell * CELL;
    let p: usize = table + <usize>cell * 160 + 152;
    upper = load<f64>(p);
    for (let k: i32 = 1; k < TERMS; k++) {
      p -= 8;
      upper = upper * d + load<f64>(p);
    }
  } else if (size !== size) {
    return x;
  }
  return x < 0 ? 1 - upper : upper;
}

export function sigmoid(x: f64): f64 {
  if (x >= 0) return 1 / (1 + Math.exp(-x));
  const e: f64 = Math.exp(x);
  return e / (1 + e);
}

/** tanh to a few units in the last place, relative to its size: small signals are the point. */
function tanh(x: f64): f64 {
  const size: f64 = Math.abs(x);
  if (size < 0.4) {
    // Lambert's continued fraction, cut where the next term is below 1e-18.
    const s: f64 = x * x;
    return (x * (135135 + s * (17325 + s * (378 + s)))) /
      (135135 + s * (62370 + s * (3150 + s * 28)));
  }
  const t: f64 = 1 - 2 / (Math.exp(2 * size) + 1);
  return x < 0 ? -t : t;
}

export function phi(kind: i32, x: f64): f64 {
  if (kind === TANH) return tanh(x);
  if (kind === RELU) return x > 0 || x !== x ? x : 0;
  if (kind === LEAKY_RELU) return x > 0 ? x : LEAKY_SLOPE * x;
  if (kind === SIGMOID) return sigmoid(x);
  if (kind === ELU) return x > 0 ? x : Math.expm1(x);
  if (kind === SELU) return SELU_SCALE * (x > 0 ? x : SELU_ALPHA * Math.expm1(x));
  if (kind === GELU) return x * normalCdf(x);
  if (kind === SILU) return x * sigmoid(x);
  if (kind === SOFTPLUS) return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
  return x;
}

/** The derivative of the activation at x, where its value is y; at a kink the one from the left. */
export function slope(kind: i32, x: f64, y: f64): f64 {
  if (kind === TANH) return 1 - y * y;
  if (kind === RELU) return x > 0 ? 1 : 0;
  if (kind === LEAKY_RELU) return x > 0 ? 1 : LEAKY_SLOPE;
  if (kind === SIGMOID) return y * sigmoid(-x);
  if (kind === ELU) return x > 0 ? 1 : Math.exp(x);
  if (kind === SELU) return SELU_SCALE * (x > 0 ? 1 : SELU_ALPHA * Math.exp(x));
  if (kind === GELU) {
    const cdf: f64 = x !== 0 ? y / x : 0.5;
    return cdf + (x * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI);
  }
  if (kind === SILU) {
    const gate: f64 = x !== 0 ? y / x : 0.5;
    return gate * (1 + x * (1 - gate));
  }
  if (kind === SOFTPLUS) return sigmoid(x);
  return 1;
}

/** y = phi(x) and s = phi'(x), entry by entry. */
export function activate(kind: i32, count: i32, x: usize, y: usize, s: usize): void {
  const end: usize = x + (<usize>count << 3);
  while (x < end) {
    const value: f64 = load<f64>(x);
    const image: f64 = phi(kind, value);
    store<f64>(y, image);
    store<f64>(s, slope(kind, value, image));
    x += 8;
    y += 8;
    s += 8;
  }
}

/** b = transpose of a, which has `rows` rows and `columns` columns. */
export function transpose(rows: i32, columns: i32, a: usize, b: usize): void {
  const stride: usize = <usize>rows << 3;
  for (let i: i32 = 0; i < rows; i++) {
    let to: usize = b + (<usize>i << 3);
    for (let j: i32 = 0; j < columns; j++) {
      store<f64>(to, load<f64>(a));
      a += 8;
      to += stride;
    }
  }
}

/** c = alpha a + beta b. */
export function combine(count: i32, alpha: f64, a: usize, beta: f64, b: usize, c: usize): void {
  const end: usize = a + (<usize>count << 3);
  while (a < end) {
    store<f64>(c, alpha * load<f64>(a) + beta * load<f64>(b));
    a += 8;
    b += 8;
    c += 8;
  }
}

/** c = alpha a. */
export function scale(count: i32, alpha: f64, a: usize, c: usize): void {
  const end: usize = a + (<usize>count << 3);
  while (a < end) {
    store<f64>(c, alpha * load<f64>(a));
    a += 8;
    c += 8;
  }
}

/** c = a b, entry by entry. */
export function hadamard(count: i32, a: usize, b: usize, c: usize): void {
  const end: usize = a + (<usize>count << 3);
  while (a < end) {
    store<f64>(c, load<f64>(a) * load<f64>(b));
    a += 8;
    b += 8;
    c += 8;
  }
}

/** Add the row b to each row of a. */
export function addRow(rows: i32, columns: i32, a: usize, b: usize): void {
  for (let i: i32 = 0; i < rows; i++) {
    for (let j: i32 = 0; j < columns; j++) {
      store<f64>(a, load<f64>(a) + load<f64>(b + (<usize>j << 3)));
      a += 8;
    }
  }
}

/** b = sums of the columns of a. */
export function sumRows(rows: i32, columns: i32, a: usize, b: usize): void {
  for (let j: i32 = 0; j < columns; j++) {
    let sum: f64 = 0;
    for (let i: i32 = 0; i < rows; i++) sum += load<f64>(a + (<usize>(i * columns + j) << 3));
    store<f64>(b + (<usize>j << 3), sum);
  }
}

export function sumOfSquares(count: i32, a: usize): f64 {
  const end: usize = a + (<usize>count << 3);
  let even: f64 = 0, odd: f64 = 0; // two sums at once: each addition waits for the one before
  while (a < end) {
    const first: f64 = load<f64>(a), second: f64 = load<f64>(a + 8);
    even += first * first;
    odd += second * second;
    a += 16;
  }
  return even + odd;
}

/** n = (h - mean) / s by columns, as batch normalisation does; s has one entry per column. */
export function standardize(rows: i32, columns: i32, h: usize, n: usize, s: usize): void {
  const stride: usize = <usize>columns << 3;
  for (let j: usize = 0; j < stride; j += 8) {
    let mean: f64 = 0, variance: f64 = 0;
    for (let i: i32 = 0; i < rows; i++) mean += load<f64>(h + j + <usize>i * stride);
    mean /= <f64>rows;
    for (let i: i32 = 0; i < rows; i++) {
      const d: f64 = load<f64>(h + j + <usize>i * stride) - mean;
      variance += d * d;
    }
    const deviation: f64 = Math.sqrt(variance / <f64>rows + EPSILON);
    for (let i: i32 = 0; i < rows; i++) {
      store<f64>(n + j + <usize>i * stride, (load<f64>(h + j + <usize>i * stride) - mean) / deviation);
    }
    store<f64>(s + j, deviation);
  }
}

/** out = (g - mean(g) - n mean(g n)) / s by columns: the gradient back through standardize. */
export function standardizeBack(
  rows: i32, columns: i32, g: usize, n: usize, s: usize, out: usize,
): void {
  const stride: usize = <usize>columns << 3;
  for (let j: usize = 0; j < stride; j += 8) {
    let mean: f64 = 0, along: f64 = 0;
    for (let i: i32 = 0; i < rows; i++) {
      const value: f64 = load<f64>(g + j + <usize>i * stride);
      mean += value;
      along += value * load<f64>(n + j + <usize>i * stride);
    }
    mean /= <f64>rows;
    along /= <f64>rows;
    const deviation: f64 = load<f64>(s + j);
    for (let i: i32 = 0; i < rows; i++) {
      const at: usize = j + <usize>i * stride;
      store<f64>(out + at, (load<f64>(g + at) - mean - load<f64>(n + at) * along) / deviation);
    }
  }
}

/** One step of Adam with the moments m and v; `rate` holds the learning rate and bias correction. */
export function adam(count: i32, rate: f64, p: usize, g: usize, m: usize, v: usize): void {
  const end: usize = p + (<usize>count << 3);
  while (p < end) {
    const gradient: f64 = load<f64>(g);
    const first: f64 = load<f64>(m) + (1 - 0.9) * (gradient - load<f64>(m));
    const second: f64 = load<f64>(v) + (1 - 0.999) * (gradient * gradient - load<f64>(v));
    store<f64>(m, first);
    store<f64>(v, second);
    store<f64>(p, load<f64>(p) - (rate * first) / (Math.sqrt(second) + 1e-7));
    p += 8;
    g += 8;
    m += 8;
    v += 8;
  }
}
