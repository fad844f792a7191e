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
