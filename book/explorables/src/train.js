// Explorable 3: a sick network trained on two spirals, beside the same network with fixes.

import { axes, chart, format, legend, line } from "./chart.js";
import { regime } from "./depth.js";
import { advance, makeTrainer, probabilities, recipe } from "./training.js";

const [ROWS, ACROSS] = [30, 48]; // points of the map of answers
const REACH = [1.94, 1.2]; // of the plane, so that a circle is round
const COLUMNS = 60; // steps that the heat map shows
const DECADES = [-8, 1]; // of the heat map's colours
const STILL = 300; // steps before the picture for pages without script
const NAMES = ["as it is", "with the fixes"];

const makePair = (state) => [false, true].map((fixed) => makeTrainer(recipe(state, fixed)));

// Pictures of coloured cells, as bitmaps in the address of an image.

/** A bitmap (BMP, 24 bits) from rows of [red, green, blue], top row first. */
function bitmap(rows) {
  const [height, width] = [rows.length, rows[0].length];
  const stride = Math.ceil((3 * width) / 4) * 4;
  const file = new DataView(new ArrayBuffer(54 + stride * height));
  const header = [[0, 0x4d42, 2], [2, file.byteLength, 4], [10, 54, 4], [14, 40, 4], [18, width, 4],
    [22, height, 4], [26, 1, 2], [28, 24, 2], [34, stride * height, 4]];
  for (const [at, value, size] of header) {
    if (size === 2) file.setUint16(at, value, true);
    else file.setUint32(at, value, true);
  }
  rows.forEach((row, i) => row.forEach((color, j) => {
    const at = 54 + stride * (height - 1 - i) + 3 * j;
    color.forEach((value, channel) => file.setUint8(at + 2 - channel, value));
  }));
  return `data:image/bmp;base64,${btoa(String.fromCharCode(...new Uint8Array(file.buffer)))}`;
}

const mix = (a, b, share) => a.map((value, k) => Math.round(value + share * (b[k] - value)));

const CIVIDIS = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102],
  [254, 232, 56]];

/** The colour of a norm; white where it is no number. */
function heat(norm) {
  if (!Number.isFinite(norm)) return [255, 255, 255];
  const share = (Math.log10(Math.max(norm, 1e-300)) - DECADES[0]) / (DECADES[1] - DECADES[0]);
  const place = Math.min(0.9999, Math.max(0, share)) * (CIVIDIS.length - 1);
  return mix(CIVIDIS[Math.floor(place)], CIVIDIS[Math.floor(place) + 1], place % 1);
}

const image = (href, { left, top, x, y }) => {
  const [x0, y0] = [left(x[0]), top(y[1])];
  return `<image href="${href}" x="${x0}" y="${y0}" width="${left(x[1]) - x0}" ` +
    `height="${top(y[0]) - y0}" preserveAspectRatio="none" style="image-rendering:pixelated"/>`;
};

// The five charts.

function losses(pair) {
  const steps = Math.max(1, ...pair.map((t) => t.step));
  const top = Math.max(0.8, ...pair.map((t) => Math.min(t.losses[0], 3)));
  const at = axes({ x: [0, steps], y: [0, top] });
  const every = Math.ceil((steps + 1) / 200);
  const draw = ({ losses: all }, look, marks) => {
    const kept = all.map((v, k) => [k, v]).filter(([k]) => k % every === 0 || k === all.length - 1);
    return line(at, kept.map(([k]) => k), kept.map(([, v]) => v), look, marks);
  };
  const alt = pair.map((t, k) => `${NAMES[k]}: ${format(t.losses[t.step])}`).join("; ");
  return chart(at, { title: "Loss", xLabel: "step", yLabel: "nats", alt: `Loss ${alt}.` },
    draw(pair[0], "blue dashed", "down") + draw(pair[1], "green", "circle"));
}

function answers(trainer, name) {
  const at = axes({ x: [-REACH[0], REACH[0]], y: [-REACH[1], REACH[1]] });
  const p = probabilities(trainer, ROWS, ACROSS, REACH);
  const rows = Array.from({ length: ROWS }, (_, i) => Array.from({ length: ACROSS }, (_, j) => {
    const share = p[i * ACROSS + j];
    return Number.isFinite(share) ? mix([120, 180, 225], [245, 185, 130], share) : [255, 255, 255];
  }));
  const dots = trainer.points.map(([x, y, label]) => {
    const [a, b] = [at.left(x).toFixed(1), at.top(y).toFixed(1)];
    return label ? `<path d="M${a - 3} ${+b + 2.5}h6l-3-5z" class="one"/>`
      : `<circle cx="${a}" cy="${b}" r="2.4" class="zero"/>`;
  });
  return chart(at, {
    title: `Answers, ${name}`, xLabel: "", yLabel: `${format(100 * trainer.accuracy)} % right`,
    alt: `What the network ${name} answers over the plane; ${format(100 * trainer.accuracy)} % right.`,
  }, image(bitmap(rows), at) + dots.join(""));
}

