// The process of TypeORM: answers on standard output what it is asked on
// standard input, a line of JSON each (bench/src/protocol.rs).
import { createInterface } from "node:readline";

import { Peer, token } from "./peer.js";
import { run } from "./run.js";

let peer;

const answers = {
  open: async (setup) => {
    peer = await Peer.open(setup);
    return { opened: {} };
  },
  first: async ({ session }) => ({ user: (await peer.authenticate(token(session))).user.id }),
  prepare: async () => ({ prepared: {} }),
  check: async () => ({ answers: await peer.answers() }),
  run: async (request) => ({ measured: await run(peer, request) }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [[what, body]] = Object.entries(JSON.parse(line));
  let answer;
  try {
    answer = await answers[what](body);
  } catch (error) {
    answer = { failed: error.message };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
