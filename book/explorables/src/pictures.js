// What each figure shows without script: the controls as they open, switched off, and the charts.

import { makeEngine } from "./engine.js";
import { explorables } from "./figures.js";
import { defaults, markup } from "./mount.js";

export function pictures() {
  const engine = makeEngine();
  return Object.fromEntries(
    Object.entries(explorables).map(([name, explorable]) => {
      const state = defaults(name);
      const drawn = (explorable.still ?? explorable.draw)(state, engine);
      return [name, markup(name, state, { drawn, live: false, id: `static-${name}` })];
    }),
  );
}
