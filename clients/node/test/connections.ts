/** The four client libraries, alone and with a cluster. */

import { GlideClient, GlideClusterClient } from "@valkey/valkey-glide";
import { Cluster, Redis } from "ioredis";
import { Cluster as ValkeyCluster, Redis as Valkey } from "iovalkey";
import { createClient, createCluster } from "redis";
import type { Connection } from "redis-rl";

import { finally_ } from "./server.js";

const host = "127.0.0.1";

/** An open connection of each library. */
export const single: Record<string, (port: number) => Promise<Connection>> = {
  async ioredis(port) {
    const redis = new Redis(port);
    finally_(() => {
      redis.disconnect();
    });
    return redis;
  },
  async iovalkey(port) {
    const valkey = new Valkey(port);
    finally_(() => {
      valkey.disconnect();
    });
    return valkey;
  },
  async "node-redis"(port) {
    const client = createClient({ socket: { host, port } });
    finally_(() => {
      client.destroy();
    });
    await client.connect();
    return client;
  },
  async "node-redis with RESP3"(port) {
    const client = createClient({ socket: { host, port }, RESP: 3 });
    finally_(() => {
      client.destroy();
    });
    await client.connect();
    return client;
  },
  async "valkey-glide"(port) {
    const client = await GlideClient.createClient({ addresses: [{ host, port }] });
    finally_(() => {
      client.close();
    });
    return client;
  },
};

export const cluster: Record<string, (ports: number[]) => Promise<Connection>> = {
  async ioredis(ports) {
    const redis = new Cluster(ports.map((port) => ({ host, port })));
    finally_(() => {
      redis.disconnect();
    });
    return redis;
  },
  async iovalkey(ports) {
    const valkey = new ValkeyCluster(ports.map((port) => ({ host, port })));
    finally_(() => {
      valkey.disconnect();
    });
    return valkey;
  },
  async "node-redis"(ports) {
    const client = createCluster({ rootNodes: ports.map((port) => ({ socket: { host, port } })) });
    finally_(() => {
      client.destroy();
    });
    await client.connect();
    return client;
  },
  async "valkey-glide"(ports) {
    const client = await GlideClusterClient.createClient({ addresses: ports.map((port) => ({ host, port })) });
    finally_(() => {
      client.close();
    });
    return client;
  },
};
