// Every operation once, to compare the answers with those of the other peers
// (bench/src/worker.rs).
import { entries, entry, newDelivery, PLACES, token } from "./data.js";

export async function answers(peer) {
  if (peer.queue) {
    // A queue, and nothing else.
    await peer.work?.(1);
    const answers = { durability: await peer.durability(), queue: await peer.queue(1) };
    await peer.rest?.();
    return answers;
  }
  const { sessions, workflows, users, deliveries, hooks } = peer.shape;
  const accounts = [];
  for (const session of [1, Math.floor(sessions / 2), sessions, sessions + 1]) {
    const found = await peer.authenticate(token(session));
    accounts.push(found && peer.account(found));
  }
  const details = [];
  for (const id of [1, Math.floor(workflows / 2), workflows, workflows + 1]) {
    const found = await peer.details(id);
    details.push(found && peer.parts(found));
  }
  const [rows, cached] = [[], []];
  for (const id of [1, 2, deliveries, deliveries + 1]) {
    rows.push(await peer.ownRow(id));
    cached.push(await peer.ownRowCached(id));
  }
  const inserted = [];
  for (const number of [0, 1, 2]) inserted.push(await peer.ownInsert(newDelivery(number, 2)));
  return {
    durability: await peer.durability(),
    authenticate: accounts,
    details,
    summaries: await peer.summaries(users),
    documents: await peer.documents(users),
    logs: [await peer.logs(0), await peer.logs(PLACES - 1)],
    append: await peer.append(entry(7, 1)),
    append_many: await peer.appendMany(entries((number) => entry(number, 2))),
    update: [await peer.update(1, "Renamed once"), await peer.update(1, "Renamed twice")],
    own_row: rows,
    own_row_cached: cached,
    own_page: [await peer.ownPage(1, 0), await peer.ownPage(hooks, deliveries / 2)],
    own_insert: inserted,
    transaction: await peer.transaction(1, [newDelivery(3, 1), newDelivery(4, 1)]),
    repository_find: await peer.ownRow(1),
    repository_insert: await peer.ownInsert(newDelivery(5, 2)),
    repository_list: await peer.ownPage(1, 0),
    repository_query: await peer.ownPage(1, 0),
    // What not every peer does is compared between those that do.
    ...(peer.related && { repository_related: (await peer.related(1, 0)).map(peer.attempted) }),
  };
}
