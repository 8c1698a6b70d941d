/**
 * Connections of your own: ioredis, iovalkey, node-redis 5 and @valkey/valkey-glide, alone, with Sentinel or a cluster.
 * None of them need be installed: they are known by what they can do.
 */

import type { Word } from "./rule.js";

/** ioredis and iovalkey: `Redis` and `Cluster`. */
export interface IoredisConnection {
  call(command: string, ...args: Word[]): Promise<unknown>;
}

/** node-redis 5: `createClient`, `createCluster`, `createSentinel`. */
export interface NodeRedisConnection {
  sendCommand(...args: never[]): Promise<unknown>;
  readonly isOpen: boolean;
}

/** @valkey/valkey-glide: `GlideClient` and `GlideClusterClient`. */
export interface GlideConnection {
  customCommand(args: Word[], options?: never): Promise<unknown>;
}

/** What a client can be made of. */
export type Connection = IoredisConnection | NodeRedisConnection | GlideConnection;

/** Sends the words of a command, of which one is a key, and resolves with the reply. */
export type Send = (words: Word[], key: Word) => Promise<unknown>;

/** How a connection sends a command. */
export function sender(connection: Connection): Send {
  if ("call" in connection && typeof connection.call === "function") return ioredis(connection);
  if ("customCommand" in connection && typeof connection.customCommand === "function") return glide(connection);
  if ("sendCommand" in connection && typeof connection.sendCommand === "function") return nodeRedis(connection);
  throw new TypeError("a connection of ioredis, iovalkey, node-redis 5 or @valkey/valkey-glide is needed");
}

interface RoutedCommand {
  slot?: number;
}

function ioredis(connection: IoredisConnection): Send {
  if (!("isCluster" in connection && connection.isCluster === true)) {
    return ([command = "", ...args]) => connection.call(String(command), ...args);
  }
  // It doesn't know where these commands have their keys, and would ask any node: so the slot is set on the way.
  const cluster = connection as unknown as { sendCommand: (command: RoutedCommand, ...more: unknown[]) => unknown };
  return ([command = "", ...args], key) => {
    const sendCommand = (routed: RoutedCommand, ...more: unknown[]) => {
      routed.slot = slotOf(key);
      return cluster.sendCommand(routed, ...more);
    };
    const router = Object.create(connection, { sendCommand: { value: sendCommand } }) as IoredisConnection;
    return router.call(String(command), ...args);
  };
}

function nodeRedis(connection: NodeRedisConnection): Send {
  const send = connection.sendCommand.bind(connection) as (...args: unknown[]) => Promise<unknown>;
  if ("masters" in connection) return (words, key) => send(key, false, words);
  if ("getSentinelNode" in connection || "getMasterNode" in connection) return (words) => send(false, words);
  return (words) => send(words);
}

function glide(connection: GlideConnection): Send {
  const send = connection.customCommand.bind(connection) as (words: Word[], options?: object) => Promise<unknown>;
  if (!("fcallWithRoute" in connection)) return (words) => send(words);
  return (words, key) => send(words, { route: { type: "primarySlotKey", key: key.toString() } });
}

/** The hash slot of a key: CRC16 of what is between the first braces, if there is anything. */
export function slotOf(key: Word): number {
  const bytes = Buffer.from(key);
  const open = bytes.indexOf("{");
  const close = open < 0 ? -1 : bytes.indexOf("}", open + 1);
  const hashed = close > open + 1 ? bytes.subarray(open + 1, close) : bytes;
  let crc = 0;
  for (const byte of hashed) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
  }
  return (crc & 0xffff) % 16384;
}

/** Codes that a server sends while it, or its cluster, can serve nobody. */
const AWAY = new Set(["LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "MOVED", "ASK"]);

/** Whether an error says that the server is away, and not that it refused one call. */
export function isAway(error: unknown): boolean {
  // A mistake of the program's.
  if (error instanceof RangeError || error instanceof TypeError) return false;
  const message = error instanceof Error ? error.message : String(error);
  // "ERR limit must be ..."; glide has "An error was signalled by the server: - ResponseError: limit must be ...".
  const refused = /^([A-Z]{2,})[: ]|^An error was signalled by the server: - (ResponseError):/.exec(message);
  const code = refused?.[1] ?? refused?.[2];
  // ECONNREFUSED and the like are the system's.
  return code === undefined || AWAY.has(code) || (code.startsWith("E") && code !== "ERR" && code !== "EXECABORT");
}
