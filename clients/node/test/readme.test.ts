/** The examples of README.md, as they stand there: each a program of its own. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, it } from "node:test";

import { type Answer, get, near, number, statuses } from "./http.js";
import { TestServer, finally_, freePort, need, until } from "./server.js";

const server = await TestServer.start();
const admin = server.admin();

/** Starts an example, on ports that are free here. Resolves with what it printed when it is over. */
async function start(name: string): Promise<{ url: string; over: Promise<string>; stop: () => void }> {
  const port = await freePort();
  const code = readFileSync(join(need("RL_EXAMPLES"), `${name}.js`), "utf8")
    .replace("new Redis()", `new Redis(${server.port})`)
    .replace("createClient()", `createClient({ url: "redis://127.0.0.1:${server.port}" })`)
    .replace("3000", `${port}`);
  const file = join(need("RL_EXAMPLES"), `${name}.run.js`);
  writeFileSync(file, code);
  const child = spawn(process.execPath, [file], { stdio: ["ignore", "pipe", "inherit"] });
  finally_(() => child.kill("SIGKILL"));
  let printed = "";
  child.stdout.on("data", (data) => (printed += String(data)));
  const over = new Promise<string>((resolve, reject) => {
    child.on("close", (status, signal) => {
      if (status === 0 || signal !== null) resolve(printed);
      else reject(new Error(`${name} ended with ${status}`));
    });
  });
  over.catch(() => undefined);
  return { url: `http://localhost:${port}/`, over, stop: () => void child.kill("SIGKILL") };
}

async function answers(url: string): Promise<void> {
  await until("an application that answers", () =>
    get(`${url}nothing`).then(
      () => true,
      () => false,
    ),
  );
  await admin.flushall();
}

describe("applications that were limited by changing one line", () => {
  beforeEach(() => admin.flushall());

  const rows: [name: string, check: (denied: Answer) => void][] = [
    ["express", (denied) => assert.match(denied.headers.get("ratelimit") ?? "", /^"5-in-1min"; r=0; t=(5\d|60)$/)],
    ["hono", (denied) => assert.equal(number(denied, "ratelimit-remaining"), 0)],
    ["fastify", (denied) => assert.equal(number(denied, "x-ratelimit-remaining"), 0)],
    ["nest", (denied) => assert.match(denied.text, /Too Many Requests/)],
    ["own", (denied) => assert.match(denied.headers.get("ratelimit") ?? "", /^"burst";r=0;t=\d+, "daily";r=4995$/)],
  ];
  for (const name of ["express", "fastify", "nest"]) {
    it(`${name}, as it was before`, async () => {
      const { url, stop } = await start(`before_${name}`);
      await answers(url);
      assert.deepEqual(await statuses(url, 6), [200, 200, 200, 200, 200, 429]);
      // In the library's own counters: the module knows none of them.
      for (const key of await admin.keys("*")) assert.equal(await admin.type(key), "string");
      stop();
    });
  }

  for (const [name, check] of rows) {
    it(name, async () => {
      const { url, stop } = await start(name);
      await answers(url);
      // The examples wait 50 ms for the server; a busy machine may take longer now and then.
      await until("the limit", async () => {
        await admin.flushall();
        return (await statuses(url, 6)).join() === "200,200,200,200,200,429";
      });
      const denied = await get(url);
      assert.equal(denied.status, 429);
      near(number(denied, "retry-after"), name === "own" ? 12 : 60);
      check(denied);
      if (name === "fastify") assert.deepEqual(await statuses(`${url}search`, 3), [200, 200, 429]);
      stop();
    });
  }
});

describe("programs that print what they say", () => {
  for (const name of ["client", "flexible"]) {
    it(name, async () => {
      const source = readFileSync(join(need("RL_EXAMPLES"), `${name}.js`), "utf8");
      const said = [...source.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)].map(([, text]) => text);
      assert.ok(said.length >= 4);
      const run = async () => {
        await admin.flushall();
        const program = await start(name);
        return (await program.over.catch(String)).trim().split("\n");
      };
      // Again, if a busy machine took longer than the 50 ms that they wait for the server.
      let printed = await run();
      for (let tries = 0; tries < 4 && printed.join() !== said.join(); tries += 1) printed = await run();
      assert.deepEqual(printed, said);
    });
  }
});
