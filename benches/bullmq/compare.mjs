// BullMQ's limiter and Sluice's ledger, one after the other: same simulated Zoho, same load, same number of worker processes. See README.md.
//
//   node compare.mjs [--sluice PATH] [--replicas 4] [--window 6] [--cap 100] [--latency 20-150] [--windows 5] [--block true]

import { fork, spawn, execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';

const ORGANIZATION = '60000000001';
const CONCURRENCY = 4;

const options = Object.fromEntries(process.argv.slice(2).join(' ').split('--').filter(Boolean).map((pair) => pair.trim().split(/\s+/)));
const replicas = Number(options.replicas ?? 4);
const window = Number(options.window ?? 6);
const cap = Number(options.cap ?? 100);
const windows = Number(options.windows ?? 5);
const latency = (options.latency ?? '20-150').split('-').map(Number);
const block = (options.block ?? 'true') === 'true';
const sluice = options.sluice ?? 'sluice';

const client = (redis) => {
  const connection = new Redis({ ...redis, maxRetriesPerRequest: null });
  connection.on('error', () => {}); // until Redis listens it tries again by itself
  return connection;
};
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// A worker process. A 429 is answered as BullMQ's documentation says: the queue rests for Retry-After, and the job is tried again.
if (process.env.BULLMQ_WORKER) {
  const { redis, url, token } = JSON.parse(process.env.BULLMQ_WORKER);
  const headers = { authorization: `Zoho-oauthtoken ${token}`, 'x-com-zoho-subscriptions-organizationid': ORGANIZATION };
  const worker = new Worker('calls', async () => {
    const answer = await fetch(`${url}/billing/v1/customers`, { headers });
    await answer.text();
    if (answer.status === 429) {
      await worker.rateLimit(Number(answer.headers.get('retry-after') ?? 1) * 1000);
      throw Worker.RateLimitError();
    }
  }, { connection: client(redis), concurrency: CONCURRENCY, limiter: { max: cap, duration: window * 1000 } });
  worker.on('error', () => {}); // a limit is no fault; what arrives is counted over there
} else {
  await main();
}

async function main() {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bullmq-'));
  const children = [];
  try {
    const bullmq = await measureBullmq(folder, children);
    const { stdout } = await promisify(execFile)(sluice, ['bench', 'budget', '--json', '--scenario', 'saturation', '--replicas', `${replicas}`,
      '--window', `${window}`, '--cap', `${cap}`, '--windows', `${windows}`, '--latency', latency.join('-')]);
    const ours = JSON.parse(stdout);
    const rows = [
      ['BullMQ', bullmq.windows, bullmq.most, bullmq.refused],
      ['Sluice', ours.windows, ours.most_in_window_by_simulator, ours.refused],
    ];
    console.log(`${replicas} worker processes of ${CONCURRENCY}, ${cap} calls per ${window} s allowed, answers after ${latency.join('-')} ms, ${windows} windows after the first`);
    for (const [name, used, most, refused] of rows) {
      const share = Math.round((1000 * used.reduce((a, b) => a + b, 0)) / (cap * used.length)) / 10;
      console.log(`${name.padEnd(7)} worst sliding window ${String(most).padStart(4)} of ${cap}   429s ${String(refused).padStart(4)}   accepted calls ${share} % of the cap   by window ${used.join(' ')}`);
    }
  } finally {
    for (const child of children) child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measureBullmq(folder, children) {
  const port = await freePort();
  const server = spawn('redis-server', ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--dir', folder], { stdio: 'ignore' });
  children.push(server);
  const scenario = join(folder, 'scenario.toml');
  writeFileSync(scenario, `time_scale = ${60 / window}\nlatency_ms = [${latency}]\n[finance]\nper_minute = ${cap}\nblock = ${block}\nrefuse_in_flight = false\nper_day = 1000000\n`);
  const simulator = spawn(sluice, ['--json', '-q', 'simulate', '--port', '0', '--scenario', scenario], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(simulator);
  const zoho = JSON.parse(await firstLine(simulator.stdout));
  const form = new URLSearchParams({ grant_type: 'refresh_token', client_id: zoho.client_id, client_secret: zoho.client_secret, refresh_token: zoho.refresh_token });
  const { access_token: token } = await (await fetch(`${zoho.url}/oauth/v2/token`, { method: 'POST', body: form })).json();

  const redis = { host: '127.0.0.1', port };
  const queue = new Queue('calls', { connection: client(redis) });
  queue.on('error', () => {});
  const jobs = Array.from({ length: cap * (windows + 3) }, () => ({ name: 'call', data: {}, opts: { attempts: 1000, removeOnComplete: true } }));
  await queue.addBulk(jobs);
  for (let n = 0; n < replicas; n++) {
    const env = { ...process.env, BULLMQ_WORKER: JSON.stringify({ redis, url: zoho.url, token }) };
    children.push(fork(fileURLToPath(import.meta.url), process.argv.slice(2), { env }));
  }
  const calls = async () => (await every(zoho.url)).filter((call) => call.product === 'billing');
  while ((await calls()).length === 0) await sleep(50);
  const start = (await calls())[0].arrived_us + window * 1e6;
  await sleep((start - Date.now() * 1000) / 1000 + windows * window * 1000);
  const all = await calls();
  const stats = await (await fetch(`${zoho.url}/admin/stats`)).json();
  await queue.close();
  for (const child of children) child.kill('SIGKILL');
  const accepted = all.filter((call) => call.status === 200).map((call) => call.arrived_us);
  const between = (from, to) => accepted.filter((at) => from <= at && at < to).length;
  return {
    windows: Array.from({ length: windows }, (_, n) => between(start + n * window * 1e6, start + (n + 1) * window * 1e6)),
    most: stats.scopes[`finance:${ORGANIZATION}`].most_in_window,
    refused: all.filter((call) => call.status === 429).length,
  };
}

async function every(url) {
  const all = [];
  for (let since = 0; ;) {
    const page = await (await fetch(`${url}/admin/log?since=${since}`)).json();
    if (page.requests.length === 0) return all;
    all.push(...page.requests);
    since = page.next;
  }
}

function firstLine(stream) {
  return new Promise((resolve, reject) => {
    let text = '';
    stream.on('data', (chunk) => {
      text += chunk;
      try { resolve(JSON.stringify(JSON.parse(text))); } catch { /* not whole yet */ }
    });
    stream.on('end', () => reject(new Error('the simulator ended')));
  });
}

function freePort() {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}
