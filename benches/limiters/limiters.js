// The limiters that are compared. Each is started against a simulated Zoho with a number of worker processes, and offered calls to make.

import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { Queue } from "bullmq";

import { end, find, folder, output, start, until } from "./processes.js";
import { mint } from "./zoho.js";

/** Calls that one worker process holds at once. */
export const CONCURRENCY = 4;

/** Seconds that a BullMQ worker which found nothing waits for a sign of work, by its default. Scaled with the window like all else. */
const BULLMQ_DRAIN_DELAY = 5;

/** By name: starts the limiter and gives `offer(calls)` and `stop()`. */
export const LIMITERS = {
  sluice,
  bullmq: (run) => bullmq(run),
  "bullmq with global concurrency": (run) => bullmq(run, run.inFlight),
  "rate-limiter-flexible": rateLimiterFlexible,
};

/** `sluice up` is the first worker, and brings a PostgreSQL; the others are `sluice worker`. */
async function sluice({ sluice, zoho, replicas, cap, inFlight, windowSeconds }) {
  const psql = find("psql", "postgresql-client");
  const home = folder();
  const address = join(home, ".sluice", "url");
  const { client_id, client_secret, refresh_token, organization_id } = zoho.credentials;
  writeFileSync(
    join(home, "sluice.toml"),
    `[database]
max_connections = 3
[http]
listen = "127.0.0.1:0"
[connections.main]
client_id = "${client_id}"
client_secret = "${client_secret}"
refresh_token = "${refresh_token}"
organization_id = "${organization_id}"
accounts_url = "${zoho.url}"
api_url = "${zoho.url}"
[connections.main.budget.finance]
per_minute = ${cap}
in_flight = ${inFlight}
window_seconds = ${windowSeconds}
`,
  );
  const sql = (text) => output(psql, [readFileSync(address, "utf8").trim(), "-XqAtc", text]);
  const program = (...args) => start(sluice, [...args, "--concurrency", `${CONCURRENCY}`], { cwd: home, stdio: ["ignore", "ignore", "pipe"] });
  const workers = [program("up")];
  const started = () => workers.every((worker) => worker.said.includes("worker started"));
  await until("sluice up", 120, started);
  while (workers.length < replicas) workers.push(program("worker"));
  await until("sluice worker", 120, started);
  const call = `{"connection": "main", "product": "billing", "method": "GET", "path": "/customers"}`;
  return {
    offer: (calls) => sql(`insert into sluice.job (kind, args, lane) select 'call', '${call}', 'normal' from generate_series(1, ${calls})`),
    stop: async () => {
      await end(workers.slice(1));
      await end(workers.slice(0, 1));
    },
  };
}

/** BullMQ with its limiter; `together` bounds the jobs that all workers hold at once. */
async function bullmq(run, together) {
  const redis = await startRedis();
  const queue = new Queue("zoho", { connection: { path: redis.path } });
  if (together) await queue.setGlobalConcurrency(together);
  const workers = await nodes("worker-bullmq.js", redis, run);
  const opts = { attempts: 1000, backoff: { type: "fixed", delay: pauseMs(run) }, removeOnComplete: true };
  return {
    offer: (calls) => queue.addBulk(Array.from({ length: calls }, () => ({ name: "call", data: {}, opts }))),
    stop: async () => {
      await end(workers);
      await queue.close();
      await end([redis.child]);
    },
  };
}

/** A point from a limiter in Redis before every call. Each process has its own share of the work. */
async function rateLimiterFlexible(run) {
  const redis = await startRedis();
  const workers = await nodes("worker-rate-limiter-flexible.js", redis, run);
  return {
    offer: (calls) => workers.slice(0, calls).forEach((worker) => worker.send({ offer: Math.ceil(calls / workers.length) })),
    stop: () => end([...workers, redis.child]),
  };
}

/** What a worker waits after a 429 without Retry-After: a second of Zoho's. */
function pauseMs({ windowSeconds }) {
  return Math.ceil((windowSeconds / 60) * 1000);
}

/** A Redis of our own, in memory only, without a port. */
async function startRedis() {
  const home = folder();
  const path = join(home, "redis.sock");
  const child = start(find("redis-server", "redis-server"), ["--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", home]);
  child.stdout.resume();
  await until("redis-server", 20, () => existsSync(path));
  return { child, path };
}

/** Worker processes of node, all of them ready. */
async function nodes(file, redis, run) {
  const settings = {
    redis: redis.path,
    url: run.zoho.url,
    token: await mint(run.zoho),
    organization: run.zoho.credentials.organization_id,
    cap: run.cap,
    windowMs: run.windowSeconds * 1000,
    pauseMs: pauseMs(run),
    idleSeconds: (BULLMQ_DRAIN_DELAY * run.windowSeconds) / 60,
    concurrency: CONCURRENCY,
  };
  const workers = Array.from({ length: run.replicas }, () =>
    start(process.execPath, [join(import.meta.dirname, file), JSON.stringify(settings)], { stdio: ["ignore", "ignore", "pipe", "ipc"] }),
  );
  await Promise.all(workers.map((worker) => once(worker, "message")));
  return workers;
}
