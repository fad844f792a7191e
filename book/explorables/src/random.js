// Random draws by counter: entry i of a stream is a hash of (seed, stream, i), so a deeper network
// has the same first layers, and NumPy can draw the same numbers (tests/browser/draws.py).

function mix(x) {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** The key of a stream of draws. */
export const stream = (seed, index) => mix((mix(Math.imul(seed + 1, 0x9e3779b9)) + Math.imul(index + 1, 0x632be5ab)) | 0);

/** Uniform on (0, 1): the middle of one of 2^32 cells. */
export const uniform = (key, i) => (mix((key + Math.imul(i, 0x9e3779b9)) | 0) + 0.5) / 4294967296;

/** Fill an array with standard normal numbers (Box and Muller). */
export function normals(out, key) {
  for (let i = 0; i < out.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(uniform(key, i)));
    const angle = 2 * Math.PI * uniform(key, i + 1);
    out[i] = radius * Math.cos(angle);
    if (i + 1 < out.length) out[i + 1] = radius * Math.sin(angle);
  }
  return out;
}
