import assert from "node:assert/strict";
import { test } from "node:test";

import { between, fewest, most, row } from "./figures.js";

test("two calls a window apart are not in one window", () => {
  const times = [0, 100, 100, 199, 200];
  assert.equal(most(times, 100), 3);
  assert.equal(most(times, 101), 4);
  assert.equal(between(times, 100, 200), 3);
});

test("the emptiest window is found between the consecutive ones", () => {
  // full windows at 0 and 100, but nothing from 51 to 150
  assert.equal(fewest([0, 10, 50, 151, 160, 199], 0, 200, 100), 0);
});

test("a refused call counts towards the cap, not as used", () => {
  const calls = [0, 110, 120, 130, 210].map((arrived_us) => ({ arrived_us, status: arrived_us === 130 ? 429 : 200 }));
  const stats = { violations: { in_flight: 1 }, scopes: { "finance:1": { most_in_flight: 3 }, oauth: { most_in_flight: 9 } } };
  const figures = row({ calls, stats, cap: 4, windowUs: 100, windows: 2 });
  assert.deepEqual(figures.windows, [2, 1]);
  assert.deepEqual(figures.usedPercent, [50, 25]);
  assert.equal(figures.mostSliding, 3);
  assert.deepEqual([figures.overMinute, figures.overAtOnce, figures.mostInFlight], [0, 1, 3]);
});

test("calls during a block count as over the minute", () => {
  const stats = { violations: { rate: 1, during_block: 7 }, scopes: {} };
  assert.equal(row({ calls: [{ arrived_us: 0, status: 200 }], stats, cap: 1, windowUs: 100, windows: 1 }).overMinute, 8);
});
