// What every peer can do (bench/src/peer.rs), with TypeORM's repositories.
import { createHash } from "node:crypto";

import pg from "pg";
import { DataSource, LessThan, MoreThan } from "typeorm";

import { entities } from "./entities.js";

const PAGE = 50;
const ENTRIES = 1000;
export const PLACES = 16;

/** The token that opens this session. */
export const token = (session) => `bench-${String(session).padStart(37, "0")}`;

/** A log entry to be written. */
export const entry = (number, workflow_id) => ({
  level: "info",
  message: `Node HTTP Request ${number} finished with status 200 after 42 ms`,
  workflow_id,
  metadata: { node: "HTTP Request", run: number, ms: 42 },
});

export const entries = (make) => Array.from({ length: ENTRIES }, (_, number) => make(number));

/** A delivery to be written (bench/src/deliveries.rs). */
export function newDelivery(number, workflow_id) {
  const event = "workflow.finished";
  const [status, attempts, response_code, error] = [
    ["failed", 5, 503, "503 Service Unavailable"],
    ["delivered", 1, 200, null],
    ["pending", 0, null, null],
  ][number % 3];
  const page = `https://aura.example.org/workflows/${workflow_id}`;
  const links = `{"self":"${page}","logs":"${page}/logs"}`;
  const created_at = new Date();
  return {
    workflow_id,
    url: `https://hooks.example.org/v1/${workflow_id}`,
    event,
    status,
    attempts,
    response_code,
    error,
    payload: `{"event":"${event}","workflow":${workflow_id},"run":${number},"status":"success","nodes":8,"ms":42,"links":${links}}`,
    created_at,
    delivered_at: status === "delivered" ? created_at : null,
  };
}

const digest = (text) => createHash("sha256").update(text).digest("hex");

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
    const before = this.shape.logs - this.shape.depth - place * PAGE + 1;
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

  /** Every operation once, in the shape in which the others tell it. */
  async answers() {
    const { sessions, workflows, users, deliveries, hooks } = this.shape;
    const accounts = [];
    for (const session of [1, Math.floor(sessions / 2), sessions, sessions + 1]) {
      const found = await this.authenticate(token(session));
      const { user, ...rest } = found ?? {};
      accounts.push(found && { session: rest, user });
    }
    const details = [];
    for (const id of [1, Math.floor(workflows / 2), workflows, workflows + 1]) {
      const found = await this.details(id);
      const { owner, plugins, ...workflow } = found ?? {};
      details.push(found && { workflow, owner, plugins });
    }
    const rows = [];
    for (const id of [1, 2, deliveries, deliveries + 1]) rows.push(await this.ownRow(id));
    const inserted = [];
    for (const number of [0, 1, 2]) inserted.push(await this.ownInsert(newDelivery(number, 2)));
    return {
      durability: await this.durability(),
      authenticate: accounts,
      details,
      summaries: await this.summaries(users),
      documents: await this.documents(users),
      logs: [await this.logs(0), await this.logs(PLACES - 1)],
      append: await this.append(entry(7, 1)),
      append_many: await this.appendMany(entries((number) => entry(number, 2))),
      update: [await this.update(1, "Renamed once"), await this.update(1, "Renamed twice")],
      own_row: rows,
      own_row_cached: rows,
      own_page: [await this.ownPage(1, 0), await this.ownPage(hooks, deliveries / 2)],
      own_insert: inserted,
      transaction: await this.transaction(1, [newDelivery(3, 1), newDelivery(4, 1)]),
    };
  }
}
