// The simulated Zoho that all limiters call, `sluice simulate`: it counts every arrival and every excess by its own clock.

import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { folder, start, until } from "./processes.js";

/**
 * Starts one. `windowSeconds` is Zoho's minute. Calls over the minute are counted and answered, as the next half hour would else be
 * nothing but refusals; with `block` they are refused as Zoho does. Calls over the limit at once are refused in any case.
 */
export async function simulate({ sluice, cap, inFlight, windowSeconds, latency, block }) {
  const scenario = join(folder(), "scenario.toml");
  writeFileSync(
    scenario,
    `time_scale = ${(60 / windowSeconds).toFixed(6)}
latency_ms = [${latency.join(", ")}]
[finance]
per_minute = ${cap}
per_day = 1000000
in_flight = ${inFlight}
block = ${block}
`,
  );
  const child = start(sluice, ["simulate", "--port", "0", "--json", "--scenario", scenario]);
  let text = "";
  child.stdout.on("data", (chunk) => (text += chunk));
  const { url, ...credentials } = await until("sluice simulate", 20, () => JSON.parse(text));
  const admin = async (path) => (await fetch(`${url}/admin/${path}`)).json();
  return { child, url, credentials, stats: () => admin("stats"), calls: () => calls(admin) };
}

/** Every call to Billing, oldest first. */
async function calls(admin) {
  const all = [];
  for (let since = 0; ; ) {
    const { requests, next } = await admin(`log?product=billing&since=${since}`);
    if (requests.length === 0) return all;
    all.push(...requests);
    since = next;
  }
}

/** An access token, as every client of Zoho's needs one. It lives longer than a run. */
export async function mint({ url, credentials }) {
  const { client_id, client_secret, refresh_token } = credentials;
  const body = new URLSearchParams({ grant_type: "refresh_token", client_id, client_secret, refresh_token });
  const answer = await (await fetch(`${url}/oauth/v2/token`, { method: "POST", body })).json();
  if (!answer.access_token) throw new Error(`no access token: ${JSON.stringify(answer)}`);
  return answer.access_token;
}
