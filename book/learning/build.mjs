// Builds book/_static/learning.js: predictions, answers and progress, in one classic script.

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const here = import.meta.dirname;

// tests/book/test_learning.py computes the same digest.
const digest = createHash("sha256");
for (const name of readdirSync(join(here, "src")).sort()) {
  digest.update(readFileSync(join(here, "src", name)));
}
digest.update(readFileSync(join(here, "package-lock.json")));

await build({
  absWorkingDir: here,
  entryPoints: ["src/index.js"],
  outfile: "../_static/learning.js",
  bundle: true,
  minify: true,
  charset: "utf8",
  target: "es2020",
  format: "iife",
  banner: {
    js: `/* Built from book/learning, sources ${digest.digest("hex")}. BSD 3-Clause; fparser: MIT, (c) Alexander Schenkel. */`,
  },
});
