// Charts as strings of SVG: they are drawn in the page, and by build.mjs for pages without script.

const LEFT = 42, RIGHT = 10, TOP = 26, BOTTOM = 36;

export const escape = (text) =>
  String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

/** A number for people: three digits, powers of ten where they are needed. */
export function format(value, digits = 3) {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  const size = Math.abs(value);
  if (value === 0 || (size >= 0.001 && size < 10000)) return String(+value.toPrecision(digits));
  return value.toExponential(digits - 1).replace("e+", "e");
}

const superscript = (n) => String(n).replace(/[-\d]/g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] || "⁻");

/** About `count` round numbers from low to high. */
export function ticks(low, high, count = 5) {
  const raw = (high - low) / count;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].find((k) => k * unit >= raw * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return found.map((t) => +t.toPrecision(12));
}

const powersOfTen = (low, high) => ticks(low, high, 4).filter(Number.isInteger);

/** The axes of a chart: x and y are [low, high], y as powers of ten if log. */
export function axes({ width = 300, height = 215, x, y, log = false }) {
  const innerWidth = width - LEFT - RIGHT, innerHeight = height - TOP - BOTTOM;
  return {
    width, height, x, y, log,
    left: (value) => LEFT + ((value - x[0]) / (x[1] - x[0])) * innerWidth,
    top: (value) => {
      const v = log ? Math.log10(value) : value;
      return TOP + ((y[1] - v) / (y[1] - y[0])) * innerHeight;
    },
    value: (left, top) => [
      x[0] + ((left - LEFT) / innerWidth) * (x[1] - x[0]),
      y[1] - ((top - TOP) / innerHeight) * (y[1] - y[0]),
    ],
  };
}

/** The limits of a logarithmic axis: powers of ten around the finite positive values. */
export function decades(series, atLeast = 2) {
  const logs = series.flatMap((values) => Array.from(values))
    .filter((v) => v > 0 && Number.isFinite(v)).map(Math.log10);
  if (!logs.length) return [-1, 1];
  let low = Math.floor(Math.min(...logs)), high = Math.ceil(Math.max(...logs));
  while (high - low < atLeast) {
    high++;
    if (high - low < atLeast) low--;
  }
  return [low, high];
}

const point = (n) => Math.round(n * 10) / 10;

/** A line through the points that have a place on the axes, broken where one has none. */
export function line(at, xs, ys, look = "", marks = false) {
  let path = "", pen = "M", dots = "";
  const every = Math.max(1, Math.ceil(xs.length / 12));
  for (let i = 0; i < xs.length; i++) {
    const left = at.left(xs[i]), top = at.top(ys[i]);
    if (!Number.isFinite(left) || !Number.isFinite(top)) {
      pen = "M";
      continue;
    }
    const clipped = Math.min(at.height + 400, Math.max(-400, top));
    path += `${pen}${point(left)} ${point(clipped)}`;
    pen = "L";
    if (marks && (i % every === 0 || i === xs.length - 1)) dots += mark(marks, left, clipped);
  }
  return `<path class="line ${look}" d="${path}"/>${dots ? `<path class="marks ${look}" d="${dots}"/>` : ""}`;
}

/** The outline of a mark around a point: one path holds all marks of a line. */
function mark(shape, x, y) {
  const from = (dx, dy) => `M${point(x + dx)} ${point(y + dy)}`;
  if (shape === "down") return `${from(-4, -3)}h8l-4 7z`;
  if (shape === "up") return `${from(-4, 3)}h8l-4-7z`;
  if (shape === "square") return `${from(-3, -3)}h6v6h-6z`;
  return `${from(-3, 0)}a3 3 0 1 0 6 0a3 3 0 1 0-6 0z`;
}

export const MARKS = { vanishing: "down", healthy: "circle", exploding: "up" };

const subscripts = (text) => escape(text).replace(/_(\w)/, '<tspan class="low" dy="3">$1</tspan>');

/** A whole chart: frame, grid, labels, and whatever is drawn inside. */
export function chart(at, { title, xLabel, yLabel, alt, role = "img" }, inside) {
  const { width, height, x, y, log } = at;
  const bottom = height - BOTTOM, right = width - RIGHT;
  let grid = "";
  const xs = ticks(x[0], x[1]).map((t) => {
    const left = point(at.left(t));
    grid += `M${left} ${TOP}V${bottom}`;
    return `<text x="${left}" y="${bottom + 15}" text-anchor="middle">${format(t)}</text>`;
  });
  const ys = (log ? powersOfTen(y[0], y[1]) : ticks(y[0], y[1])).map((t) => {
    const top = point(at.top(log ? 10 ** t : t));
    const label = log ? `10${superscript(t)}` : format(t);
    grid += `M${LEFT} ${top}H${right}`;
    return `<text x="${LEFT - 5}" y="${top + 4}" text-anchor="end">${label}</text>`;
  });
  const clip = `clip-${title.replace(/\W/g, "")}-${width}`;
  return `<svg viewBox="0 0 ${width} ${height}" role="${role}" aria-label="${escape(alt)}">` +
    `<text class="title" x="${LEFT}" y="15">${escape(title)}</text>` +
    `<path class="grid" d="${grid}"/>${xs.join("")}${ys.join("")}` +
    `<text x="${right}" y="${height - 4}" text-anchor="end">${subscripts(xLabel)}</text>` +
    `<text x="${right}" y="15" text-anchor="end">${subscripts(yLabel)}</text>` +
    `<svg class="inside"><defs><clipPath id="${clip}"><path d="M${LEFT} ${TOP - 4}H${right + 5}V${bottom + 4}H${LEFT}z"/></clipPath></defs>` +
    `<g clip-path="url(#${clip})">${inside}</g></svg></svg>`;
}

/** What the lines of the charts mean: [look, text] pairs. */
export const legend = (entries) =>
  entries.map(([look, text, marks]) =>
    `<span><svg viewBox="0 0 30 12" aria-hidden="true">` +
    `<path class="line ${look}" d="M1 6H29"/>${marks ? `<path class="marks ${look}" d="${mark(marks, 15, 6)}"/>` : ""}` +
    `</svg> ${escape(text)}</span>`).join("");