function heatMap(trainer, name) {
  const { norms } = trainer;
  const layers = norms[0].length, shown = Math.min(COLUMNS, norms.length);
  const at = axes({ x: [0, Math.max(1, norms.length - 1)], y: [0.5, layers + 0.5], height: 170 });
  const steps = Array.from({ length: shown }, (_, k) =>
    Math.round((k * (norms.length - 1)) / Math.max(1, shown - 1)));
  const rows = Array.from({ length: layers }, (_, i) =>
    steps.map((step) => heat(norms[step][layers - 1 - i])));
  const last = norms[norms.length - 1];
  return chart(at, {
    title: `Gradients, ${name}`, xLabel: "step", yLabel: "layer",
    alt: `Norms of the weight gradients by layer and step, ${name}; now ` +
      `${format(last[0], 2)} in layer 1 and ${format(last[layers - 1], 2)} in layer ${layers}.`,
  }, image(bitmap(rows), at));
}

function colourKey() {
  const cells = Array.from({ length: 10 }, (_, k) => {
    const power = DECADES[0] + ((DECADES[1] - DECADES[0]) * k) / 9;
    return `<path d="M${k * 9} 0h9v12h-9z" fill="rgb(${heat(10 ** power)})"/>`;
  });
  return `<span>1e${DECADES[0]} <svg viewBox="0 0 90 12" style="width:90px" aria-hidden="true">` +
    `${cells.join("")}</svg> ${10 ** DECADES[1]}: norm of a layer's gradient (white: not finite)</span>`;
}

// Words and numbers.

function report(trainer, name) {
  const { losses: all, norms, step, accuracy, stopped } = trainer;
  if (stopped) return `${name}: diverged at step ${step}.`;
  const last = norms[norms.length - 1];
  return `${name}: loss ${format(all[step])}, ${format(100 * accuracy)} % right, first layer's ` +
    `gradient ${format(last[0] / last[last.length - 1], 2)} of the last's.`;
}

function shownOf(pair) {
  const [sick, mended] = pair;
  const last = pair.map((t) => t.norms[t.norms.length - 1]);
  const ratio = last[1][0] / last[1][last[1].length - 1];
  return {
    charts: pair.map((t, k) => answers(t, NAMES[k])).join("") +
      pair.map((t, k) => heatMap(t, NAMES[k])).join("") + losses(pair),
    legend: legend([["blue dashed", NAMES[0], "down"], ["green", NAMES[1], "circle"]]) + colourKey(),
    verdict: `Step ${Math.max(sick.step, mended.step)}. ${report(sick, "As it is")} ` +
      report(mended, "With the fixes"),
    look: mended.stopped ? "exploding" : mended.accuracy > 0.95 ? "healthy" : regime(ratio),
    table: {
      caption: "Norms of the weight gradients at this step",
      columns: ["layer", ...NAMES],
      rows: Array.from(last[0], (norm, l) => [l + 1, norm, last[1][l]]),
    },
    values: {
      step: [sick.step, mended.step], loss: pair.map((t) => t.losses[t.step]),
      accuracy: pair.map((t) => t.accuracy), norms: last.map((norms) => [...norms]),
    },
  };
}

function started(state, steps = 0) {
  const pair = makePair(state);
  for (let k = 0; k < steps; k++) pair.forEach(advance);
  return pair;
}

export const train = {
  name: "train",
  draw: (state) => shownOf(started(state)),
  still: (state) => shownOf(started(state, STILL)),

  /** Trains while the figure is in view, in slices that leave the page its time. */
  attach(host) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches ? 500 : 60;
    const button = host.root.querySelector("[data-action=play]");
    let pair = started(host.state), playing = false, inView = true, frame = 0, painted = 0;
    const watcher = new IntersectionObserver(([entry]) => {
      inView = entry.isIntersecting;
      go();
    });
    watcher.observe(host.root);

    function step() {
      pair.forEach(advance);
      if (pair.every((t) => t.stopped)) play(false);
    }

    function slice(now) {
      frame = 0;
      const end = performance.now() + 8;
      do step();
      while (playing && performance.now() < end);
      if (now - painted > calm || !playing) {
        painted = now;
        host.show(shownOf(pair));
      }
      go();
    }

    function go() {
      if (playing && inView && !frame) frame = requestAnimationFrame(slice);
    }

    function play(on) {
      playing = on;
      button.textContent = on ? "Pause" : "Play";
      go();
    }

    function restart() {
      pair = started(host.state);
      host.show(shownOf(pair));
    }

    return {
      play: () => play(!playing),
      step() {
        play(false);
        step();
        host.show(shownOf(pair));
      },
      changed: restart,
      reset() {
        play(false);
        restart();
      },
      stop() {
        playing = false;
        watcher.disconnect();
      },
    };
  },
};
