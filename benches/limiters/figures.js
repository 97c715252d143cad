// What a run's calls say about its limiter: how full the windows were, the fullest and the emptiest sliding one. Pure; times are
// microseconds, by the simulated Zoho's clock.

/** Most of the sorted times in any half-open window. The fullest one begins with a call. */
export function most(times, window) {
  let start = 0;
  let most = 0;
  times.forEach((at, index) => {
    while (times[start] <= at - window) start += 1;
    most = Math.max(most, index + 1 - start);
  });
  return most;
}

/** How many of the times lie in `from <= at < to`. */
export function between(times, from, to) {
  return times.filter((at) => at >= from && at < to).length;
}

/** Fewest of the times in any window within the stretch. The emptiest one begins just after a call, or with the stretch. */
export function fewest(times, from, to, window) {
  const starts = times.map((at) => at + 1).filter((start) => start >= from && start + window <= to);
  return Math.min(...[from, ...starts].map((start) => between(times, start, start + window)));
}

/**
 * The row of one run.
 *
 * `calls` are those of the simulator's log, `stats` its statistics. Used is what was answered 200: a refused call does no work. For the
 * cap every arrival counts, refused or not. Windows are looked at from the second on, as the first is still filling up.
 */
export function row({ calls, stats, cap, windowUs, windows }) {
  const sorted = (list) => list.map((call) => call.arrived_us).sort((a, b) => a - b);
  const arrivals = sorted(calls);
  if (arrivals.length === 0) throw new Error("no call arrived");
  const answered = sorted(calls.filter((call) => call.status === 200));
  const from = arrivals[0] + windowUs;
  const consecutive = Array.from({ length: windows }, (_, n) => between(answered, from + n * windowUs, from + (n + 1) * windowUs));
  const percent = (count) => Math.round((count / cap) * 1000) / 10;
  const violations = stats.violations ?? {};
  return {
    calls: arrivals.length,
    windows: consecutive,
    usedPercent: consecutive.map(percent),
    leastSliding: fewest(answered, from, from + windows * windowUs, windowUs),
    mostSliding: most(arrivals, windowUs),
    overMinute: (violations.rate ?? 0) + (violations.during_block ?? 0),
    overAtOnce: violations.in_flight ?? 0,
    mostInFlight: Math.max(0, ...Object.entries(stats.scopes).flatMap(([scope, one]) => (scope.startsWith("finance:") ? [one.most_in_flight] : []))),
  };
}
