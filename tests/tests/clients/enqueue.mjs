// What a Node service does: enqueue by INSERT … RETURNING in its own transaction, as a member of sluice_enqueue, with node-postgres.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { setTimeout as pause } from "node:timers/promises";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { Client } = require("pg");

const { SERVICE_URL: connectionString, SYNC: sync, KEY: key } = process.env;
const INSERT = "insert into sluice.job (kind, args) values ($1, $2) returning id, created_at";
const client = new Client({ connectionString });
await client.connect();

const result = async (job) => (await client.query("select sluice.job_result($1) as result", [job])).rows[0].result;
const refused = async (kind, args, expected) =>
  assert.rejects(client.query(INSERT, [kind, args]), (error) => error.message.includes(expected) || assert.fail(error.message));

await client.query("begin");
const { id: rolledBack } = (await client.query(INSERT, ["push", { sync, key }])).rows[0];
await client.query("rollback");
assert.equal(await result(rolledBack), null, "a rolled back insert left a job");

await client.query("begin");
const { id: job, created_at: createdAt } = (await client.query(INSERT, ["push", { sync, key }])).rows[0];
await client.query("commit");
assert.ok(createdAt instanceof Date);
const deadline = Date.now() + 30_000;
while ((await result(job)) !== "done") {
  assert.ok(Date.now() < deadline, `job ${job} is ${await result(job)}`);
  await pause(20);
}

await client.query("select sluice.enqueue('push', $1)", [{ sync, key }]);

await refused("nonsense", {}, 'unknown job kind "nonsense"');
await refused("push", { sync }, 'needs "key"');
await refused("push", { sync: "nowhere", key }, 'unknown sync "nowhere"');
await refused("call", { connection: "main", product: "billing", method: "GET", path: "/customers" }, 'may not insert "call" jobs');
await client.end();
