#!/usr/bin/env node
// Compares Sluice's budget with Redis-based limiters: same simulated Zoho, same load. README.md says what the figures mean.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

import { row } from "./figures.js";
import { LIMITERS } from "./limiters.js";
import { end, find, leave, until } from "./processes.js";
import { simulate } from "./zoho.js";

const USAGE = `node compare.js [options]
  --replicas N,…       worker processes, each of which holds 4 calls (1,4,16)
  --limiter NAME,…     only these: ${Object.keys(LIMITERS).join("; ")}
                       (by the beginning of their names)
  --load steady|late   work always waiting; or one call first, and all others when a third of its window is left (steady)
  --window S           seconds of a window (60). 6 for a quick look: answers are then ten times as quick too
  --windows N          windows to look at, after the first (5)
  --cap N              calls in a window (100)
  --in-flight N        calls at once (10)
  --latency MS-MS      of answers, uniformly (200-1500, scaled with the window)
  --block              refuse calls over the minute as Zoho does: with a block of 30 minutes
  --one-by-one         each limiter by itself, not all with as many processes side by side
  --all-at-once        everything side by side: a third of the time, 4 GB of memory
  --sluice FILE        the program (target/release/sluice, else target/debug/sluice, else that on the PATH)
  --json               rows as JSON, one a line, instead of the table`;

const ZOHO_LATENCY = [200, 1500];

function options() {
  const { values } = parseArgs({
    options: {
      replicas: { type: "string", default: "1,4,16" },
      limiter: { type: "string" },
      load: { type: "string", default: "steady" },
      window: { type: "string", default: "60" },
      windows: { type: "string", default: "5" },
      cap: { type: "string", default: "100" },
      "in-flight": { type: "string", default: "10" },
      latency: { type: "string" },
      block: { type: "boolean", default: false },
      "one-by-one": { type: "boolean", default: false },
      "all-at-once": { type: "boolean", default: false },
      sluice: { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return values;
  const whole = (name, text) => {
    if (!/^[1-9][0-9]{0,4}$/.test(text)) throw new Error(`--${name}: a whole number from 1 on`);
    return Number(text);
  };
  if (!["steady", "late"].includes(values.load)) throw new Error("--load: steady or late");
  const windowSeconds = whole("window", values.window.replace(/s$/, ""));
  const latency = values.latency?.split("-").map(Number) ?? ZOHO_LATENCY.map((ms) => Math.round((ms * windowSeconds) / 60));
  if (latency.length !== 2 || !(latency[0] >= 0 && latency[0] <= latency[1])) throw new Error("--latency: as 200-1500");
  const asked = values.limiter?.split(",") ?? [""];
  const names = Object.keys(LIMITERS).filter((name) => asked.some((start) => name.startsWith(start)));
  if (names.length === 0) throw new Error(`--limiter: ${Object.keys(LIMITERS).join("; ")}`);
  return {
    ...values,
    names,
    replicas: values.replicas.split(",").map((text) => whole("replicas", text)),
    windowSeconds,
    windows: values.load === "late" ? 1 : whole("windows", values.windows),
    cap: whole("cap", values.cap),
    inFlight: whole("in-flight", values["in-flight"]),
    latency,
    sluice: values.sluice ?? program(),
  };
}

function program() {
  const built = ["release", "debug"].map((profile) => join(import.meta.dirname, "../../target", profile, "sluice"));
  return built.find(existsSync) ?? find("sluice", "no package: build it with cargo build --release");
}

/** One limiter with one number of worker processes, ready but without work. */
async function prepare(name, replicas, options) {
  const zoho = await simulate(options);
  return { name, replicas, zoho, limiter: await LIMITERS[name]({ ...options, zoho, replicas }) };
}

async function measure({ name, replicas, zoho, limiter }, options) {
  const { windowSeconds, windows, cap, load, latency } = options;
  // More than can be done in all windows: from the beginning, or late in a window that one call has opened.
  const work = cap * (windows + 3);
  await limiter.offer(load === "late" ? 1 : work);
  const { arrived_us: first } = await until(`${name}'s first call`, 60, async () => (await zoho.calls())[0]);
  const after = (seconds) => sleep(first / 1000 + seconds * 1000 - Date.now());
  if (load === "late") {
    await after((windowSeconds * 2) / 3);
    await limiter.offer(work);
  }
  await after(windowSeconds * (windows + 1) + (2 * latency[1]) / 1000);
  const [calls, stats] = [await zoho.calls(), await zoho.stats()];
  return { limiter: name, replicas, load, cap, window_s: windowSeconds, ...row({ calls, stats, cap, windowUs: windowSeconds * 1e6, windows }) };
}

function table(rows) {
  const range = (list) => (Math.min(...list) === Math.max(...list) ? `${list[0]}` : `${Math.min(...list)}-${Math.max(...list)}`);
  const lines = rows.map((row) => [
    row.limiter,
    row.replicas,
    `${range(row.usedPercent)} %`,
    row.leastSliding,
    row.mostSliding,
    row.overMinute,
    row.overAtOnce,
    row.mostInFlight,
  ]);
  const head = ["limiter", "replicas", "used", "least sliding", "most sliding", "over the minute", "429 at once", "most in flight"];
  const widths = head.map((title, column) => Math.max(...[head, ...lines].map((line) => `${line[column]}`.length)));
  const cell = (value, column) => (column === 0 ? `${value}`.padEnd(widths[column]) : `${value}`.padStart(widths[column]));
  const text = (line) => `| ${line.map(cell).join(" | ")} |`;
  const rule = `|${widths.map((width, column) => (column === 0 ? "-".repeat(width + 2) : `${"-".repeat(width + 1)}:`)).join("|")}|`;
  return [text(head), rule, ...lines.map(text)].join("\n");
}

async function main() {
  const given = options();
  if (given.help) return console.log(USAGE);
  if (given.names.some((name) => name !== "sluice")) find("redis-server", "redis-server");
  const steps = given.replicas.map((replicas) => given.names.map((name) => ({ name, replicas })));
  const rounds = given["one-by-one"] ? steps.flat().map((step) => [step]) : given["all-at-once"] ? [steps.flat()] : steps;
  const seconds = rounds.length * (given.windows + 1) * given.windowSeconds;
  const minutes = Math.ceil(seconds / 60 + 0.3 * rounds.length);
  console.error(`${given.cap} calls in ${given.windowSeconds} s, answers after ${given.latency.join("-")} ms, ${given.load} load: about ${minutes} minutes`);
  const rows = [];
  for (const round of rounds) {
    // All are up before one is measured: starting many processes takes all of a small machine.
    const prepared = await Promise.all(round.map(({ name, replicas }) => prepare(name, replicas, given)));
    const found = await Promise.all(prepared.map((one) => measure(one, given)));
    rows.push(...found);
    await Promise.all(prepared.map(({ limiter, zoho }) => limiter.stop().then(() => end([zoho.child]))));
    for (const one of found) console.error(`${one.limiter}, ${one.replicas}: ${one.windows.join(" ")}`);
  }
  rows.sort((a, b) => given.names.indexOf(a.limiter) - given.names.indexOf(b.limiter) || a.replicas - b.replicas);
  console.log(given.json ? rows.map((one) => JSON.stringify(one)).join("\n") : table(rows));
}

main().then(
  () => leave(0),
  (error) => {
    console.error(error.message);
    return leave(1);
  },
);
