/** Real servers with the module, on loopback and ports that the system chose. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Redis } from "ioredis";

const cleanups: (() => unknown)[] = [];

/** Does something when all tests of the file are over: the last one first. */
export function finally_(cleanup: () => unknown): void {
  cleanups.push(cleanup);
}

/** What the test runner does at the end; a program without it calls this itself. */
export async function cleanUp(): Promise<void> {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
}

// Only the runner has this set. Elsewhere a hook would print a report of no tests.
if (process.env["NODE_TEST_CONTEXT"] !== undefined) (await import("node:test")).after(cleanUp);

const MODULE = need("RL_MODULE");
const SERVER = need("RL_SERVER");

export function need(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set: run test.sh`);
  return value;
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** Waits for a condition. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, seconds = 30): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`after ${seconds} s there is still not: ${what}`);
    await sleep(10);
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export class TestServer {
  readonly folder = mkdtempSync(join(tmpdir(), "redis-rl-"));
  #process: ChildProcess | undefined;

  private constructor(
    readonly port: number,
    private readonly more: readonly string[],
  ) {}

  /** Starts a server that ends with the tests of this file. */
  static async start(...more: string[]): Promise<TestServer> {
    // Somebody else may take the port in between: then another one.
    for (let tries = 0; ; tries += 1) {
      const server = new TestServer(await freePort(), more);
      finally_(() => server.end());
      try {
        await server.boot();
        return server;
      } catch (error) {
        if (tries === 4) throw error;
      }
    }
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  async boot(): Promise<void> {
    const sentinel = this.more[0] === "sentinel";
    const config = join(this.folder, "server.conf");
    const settings = sentinel
      ? this.more.slice(1)
      : [`loadmodule ${MODULE}`, "rl.client-clock no", 'save ""', "cluster-node-timeout 2000", ...this.more];
    // A sentinel writes what it learns into its file: that stays.
    if (!sentinel || this.#process === undefined) {
      writeFileSync(config, [`port ${this.port}`, "bind 127.0.0.1", `dir ${this.folder}`, ...settings, ""].join("\n"));
    }
    this.#process = spawn(SERVER, [config, ...(sentinel ? ["--sentinel"] : [])], { stdio: "ignore" });
    const child = this.#process;
    const probe = new Redis(this.port, { lazyConnect: true, retryStrategy: () => 20, maxRetriesPerRequest: null });
    probe.on("error", () => undefined);
    try {
      await until("a server that answers", async () => {
        if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`);
        const pong = probe.ping().then(() => true);
        return Promise.race([pong, sleep(200).then(() => false)]);
      });
    } finally {
      probe.disconnect();
    }
  }

  signal(name: NodeJS.Signals): void {
    this.#process?.kill(name);
  }

  /** As if the machine lost power. */
  async kill(): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  }

  async end(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** A connection of its own, for looking. It ends with the tests of this file. */
  admin(): Redis {
    const redis = new Redis(this.port, { retryStrategy: () => 50 });
    redis.on("error", () => undefined);
    finally_(() => {
      redis.disconnect();
    });
    return redis;
  }
}

/** How often each command was called, since `config resetstat`. */
export async function calls(admin: Redis): Promise<Record<string, number>> {
  const text = await admin.info("commandstats");
  const rows = [...text.matchAll(/^cmdstat_(\S+?):calls=(\d+)/gm)].map(
    ([, name, n]) => [(name ?? "").toLowerCase(), Number(n)] as const,
  );
  const found = Object.fromEntries(
    rows.filter(([name]) => !/^(info|config|command|hello|client|ping|select)/.test(name)),
  );
  return found as Record<string, number>;
}

/** How many writes the server saw, so as to see what a denial writes. */
export async function writes(admin: Redis): Promise<number> {
  const text = await admin.info("persistence");
  return Number(/rdb_changes_since_last_save:(\d+)/.exec(text)?.[1] ?? NaN);
}

/** A cluster of three. */
export async function startCluster(): Promise<TestServer[]> {
  const servers: TestServer[] = [];
  for (let at = 0; at < 3; at += 1) servers.push(await TestServer.start("cluster-enabled yes"));
  const admins = servers.map((server) => server.admin());
  const [first] = servers;
  const step = Math.ceil(16384 / 3);
  for (const [at, admin] of admins.entries()) {
    await admin.call("CLUSTER", "ADDSLOTSRANGE", at * step, Math.min(16383, (at + 1) * step - 1));
    await admin.call("CLUSTER", "SET-CONFIG-EPOCH", at + 1);
    if (at > 0 && first !== undefined) await admin.call("CLUSTER", "MEET", "127.0.0.1", first.port);
  }
  await until("a cluster", async () => {
    const infos = await Promise.all(admins.map((admin) => admin.call("CLUSTER", "INFO")));
    return infos.every((info) => /cluster_state:ok[^]*cluster_known_nodes:3/.test(String(info)));
  });
  return servers;
}
