/** clients/vectors.json: the same answers in every language. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";

import {
  type Decision,
  type Form,
  type Kind,
  type Limit,
  PROBLEM_TYPE,
  Trust,
  fields,
  identify,
  keyPart,
  limitKey,
  problem,
} from "redis-rl";

import { need } from "./server.js";

type Json = Record<string, any>;
interface Case {
  case: string;
  input: Json;
  output: Json;
}

const vectors = JSON.parse(readFileSync(need("RL_VECTORS"), "utf8")) as Record<string, Case[]>;

function decision([allowed, limit, remaining, wait, reset]: number[]): Decision {
  return {
    allowed: allowed === 1,
    limit: limit!,
    remaining: remaining!,
    wait: wait! < 0 ? null : wait!,
    reset: reset!,
  };
}

function limitOf({ name, reply, window, quota, unit }: Json): Limit {
  return { name, decision: decision(reply), window: window === undefined ? undefined : window * 1000, quota, unit };
}

const run: Record<string, (input: Json) => unknown> = {
  identity: ({ remote, headers, trust, header, prefix4, prefix6 }) => ({
    key: identify(remote, headers, new Trust({ ...trust, header, prefix4, prefix6 })),
  }),
  fields: ({ limits, form, now }) => ({
    fields: fields(limits.map(limitOf), form as Form, now === undefined ? undefined : now * 1000),
  }),
  problem: ({ limits, kind }) => {
    const body = problem(limits.map(limitOf), kind as Kind);
    return { status: body.status, "content-type": PROBLEM_TYPE, body };
  },
  keys: ({ kind, value, secret, pepper, prefix, who, name }) => ({
    key: prefix === undefined ? keyPart(kind, value, { secret, pepper }) : limitKey(prefix, who, name),
  }),
};

let cases = 0;
for (const [group, rows] of Object.entries(vectors)) {
  if (group === "about") continue;
  describe(group, () => {
    for (const { case: sentence, input, output } of rows) {
      cases += 1;
      it(sentence, () => {
        if (output["error"] === undefined) assert.deepEqual(run[group]!(input), output);
        else assert.throws(() => run[group]!(input), { code: output["error"] });
      });
    }
  });
}

it("there are cases enough", () => {
  assert.ok(cases >= 60, `${cases}`);
});
