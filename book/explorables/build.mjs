// Builds src/gradutils/explorables/explorables.js, one classic script with the WebAssembly in it, and
// beside it the style and the table of controls; and static/, what each figure shows without the script.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";

const here = import.meta.dirname;
const project = join(here, "../..");
const controls = join(here, "explorables.json");
const style = join(here, "explorables.css");
const built = (ending) => join(project, `src/gradutils/explorables/explorables.${ending}`);

// What gradutils says is asked of it here: the names of its activations, the limits of the regimes.
const tables = execFileSync(
  process.env.PYTHON ?? join(project, ".venv/bin/python"),
  ["-c", `import json
from gradutils.activations import ACTIVATIONS
from gradutils.diagnosis import THRESHOLDS
limits = {kind: THRESHOLDS[kind].limit for kind in ("vanishing", "exploding")}
print(json.dumps({"activations": list(ACTIVATIONS), "limits": limits}), end="")`],
  { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] },
);
const specification = readFileSync(controls, "utf8").replaceAll(
  '"options": "activations"', `"options": ${JSON.stringify(JSON.parse(tables).activations)}`,
);

// The colours of the regimes stand in the book's style sheet.
const page = readFileSync(join(project, "book/_static/gradutils.css"), "utf8");
const regimes = [...page.matchAll(/--book-(?:vanishing|healthy|exploding): #\w+;/g)].map(([text]) => `  ${text}\n`);
if (regimes.length !== 6) throw new Error("gradutils.css must give three regimes a colour, in light and in dark");
const colours = `.explorable {
${regimes.slice(0, 3).join("")}}

html[data-theme="dark"] .explorable,
body[data-jp-theme-light="false"] .explorable {
${regimes.slice(3).join("")}}

`;

// tests/package/test_explorables.py computes the same digests.
const sources = readdirSync(join(here, "src")).sort().map((name) => join(here, "src", name));
const digest = createHash("sha256");
for (const path of [...sources, controls, join(here, "package-lock.json"), import.meta.filename]) {
  digest.update(readFileSync(path));
}
digest.update(tables);

const scratch = mkdtempSync(join(tmpdir(), "explorables-"));
const binary = (name) => join(scratch, `${name}.wasm`);
const compile = (name, ...flags) => execFileSync(
  join(here, "node_modules/.bin/asc"),
  [`src/kernels.${name}.ts`, "-O3", "--runtime", "stub", "--enable", "simd", "-o", binary(name), ...flags],
  { cwd: here, stdio: "inherit" },
);
compile("simd");
compile("fused", "--enable", "relaxed-simd", "--importMemory");

const found = {
  name: "what is built here",
  setup(bundle) {
    bundle.onLoad({ filter: /explorables\.json$/ }, () => ({ contents: specification, loader: "json" }));
    bundle.onResolve({ filter: /^wasm:/ }, ({ path }) => ({ path: path.slice(5), namespace: "wasm" }));
    bundle.onLoad({ filter: /.*/, namespace: "wasm" }, ({ path }) => ({
      contents: readFileSync(binary(path)).toString("base64"),
      loader: "text",
    }));
  },
};
const options = {
  absWorkingDir: here,
  bundle: true,
  charset: "utf8",
  target: "es2020",
  inject: ["src/memory.js"],
  define: { GRADUTILS: tables },
  plugins: [found],
};

const pictures = join(scratch, "pictures.mjs");
const stills = createHash("sha256");
await build({ ...options, entryPoints: ["src/pictures.js"], outfile: pictures, format: "esm" });
for (const [name, html] of Object.entries((await import(pictures)).pictures()).sort()) {
  writeFileSync(join(here, "static", `${name}.html`), `${html}\n`);
  stills.update(`${html}\n`);
}

const stamp = `sources ${digest.digest("hex")}, stills ${stills.digest("hex")}`;
await build({
  ...options,
  entryPoints: ["src/index.js"],
  outfile: built("js"),
  minify: true,
  format: "iife",
  globalName: "gradutilsExplorables",
  banner: { js: `/* Built from book/explorables, ${stamp}. BSD 3-Clause. */` },
});
writeFileSync(built("css"), colours + readFileSync(style, "utf8"));
writeFileSync(built("json"), specification);
