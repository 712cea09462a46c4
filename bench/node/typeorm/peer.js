// What every peer can do (bench/src/peer.rs), with TypeORM's repositories.
import pg from "pg";
import { DataSource, LessThan, MoreThan } from "typeorm";

import { digest, PAGE, placeBefore } from "../data.js";
import { entities } from "./entities.js";

function options(setup) {
  if (setup.target.sqlite) {
    const synchronous = setup.durability === "full" ? "FULL" : "NORMAL";
    return {
      type: "better-sqlite3",
      database: setup.target.sqlite.path,
      timeout: 30_000,
      statementCacheSize: 100,
      enableWAL: true,
      prepareDatabase: (db) => db.pragma(`synchronous = ${synchronous}`),
    };
  }
  // Our keys are bigints below 2^53.
  pg.types.setTypeParser(pg.types.builtins.INT8, Number);
  const { host, port, user, password, database } = setup.target.postgres;
  return {
    type: "postgres",
    host,
    port,
    username: user,
    password: password ?? undefined,
    database,
    poolSize: setup.connections,
  };
}

export class Peer {
  static async open(setup) {
    const peer = new Peer();
    const tables = entities(setup.target.sqlite ? "sqlite" : "postgres");
    peer.shape = setup.shape;
    peer.sqlite = Boolean(setup.target.sqlite);
    peer.source = new DataSource({ ...options(setup), entities: Object.values(tables), synchronize: false });
    await peer.source.initialize();
    peer.sessions = peer.source.getRepository(tables.Session);
    peer.workflows = peer.source.getRepository(tables.Workflow);
    peer.log = peer.source.getRepository(tables.Log);
    peer.deliveries = peer.source.getRepository(tables.Delivery);
    peer.last = Promise.resolve();
    return peer;
  }

  async durability() {
    if (!this.sqlite) {
      const [row] = await this.source.query("SHOW synchronous_commit");
      return row.synchronous_commit;
    }
    const [mode] = await this.source.query("PRAGMA journal_mode");
    const [level] = await this.source.query("PRAGMA synchronous");
    return `${mode.journal_mode} ${level.synchronous}`;
  }

  // Not `findOne`: with relations it sends two statements, the first for the key
  // alone, and takes twice as long.
  async authenticate(text) {
    const [session] = await this.sessions.find({
      where: { token: digest(text), expires_at: MoreThan(new Date()), user: { is_active: true } },
      relations: { user: true },
    });
    return session ?? null;
  }

  async details(id) {
    const [workflow] = await this.workflows.find({
      where: { id },
      relations: { owner: true, plugins: true },
      order: { plugins: { name: "ASC" } },
    });
    return workflow ?? null;
  }

  summaries(owner_id) {
    return this.workflows.find({
      select: {
        id: true,
        name: true,
        description: true,
        status: true,
        version: true,
        owner_id: true,
        created_at: true,
        updated_at: true,
        deleted_at: true,
        created_by: true,
        updated_by: true,
      },
      where: { owner_id },
      order: { updated_at: "DESC", id: "DESC" },
      take: PAGE,
    });
  }

  documents(owner_id) {
    return this.workflows.find({
      where: { owner_id },
      order: { updated_at: "DESC", id: "DESC" },
      take: PAGE,
    });
  }

  logs(place) {
    const before = placeBefore(this.shape, place);
    return this.log.find({ where: { id: LessThan(before) }, order: { id: "DESC" }, take: PAGE });
  }

  async append(entry) {
    const { identifiers } = await this.log.insert({ ...entry, created_at: new Date() });
    return identifiers[0].id;
  }

  async appendMany(entries) {
    const created_at = new Date();
    const { identifiers } = await this.log.insert(entries.map((entry) => ({ ...entry, created_at })));
    return identifiers.length;
  }

  async update(id, name) {
    const { version, nodes } = await this.workflows.findOneByOrFail({ id });
    const { affected } = await this.workflows.update(
      { id, version },
      { name, nodes, version: version + 1, updated_at: new Date() },
    );
    if (affected !== 1) throw new Error("the version is stale");
    return version + 1;
  }

  ownRow(id) {
    return this.deliveries.findOneBy({ id });
  }

  ownPage(workflow_id, after) {
    return this.deliveries.find({
      where: { workflow_id, id: MoreThan(after) },
      order: { id: "ASC" },
      take: PAGE,
    });
  }

  // Not in the order of the attempts too: `take` would count them, and not the deliveries.
  related(workflow_id, after) {
    return this.deliveries.find({
      where: { workflow_id, id: MoreThan(after) },
      relations: { tries: true },
      order: { id: "ASC" },
      take: PAGE,
    });
  }

  async ownInsert(row) {
    const { identifiers } = await this.deliveries.insert(row);
    return identifiers[0].id;
  }

  transaction(id, [one, other]) {
    const transact = () =>
      this.source.transaction(async (manager) => {
        const deliveries = manager.getRepository(this.deliveries.target);
        const read = await deliveries.findOneByOrFail({ id });
        const first = await deliveries.insert(one);
        const second = await deliveries.insert(other);
        return [read, [first.identifiers[0].id, second.identifiers[0].id]];
      });
    if (!this.sqlite) return transact();
    // All share one connection, where another's statements would be in this transaction.
    this.last = this.last.then(transact);
    return this.last;
  }

  ownRowCached(id) {
    return this.ownRow(id);
  }

  /** Returns an account in the form of the other peers. */
  account({ user, ...session }) {
    return { session, user };
  }

  /** Returns a delivery with its attempts in the form of the other peers. */
  attempted({ tries, ...delivery }) {
    return { delivery, attempts: tries.sort((one, other) => one.id - other.id) };
  }

  /** Returns the details of a workflow in the form of the other peers. */
  parts({ owner, plugins, ...workflow }) {
    return { workflow, owner, plugins };
  }
}
