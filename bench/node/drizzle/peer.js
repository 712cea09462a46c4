// What every peer can do (bench/src/peer.rs), with Drizzle's query builder.
import Database from "better-sqlite3";
import { and, asc, desc, eq, getTableColumns, gt, isNull, lt, sql } from "drizzle-orm";
import { drizzle as onSqlite } from "drizzle-orm/better-sqlite3";
import { drizzle as onPostgres } from "drizzle-orm/node-postgres";
import pg from "pg";

import { digest, PAGE, placeBefore } from "../data.js";
import { tables } from "./schema.js";

function openSqlite({ target, durability }) {
  const db = new Database(target.sqlite.path, { timeout: 30_000 });
  db.pragma("journal_mode = WAL");
  db.pragma(`synchronous = ${durability === "full" ? "FULL" : "NORMAL"}`);
  db.pragma("foreign_keys = ON");
  return onSqlite(db);
}

function openPostgres({ target, connections }) {
  const { host, port, user, password, database } = target.postgres;
  return onPostgres(new pg.Pool({ host, port, user, password: password ?? undefined, database, max: connections }));
}

export class Peer {
  static async open(setup) {
    const peer = new Peer();
    peer.shape = setup.shape;
    peer.sqlite = Boolean(setup.target.sqlite);
    peer.db = peer.sqlite ? openSqlite(setup) : openPostgres(setup);
    peer.tables = tables(peer.sqlite ? "sqlite" : "postgres");
    const { deleted_with_owner, settings, connections, nodes, metadata, ...summary } = getTableColumns(
      peer.tables.workflows,
    );
    peer.summary = summary;
    peer.cachedRow = peer.selectDelivery(peer.db, sql.placeholder("id")).prepare("own_row");
    return peer;
  }

  async durability() {
    if (!this.sqlite) {
      const { rows } = await this.db.execute(sql`SHOW synchronous_commit`);
      return rows[0].synchronous_commit;
    }
    const [mode, level] = ["journal_mode", "synchronous"].map((name) => this.db.$client.pragma(name, { simple: true }));
    return `${mode} ${level}`;
  }

  async authenticate(text) {
    const { sessions, users } = this.tables;
    const [found] = await this.db
      .select({ session: sessions, user: users })
      .from(sessions)
      .innerJoin(users, eq(users.id, sessions.user_id))
      .where(
        and(
          eq(sessions.token, digest(text)),
          gt(sessions.expires_at, new Date()),
          eq(users.is_active, true),
          isNull(users.deleted_at),
        ),
      );
    return found ?? null;
  }

  async details(id) {
    const { workflows, users, plugins, workflowPlugins } = this.tables;
    const [found] = await this.db
      .select({ workflow: workflows, owner: users })
      .from(workflows)
      .innerJoin(users, eq(users.id, workflows.owner_id))
      .where(and(eq(workflows.id, id), isNull(workflows.deleted_at), isNull(users.deleted_at)));
    if (!found) return null;
    found.plugins = await this.db
      .select(getTableColumns(plugins))
      .from(plugins)
      .innerJoin(workflowPlugins, eq(workflowPlugins.plugin_id, plugins.id))
      .where(and(eq(workflowPlugins.workflow_id, id), isNull(plugins.deleted_at)))
      .orderBy(asc(plugins.name));
    return found;
  }

  workflowsOf(owner, columns) {
    const { workflows } = this.tables;
    return this.db
      .select(columns)
      .from(workflows)
      .where(and(eq(workflows.owner_id, owner), isNull(workflows.deleted_at)))
      .orderBy(desc(workflows.updated_at), desc(workflows.id))
      .limit(PAGE);
  }

  summaries(owner) {
    return this.workflowsOf(owner, this.summary);
  }

  documents(owner) {
    return this.workflowsOf(owner);
  }

  logs(place) {
    const { logs } = this.tables;
    const before = placeBefore(this.shape, place);
    return this.db.select().from(logs).where(lt(logs.id, before)).orderBy(desc(logs.id)).limit(PAGE);
  }

  async append(entry) {
    const { logs } = this.tables;
    const [{ id }] = await this.db
      .insert(logs)
      .values({ ...entry, created_at: new Date() })
      .returning({ id: logs.id });
    return id;
  }

  async appendMany(entries) {
    const created_at = new Date();
    const rows = entries.map((entry) => ({ ...entry, created_at }));
    return this.affected(await this.db.insert(this.tables.logs).values(rows));
  }

  async update(id, name) {
    const { workflows } = this.tables;
    const [{ version, nodes }] = await this.db
      .select()
      .from(workflows)
      .where(and(eq(workflows.id, id), isNull(workflows.deleted_at)));
    const updated = await this.db
      .update(workflows)
      .set({ name, nodes, version: version + 1, updated_at: new Date() })
      .where(and(eq(workflows.id, id), eq(workflows.version, version)));
    if (this.affected(updated) !== 1) throw new Error("the version is stale");
    return version + 1;
  }

  /** Returns the number of rows that a statement wrote. */
  affected({ changes, rowCount }) {
    return this.sqlite ? changes : rowCount;
  }

  selectDelivery(db, id) {
    const { deliveries } = this.tables;
    return db.select().from(deliveries).where(eq(deliveries.id, id));
  }

  insertDelivery(db, row) {
    const { deliveries } = this.tables;
    return db.insert(deliveries).values(row).returning({ id: deliveries.id });
  }

  async ownRow(id) {
    const [row] = await this.selectDelivery(this.db, id);
    return row ?? null;
  }

  async ownRowCached(id) {
    const [row] = await this.cachedRow.execute({ id });
    return row ?? null;
  }

  ownPage(workflow, after) {
    const { deliveries } = this.tables;
    return this.db
      .select()
      .from(deliveries)
      .where(and(eq(deliveries.workflow_id, workflow), gt(deliveries.id, after)))
      .orderBy(asc(deliveries.id))
      .limit(PAGE);
  }

  async ownInsert(row) {
    const [{ id }] = await this.insertDelivery(this.db, row);
    return id;
  }

  transaction(id, [one, other]) {
    if (!this.sqlite) {
      return this.db.transaction(async (tx) => {
        const [read] = await this.selectDelivery(tx, id);
        const [first] = await this.insertDelivery(tx, one);
        const [second] = await this.insertDelivery(tx, other);
        return [read, [first.id, second.id]];
      });
    }
    // better-sqlite3 takes no asynchronous function.
    const transact = (tx) => {
      const read = this.selectDelivery(tx, id).get();
      const first = this.insertDelivery(tx, one).get();
      const second = this.insertDelivery(tx, other).get();
      return [read, [first.id, second.id]];
    };
    return this.db.transaction(transact, { behavior: "immediate" });
  }

  /** Returns an account in the form of the other peers. */
  account(found) {
    return found;
  }

  /** Returns the details of a workflow in the form of the other peers. */
  parts(found) {
    return found;
  }
}
