// The tables as the migrations of this workspace made them, and the application's own.
import * as postgres from "drizzle-orm/pg-core";
import * as sqlite from "drizzle-orm/sqlite-core";

// SQLite's columns hold RFC 3339 text.
const moment = sqlite.customType({
  dataType: () => "text",
  toDriver: (time) => time.toISOString().replace("Z", "000+00:00"),
  fromDriver: (text) => new Date(text),
});

const ON_SQLITE = {
  table: sqlite.sqliteTable,
  key: () => sqlite.integer().primaryKey({ autoIncrement: true }),
  number: () => sqlite.integer(),
  text: () => sqlite.text(),
  flag: () => sqlite.integer({ mode: "boolean" }),
  time: () => moment(),
  json: () => sqlite.text({ mode: "json" }),
  jsonb: () => sqlite.text({ mode: "json" }),
};

const ON_POSTGRES = {
  table: postgres.pgTable,
  key: () => postgres.bigint({ mode: "number" }).generatedByDefaultAsIdentity().primaryKey(),
  number: () => postgres.bigint({ mode: "number" }),
  text: () => postgres.text(),
  flag: () => postgres.boolean(),
  time: () => postgres.timestamp({ withTimezone: true }),
  json: () => postgres.json(),
  jsonb: () => postgres.jsonb(),
};

/** The tables for "sqlite" or "postgres". */
export function tables(backend) {
  const { table, key, number, text, flag, time, json, jsonb } = backend === "sqlite" ? ON_SQLITE : ON_POSTGRES;

  const managed = () => ({
    created_at: time().notNull(),
    updated_at: time().notNull(),
    deleted_at: time(),
    created_by: number(),
    updated_by: number(),
  });

  const users = table("users", {
    id: key(),
    name: text().notNull(),
    email: text().notNull(),
    hashed_password: text().notNull(),
    role: text().notNull(),
    is_active: flag().notNull(),
    ...managed(),
  });

  const sessions = table("sessions", {
    id: key(),
    token: text().notNull(),
    user_agent: text(),
    ip_address: text(),
    expires_at: time().notNull(),
    last_seen_at: time().notNull(),
    created_at: time().notNull(),
    updated_at: time().notNull(),
    user_id: number().notNull(),
  });

  const plugins = table("plugins", {
    id: key(),
    name: text().notNull(),
    description: text().notNull(),
    version: text().notNull(),
    author: text(),
    is_enabled: flag().notNull(),
    ...managed(),
    config_schema: json(),
  });

  const workflows = table("workflows", {
    id: key(),
    name: text().notNull(),
    description: text(),
    status: text().notNull(),
    version: number().notNull(),
    owner_id: number().notNull(),
    deleted_with_owner: flag().notNull(),
    ...managed(),
    settings: json(),
    connections: json(),
    nodes: json(),
    metadata: json(),
  });

  const workflowPlugins = table("workflow_plugins", {
    workflow_id: number().notNull(),
    plugin_id: number().notNull(),
  });

  const logs = table("logs", {
    id: key(),
    level: text().notNull(),
    message: text().notNull(),
    workflow_id: number().notNull(),
    execution_id: number(),
    created_at: time().notNull(),
    metadata: jsonb(),
  });

  const deliveries = table("deliveries", {
    id: key(),
    workflow_id: number().notNull(),
    url: text().notNull(),
    event: text().notNull(),
    status: text().notNull(),
    attempts: number().notNull(),
    response_code: number(),
    error: text(),
    payload: text().notNull(),
    created_at: time().notNull(),
    delivered_at: time(),
  });

  return { users, sessions, plugins, workflows, workflowPlugins, logs, deliveries };
}
