// One call to Zoho, as every worker process here makes it.

/** A refusal for a limit. `waitMs` is what Retry-After asks for; absent, Zoho did not say. */
export class Refused extends Error {
  constructor(waitMs) {
    super("429");
    this.waitMs = waitMs;
  }
}

export async function call({ url, token, organization }) {
  const response = await fetch(`${url}/billing/v1/customers`, {
    headers: { authorization: `Zoho-oauthtoken ${token}`, "x-com-zoho-subscriptions-organizationid": organization },
    signal: AbortSignal.timeout(30_000),
  });
  await response.arrayBuffer();
  if (response.status === 429) {
    const seconds = Number(response.headers.get("retry-after"));
    throw new Refused(seconds > 0 ? seconds * 1000 : undefined);
  }
  if (!response.ok) throw new Error(`Zoho answered ${response.status}`);
}
