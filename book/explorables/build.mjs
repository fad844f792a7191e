// Builds src/gradutils/explorables.js: one classic script with the WebAssembly in it;
// and static/, what each figure shows before the script runs, or without it.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";

const here = import.meta.dirname;
const project = join(here, "../..");
const controls = join(project, "src/gradutils/explorables.json");

// tests/test_explorables.py computes the same digest.
const sources = readdirSync(join(here, "src")).sort().map((name) => join(here, "src", name));
const digest = createHash("sha256");
for (const path of [...sources, controls, join(here, "package-lock.json"), import.meta.filename]) {
  digest.update(readFileSync(path));
}
const stamp = `sources ${digest.digest("hex")}`;

const scratch = mkdtempSync(join(tmpdir(), "explorables-"));
const binary = (name) => join(scratch, `${name}.wasm`);
const compile = (name, ...flags) => execFileSync(
  join(here, "node_modules/.bin/asc"),
  [`src/kernels.${name}.ts`, "-O3", "--runtime", "stub", "--enable", "simd", "-o", binary(name), ...flags],
  { cwd: here, stdio: "inherit" },
);
compile("simd");
compile("fused", "--enable", "relaxed-simd", "--importMemory");

const kernels = {
  name: "kernels",
  setup(bundle) {
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
  plugins: [kernels],
};

await build({
  ...options,
  entryPoints: ["src/index.js"],
  outfile: join(project, "src/gradutils/explorables.js"),
  minify: true,
  format: "iife",
  globalName: "gradutilsExplorables",
  banner: { js: `/* Built from book/explorables, ${stamp}. BSD 3-Clause. */` },
});

const pictures = join(scratch, "pictures.mjs");
await build({ ...options, entryPoints: ["src/pictures.js"], outfile: pictures, format: "esm" });
for (const [name, html] of Object.entries((await import(pictures)).pictures())) {
  writeFileSync(join(here, "static", `${name}.html`), `<!-- ${stamp} -->\n${html}\n`);
}
