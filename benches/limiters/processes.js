// The programs that a run needs: started, watched, and ended with it. Nothing may outlive the comparison.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Characters kept of what a program wrote to its standard error. */
const LONGEST_LAST_WORDS = 4_000;

const running = new Set();
const folders = new Set();

/** A new folder that is removed in the end. Readable for all, since PostgreSQL may run as another user. */
export function folder() {
  const made = mkdtempSync(join(tmpdir(), "sluice-limiters-"));
  chmodSync(made, 0o755);
  folders.add(made);
  return made;
}

/** Starts a program. Its end before `end` was called ends everything, with what it said last. */
export function start(program, args, options = {}) {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
  child.said = "";
  child.stderr.on("data", (chunk) => (child.said = (child.said + chunk).slice(-LONGEST_LAST_WORDS)));
  running.add(child);
  child.on("error", (error) => fail(`${program}: ${error.message}`));
  child.on("close", (code, signal) => {
    if (running.delete(child) && !child.ending) fail(`${child.said}${program} ${args[0]} ended by itself: ${signal ?? code}`);
  });
  return child;
}

/** Ends programs, politely first. */
export async function end(children) {
  for (const child of children) child.ending = true;
  await Promise.all(
    children.map(async (child) => {
      if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGTERM");
      const patience = setTimeout(() => child.kill("SIGKILL"), 20_000);
      await once(child, "exit");
      clearTimeout(patience);
    }),
  );
}

/** Where a program of Debian's is, or an error that names the package. */
export function find(program, debian) {
  const found = spawnSync("sh", ["-c", `command -v ${program}`], { encoding: "utf8" }).stdout.trim();
  if (found) return found;
  const versions = "/usr/lib/postgresql";
  const own = existsSync(versions) ? readdirSync(versions).map((version) => join(versions, version, "bin", program)).filter(existsSync) : [];
  if (own.length > 0) return own.at(-1);
  throw new Error(`${program} is missing; on Debian: apt-get install ${debian}`);
}

/** Runs a program to its end and gives what it printed. */
export async function output(program, args) {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "exit");
  let text = "";
  for await (const chunk of child.stdout) text += chunk;
  const [code] = await ended;
  if (code !== 0) throw new Error(`${program} ended with ${code}`);
  return text;
}

/** Waits until `look` gives something; nothing and errors mean not yet. */
export async function until(what, seconds, look) {
  for (const deadline = Date.now() + seconds * 1000; Date.now() < deadline; ) {
    const found = await Promise.resolve().then(look).catch(() => undefined);
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${what}: not within ${seconds} s`);
}

let leaving = false;

function fail(message) {
  if (!leaving) console.error(message);
  leave(1);
}

/** Ends everything in good order, once. */
export async function leave(code) {
  if (leaving) return;
  leaving = true;
  await end([...running]);
  process.exit(code);
}

process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
  for (const one of folders) rmSync(one, { recursive: true, force: true, maxRetries: 5 });
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => leave(130));
