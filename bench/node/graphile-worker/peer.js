// A queue on PostgreSQL: graphile-worker. Its runner takes the jobs, some at once, woken by
// NOTIFY.
import { EventEmitter, once } from "node:events";

import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";

const logger = new Logger(() => () => {});

export class Peer {
  static async open(setup) {
    const { host, port, user, password, database } = setup.target.postgres;
    const peer = new Peer();
    peer.shape = setup.shape;
    peer.pool = new pg.Pool({ host, port, user, password: password ?? undefined, database, max: setup.connections });
    peer.utils = await makeWorkerUtils({ pgPool: peer.pool, logger });
    await peer.utils.migrate();
    peer.waiting = new Map();
    return peer;
  }

  async durability() {
    const { rows } = await this.pool.query("SHOW synchronous_commit");
    return rows[0].synchronous_commit;
  }

  /** Runs this number of workers until it rests. */
  async work(tasks) {
    const events = new EventEmitter();
    const listens = once(events, "pool:listen:success");
    events.on("job:complete", ({ job: { payload } }) => {
      this.waiting.get(payload.run)?.resolve(payload.run);
      this.waiting.delete(payload.run);
    });
    events.on("worker:fatalError", ({ error }) => {
      for (const { reject } of this.waiting.values()) reject(error);
    });
    const taskList = { execution: async () => {} };
    const noHandleSignals = true;
    this.runner = await run({ pgPool: this.pool, logger, events, concurrency: tasks, taskList, noHandleSignals });
    await listens;
  }

  /** Ends the workers, which would disturb the others. */
  async rest() {
    await this.runner.stop();
  }

  /** Queues one, and waits until a worker has finished it. */
  async queue(number) {
    const finished = new Promise((resolve, reject) => this.waiting.set(number, { resolve, reject }));
    await this.utils.addJob("execution", { run: number });
    return finished;
  }
}
