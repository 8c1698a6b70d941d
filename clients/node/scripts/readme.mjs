// Writes the TypeScript examples of a page into a folder, each under the name in its first line. Where a diff stands
// before an example, and leads to it, it writes the program before the change, too, as before_NAME.
// usage: node readme.mjs README.md FOLDER
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [page, folder] = process.argv.slice(2);
mkdirSync(folder, { recursive: true });
let diff = "";
for (const [, kind, code] of readFileSync(page, "utf8").matchAll(/^```(diff|ts)\n([^]*?)^```$/gm)) {
  if (kind === "diff") {
    diff = code;
    continue;
  }
  const name = /^\/\/ (\w+\.ts)\n/.exec(code)?.[1];
  if (name === undefined) throw new Error(`an example without a name:\n${code}`);
  writeFileSync(join(folder, name), code);
  if (isDiffOf(diff, code)) writeFileSync(join(folder, `before_${name}`), before(diff, code));
  diff = "";
}

/** Runs of lines that go, each with the lines that come in their place. */
function changes(diff) {
  const text = (lines) => lines.replace(/^[+-]/gm, "");
  return [...diff.matchAll(/((?:^-.*\n)*)((?:^\+.*\n)+)/gm)].map(([, old, now]) => [text(old), text(now)]);
}

function isDiffOf(diff, code) {
  return diff !== "" && changes(diff).every(([, now]) => code.includes(now));
}

function before(diff, code) {
  return changes(diff).reduce((found, [old, now]) => found.replace(now, () => old), code);
}
