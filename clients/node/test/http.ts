/** Applications on loopback, and requests to them. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { type RequestListener, type Server, createServer } from "node:http";
import type { AddressInfo } from "node:net";

import { finally_ } from "./server.js";

/** Starts a listener on a port that the system chose; it ends with the tests of this file. Resolves with its URL. */
export async function serve(listener: RequestListener): Promise<string> {
  return urlOf(createServer(listener).listen(0, "127.0.0.1"));
}

export async function urlOf(server: Server): Promise<string> {
  if (!server.listening) await once(server, "listening");
  finally_(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
}

export async function get(url: string, headers: Record<string, string> = {}): Promise<Answer> {
  const response = await fetch(url, { headers });
  return { status: response.status, headers: response.headers, text: await response.text() };
}

/** The status of each of some requests, one after the other. */
export async function statuses(url: string, times: number, headers: Record<string, string> = {}): Promise<number[]> {
  const found: number[] = [];
  for (let at = 0; at < times; at += 1) found.push((await get(url, headers)).status);
  return found;
}

/** Seconds that began a moment ago, on a machine that may be busy. */
export function near(actual: number, seconds: number): void {
  assert.ok(actual <= seconds && actual > seconds - 8, `${actual} is not about ${seconds}`);
}

/** A field as a number. */
export function number(answer: Answer, field: string): number {
  const value = answer.headers.get(field);
  return value === null ? NaN : Number(value);
}
