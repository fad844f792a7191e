/** What kernels.simd.ts computes, for browsers without WebAssembly. */
export function multiply(
  rows: number, columns: number, inner: number, a: number, stepRow: number, stepColumn: number,
  b: number, c: number,
): void {
  const stride = columns << 3;
  for (let i = 0; i < rows; i++) {
    const to = c + i * stride;
    for (let j = 0; j < stride; j += 8) store(to + j, 0);
    for (let k = 0; k < inner; k++) {
      const factor = load(a + i * stepRow + k * stepColumn);
      const from = b + k * stride;
      for (let j = 0; j < stride; j += 8) store(to + j, load(to + j) + factor * load(from + j));
    }
  }
}
