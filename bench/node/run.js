// Runs an operation for a while, so many at once, and takes the time of each
// (bench/src/run.rs).
import { createHistogram } from "node:perf_hooks";

import { entries, entry, newDelivery, PAGE, PLACES, token } from "./data.js";

// Latencies are kept to the tenth of a microsecond, up to ten minutes.
const TICKS_PER_MS = 10_000;
const LONGEST = 6_000_000_000;

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function dice(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

function full(rows) {
  if (rows.length !== PAGE) throw new Error(`${rows.length} rows instead of ${PAGE}`);
}

function mixed(percent) {
  if (percent < 40) return "authenticate";
  if (percent < 60) return "details";
  if (percent < 70) return "summaries";
  if (percent < 80) return "logs";
  if (percent < 95) return "append";
  return "update";
}

/** Something that chooses what to ask for, and asks. */
function caller(peer, run, task) {
  const random = dice((run.seed << 16) | task);
  const { shape } = peer;
  const oneOf = (count) => 1 + Math.floor(random() * count);
  let number = 0;
  const next = () => entry((number += 1), oneOf(shape.workflows));
  const delivery = () => newDelivery((number += 1), oneOf(shape.hooks));
  const calls = {
    authenticate: async () => {
      if (!(await peer.authenticate(token(oneOf(shape.sessions))))) throw new Error("nobody's token");
    },
    details: async () => {
      if (!(await peer.details(oneOf(shape.workflows)))) throw new Error("no such workflow");
    },
    summaries: async () => full(await peer.summaries(oneOf(shape.users))),
    documents: async () => full(await peer.documents(oneOf(shape.users))),
    logs: async () => full(await peer.logs(oneOf(PLACES) - 1)),
    append: () => peer.append(next()),
    append_many: () => peer.appendMany(entries(next)),
    update: () => {
      // Each task has workflows of its own, so that no version is stale.
      const mine = oneOf(Math.floor(shape.workflows / run.tasks)) - 1;
      return peer.update(mine * run.tasks + task + 1, `Renamed ${(number += 1)}`);
    },
    own_row: async () => {
      if (!(await peer.ownRow(oneOf(shape.deliveries)))) throw new Error("no such delivery");
    },
    own_row_cached: async () => {
      if (!(await peer.ownRowCached(oneOf(shape.deliveries)))) throw new Error("no such delivery");
    },
    // What follows the first half is enough for a page.
    own_page: async () => full(await peer.ownPage(oneOf(shape.hooks), oneOf(shape.deliveries / 2))),
    own_insert: () => peer.ownInsert(delivery()),
    transaction: () => peer.transaction(oneOf(shape.deliveries), [delivery(), delivery()]),
    repository_related: async () => full(await peer.related(oneOf(shape.hooks), oneOf(shape.deliveries / 2))),
    queue: () => peer.queue(run.seed * 1e12 + task * 1e9 + (number += 1)),
    mixed: () => calls[mixed(Math.floor(random() * 100))](),
  };
  return calls[run.operation];
}

/** Runs until the time is over; calls under way are waited for, and counted. */
export async function run(peer, run) {
  const times = createHistogram({ lowest: 1, highest: LONGEST, figures: 2 });
  await peer.work?.(run.tasks);
  const begun = performance.now();
  const end = begun + run.seconds * 1000;
  const tasks = Array.from({ length: run.tasks }, async (_, task) => {
    const call = caller(peer, run, task);
    let before = performance.now();
    while (before < end) {
      await call();
      const after = performance.now();
      times.record(Math.max(1, Math.round((after - before) * TICKS_PER_MS)));
      before = after;
    }
  });
  await Promise.all(tasks);
  const seconds = (performance.now() - begun) / 1000;
  await peer.rest?.();
  return {
    calls: times.count,
    seconds,
    p50_us: times.percentile(50) / 10,
    p99_us: times.percentile(99) / 10,
  };
}
