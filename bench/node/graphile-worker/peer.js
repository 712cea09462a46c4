// A queue on PostgreSQL: graphile-worker. Its runner takes the jobs, so many at once, woken by
// NOTIFY.
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

  /** Has so many workers from now on. */
  async work(tasks) {
    if (this.tasks === tasks) return;
    await this.runner?.stop();
    this.tasks = tasks;
    const taskList = { execution: async () => {} };
    this.runner = await run({
      pgPool: this.pool,
      logger,
      concurrency: tasks,
      taskList,
      noHandleSignals: true,
    });
    this.runner.events.on("job:complete", ({ job: { payload } }) => {
      this.waiting.get(payload.run)?.(payload.run);
      this.waiting.delete(payload.run);
    });
  }

  /** Queues one, and waits until a worker has finished it. */
  async queue(number) {
    const finished = new Promise((resolve) => this.waiting.set(number, resolve));
    await this.utils.addJob("execution", { run: number });
    return finished;
  }
}
