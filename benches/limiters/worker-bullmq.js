// A worker process with BullMQ and its own limiter, set up as its documentation says.

import { Queue, Worker } from "bullmq";

import { call, Refused } from "./call.js";

const settings = JSON.parse(process.argv[2]);
const connection = { path: settings.redis };
const queue = new Queue("zoho", { connection });

async function work() {
  try {
    await call(settings);
  } catch (error) {
    if (!(error instanceof Refused) || !error.waitMs) throw error; // tried again by its attempts
    await queue.rateLimit(error.waitMs);
    throw Worker.RateLimitError();
  }
}

const worker = new Worker("zoho", work, {
  connection,
  concurrency: settings.concurrency,
  drainDelay: settings.idleSeconds,
  limiter: { max: settings.cap, duration: settings.windowMs },
});
worker.on("error", (error) => console.error(`bullmq: ${error.message}`));
await worker.waitUntilReady();
process.send("ready");
process.on("disconnect", () => process.exit());
process.on("SIGTERM", () => process.exit());
