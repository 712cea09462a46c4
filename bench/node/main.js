// The process of a peer on Node.js: answers on standard output what it is asked on
// standard input, a line of JSON each (bench/src/protocol.rs). The argument is the
// folder of the peer.
import { createInterface } from "node:readline";

import { answers } from "./answers.js";
import { token } from "./data.js";
import { run } from "./run.js";

const { Peer } = await import(`./${process.argv[2]}/peer.js`);
let peer;

const requests = {
  open: async (setup) => {
    peer = await Peer.open(setup);
    return { opened: {} };
  },
  first: async ({ session }) => ({ user: (await peer.authenticate(token(session))).user.id }),
  prepare: async () => ({ prepared: {} }),
  check: async () => ({ answers: await answers(peer) }),
  run: async (request) => ({ measured: await run(peer, request) }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [[what, body]] = Object.entries(JSON.parse(line));
  let answer;
  try {
    answer = await requests[what](body);
  } catch (error) {
    answer = { failed: error.message };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
