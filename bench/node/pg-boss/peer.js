// A queue on PostgreSQL: pg-boss.
import pg from "pg";
import PgBoss from "pg-boss";

const QUEUE = "execution";

export class Peer {
  static async open(setup) {
    const { host, port, user, password, database } = setup.target.postgres;
    const place = { host, port, user, password: password ?? undefined, database };
    const peer = new Peer();
    peer.shape = setup.shape;
    peer.place = place;
    peer.boss = new PgBoss({ ...place, max: setup.connections });
    peer.boss.on("error", (error) => console.error(error.message));
    await peer.boss.start();
    await peer.boss.createQueue(QUEUE);
    return peer;
  }

  async durability() {
    const client = new pg.Client(this.place);
    await client.connect();
    const { rows } = await client.query("SHOW synchronous_commit");
    await client.end();
    return rows[0].synchronous_commit;
  }

  /** Queues one, and takes and finishes the next. */
  async queue(number) {
    await this.boss.send(QUEUE, { run: number });
    for (;;) {
      const [job] = await this.boss.fetch(QUEUE);
      if (!job) continue;
      await this.boss.complete(QUEUE, job.id);
      return job.data.run;
    }
  }
}
