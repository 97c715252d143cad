// A worker process of a team's own loop: before every call it takes a point from rate-limiter-flexible's limiter in Redis.

import { Redis } from "ioredis";
import { RateLimiterQueue, RateLimiterRedis } from "rate-limiter-flexible";

import { call, Refused } from "./call.js";

const KEY = "zoho";
const settings = JSON.parse(process.argv[2]);
const redis = new Redis(settings.redis);
const limiter = new RateLimiterRedis({ storeClient: redis, points: settings.cap, duration: settings.windowMs / 1000 });
const waiting = new RateLimiterQueue(limiter);
let due = 0;
let wake = () => {};
let offered = new Promise((resolve) => (wake = resolve));

async function serve() {
  for (;;) {
    while (due < 1) await offered;
    due -= 1;
    for (let done = false; !done; ) {
      await waiting.removeTokens(1, KEY);
      done = await call(settings).then(() => true, refused);
    }
  }
}

async function refused(error) {
  if (!(error instanceof Refused)) throw error;
  if (error.waitMs) await limiter.block(KEY, Math.ceil(error.waitMs / 1000));
  else await new Promise((resolve) => setTimeout(resolve, settings.pauseMs));
  return false;
}

process.on("message", ({ offer }) => {
  due += offer;
  wake();
  offered = new Promise((resolve) => (wake = resolve));
});
process.on("disconnect", () => process.exit());
process.on("SIGTERM", () => process.exit());
await redis.ping();
process.send("ready");
await Promise.all(Array.from({ length: settings.concurrency }, serve));
