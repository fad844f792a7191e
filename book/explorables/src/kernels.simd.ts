// What takes most of the time, two numbers at once; the rest is as in kernels.ts.

import { activate as activateEach } from "./kernels";

export * from "./kernels";

/** a b + c, with one rounding where the processor has it and the build asks for it. */
// @ts-ignore: decorator
@inline
function multiplyAdd(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f64x2.relaxed_madd(a, b, c);
  return f64x2.add(c, f64x2.mul(a, b));
}

/**
 * c = a b, where c has `rows` rows and `columns` columns; the entry (i, k) of a lies at
 * a + i * stepRow + k * stepColumn. Blocks of 4 x 4 stay in registers.
 */
export function multiply(
  rows: i32, columns: i32, inner: i32, a: usize, stepRow: usize, stepColumn: usize,
  b: usize, c: usize,
): void {
  const stride: usize = <usize>columns << 3;
  const row2 = stepRow << 1, row3 = row2 + stepRow;
  for (let j: i32 = 0; j < columns; j += 4) {
    for (let i: i32 = 0; i < rows; i += 4) {
      let c00 = f64x2.splat(0);
      let c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
      let pa: usize = a + <usize>i * stepRow, pb: usize = b + (<usize>j << 3);
      for (let k: i32 = 0; k < inner; k++) {
        const b0 = v128.load(pb), b1 = v128.load(pb, 16);
        let s = v128.load64_splat(pa);
        c00 = multiplyAdd(s, b0, c00);
        c01 = multiplyAdd(s, b1, c01);
        s = v128.load64_splat(pa + stepRow);
        c10 = multiplyAdd(s, b0, c10);
        c11 = multiplyAdd(s, b1, c11);
        s = v128.load64_splat(pa + row2);
        c20 = multiplyAdd(s, b0, c20);
        c21 = multiplyAdd(s, b1, c21);
        s = v128.load64_splat(pa + row3);
        c30 = multiplyAdd(s, b0, c30);
        c31 = multiplyAdd(s, b1, c31);
        pa += stepColumn;
        pb += stride;
      }
      let pc: usize = c + <usize>i * stride + (<usize>j << 3);
      v128.store(pc, c00);
      v128.store(pc, c01, 16);
      pc += stride;
      v128.store(pc, c10);
      v128.store(pc, c11, 16);
      pc += stride;
      v128.store(pc, c20);
      v128.store(pc, c21, 16);
      pc += stride;
      v128.store(pc, c30);
      v128.store(pc, c31, 16);
    }
  }
}

const TANH: i32 = 2;
const LN2_HIGH: f64 = 6.93147180369123816490e-1, LN2_LOW: f64 = 1.90821492927058770002e-10;
const ROUNDER: f64 = 6755399441055744; // 1.5 * 2^52: adding it rounds to a whole number

/**
 * tanh, relative to its size to a few units in the last place, without a branch.
 *
 * |x| = k ln(2) / 2 + y with a whole k, and tanh(y) = n / d by Lambert's continued fraction, cut
 * where the next term is below 1e-18. With p = 2^k the addition theorem gives
 * ((p - 1) d + (p + 1) n) / ((p + 1) d + (p - 1) n).
 */
// @ts-ignore: decorator
@inline
function tanh(x: v128): v128 {
  const one = f64x2.splat(1), rounder = f64x2.splat(ROUNDER);
  const size = f64x2.pmin(f64x2.abs(x), f64x2.splat(22)); // from 19.1 on it rounds to 1
  const shifted = f64x2.add(f64x2.mul(size, f64x2.splat(2 * Math.LOG2E)), rounder);
  const k = f64x2.sub(shifted, rounder);
  let y = f64x2.sub(size, f64x2.mul(k, f64x2.splat(LN2_HIGH / 2)));
  y = f64x2.sub(y, f64x2.mul(k, f64x2.splat(LN2_LOW / 2)));
  const s = f64x2.mul(y, y);
  let n = f64x2.add(f64x2.splat(1260), f64x2.mul(s, f64x2.splat(21)));
  n = f64x2.mul(y, f64x2.add(f64x2.splat(10395), f64x2.mul(s, n)));
  let d = f64x2.add(f64x2.splat(4725), f64x2.mul(s, f64x2.add(f64x2.splat(210), s)));
  d = f64x2.add(f64x2.splat(10395), f64x2.mul(s, d));
  const p = i64x2.add(i64x2.shl(shifted, 52), one); // k goes where the exponent is
  const less = f64x2.sub(p, one), more = f64x2.add(p, one);
  const t = f64x2.div(
    f64x2.add(f64x2.mul(less, d), f64x2.mul(more, n)),
    f64x2.add(f64x2.mul(more, d), f64x2.mul(less, n)),
  );
  return v128.bitselect(x, t, f64x2.splat(-0.0)); // the sign is that of x
}

export function activate(kind: i32, count: i32, x: usize, y: usize, s: usize): void {
  if (kind !== TANH) return activateEach(kind, count, x, y, s);
  const bytes: usize = <usize>count << 3;
  for (let at: usize = 0; at < bytes; at += 16) {
    const image = tanh(v128.load(x + at));
    v128.store(y + at, image);
    v128.store(s + at, f64x2.sub(f64x2.splat(1), f64x2.mul(image, image)));
  }
}

export function transpose(rows: i32, columns: i32, a: usize, b: usize): void {
  const from: usize = <usize>columns << 3, to: usize = <usize>rows << 3;
  for (let i: usize = 0; i < to; i += 16) {
    for (let j: usize = 0; j < from; j += 16) {
      const upper = v128.load(a + j), lower = v128.load(a + from + j);
      const at: usize = b + (j >> 3) * to + i;
      v128.store(at, v128.shuffle<f64>(upper, lower, 0, 2));
      v128.store(at + to, v128.shuffle<f64>(upper, lower, 1, 3));
    }
    a += from << 1;
  }
}

export function scale(count: i32, alpha: f64, a: usize, c: usize): void {
  const bytes: usize = <usize>count << 3, factor = f64x2.splat(alpha);
  for (let at: usize = 0; at < bytes; at += 16) {
    v128.store(c + at, f64x2.mul(factor, v128.load(a + at)));
  }
}

export function hadamard(count: i32, a: usize, b: usize, c: usize): void {
  const bytes: usize = <usize>count << 3;
  for (let at: usize = 0; at < bytes; at += 16) {
    v128.store(c + at, f64x2.mul(v128.load(a + at), v128.load(b + at)));
  }
}

export function addRow(rows: i32, columns: i32, a: usize, b: usize): void {
  const bytes: usize = <usize>columns << 3;
  for (let i: i32 = 0; i < rows; i++) {
    for (let at: usize = 0; at < bytes; at += 16) {
      v128.store(a + at, f64x2.add(v128.load(a + at), v128.load(b + at)));
    }
    a += bytes;
  }
}

export function sumOfSquares(count: i32, a: usize): f64 {
  const bytes: usize = <usize>count << 3;
  let even = f64x2.splat(0), odd = even;
  for (let at: usize = 0; at < bytes; at += 32) {
    const first = v128.load(a + at), second = v128.load(a + at, 16);
    even = f64x2.add(even, f64x2.mul(first, first));
    odd = f64x2.add(odd, f64x2.mul(second, second));
  }
  const sum = f64x2.add(even, odd);
  return f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
}
