// Writes the TypeScript examples of a page into a folder, each under the name in its first line.
// usage: node readme.mjs README.md FOLDER
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [page, folder] = process.argv.slice(2);
mkdirSync(folder, { recursive: true });
for (const [, code] of readFileSync(page, "utf8").matchAll(/^```ts\n([^]*?)^```$/gm)) {
  const name = /^\/\/ (\w+\.ts)\n/.exec(code)?.[1];
  if (name === undefined) throw new Error(`an example without a name:\n${code}`);
  writeFileSync(join(folder, name), code);
}
