// The tables as the migrations of this workspace made them, and the application's own.
import { EntitySchema } from "typeorm";

/** The entities for "sqlite" or "postgres". */
export function entities(backend) {
  const sqlite = backend === "sqlite";

  // SQLite's columns hold RFC 3339 text, to which our schema holds everybody.
  const moment = {
    to: (time) => (time instanceof Date ? time.toISOString().replace("Z", "000+00:00") : time),
    from: (text) => (typeof text === "string" ? new Date(text) : text),
  };
  const time = (more) => (sqlite ? { type: "text", transformer: moment, ...more } : { type: "timestamptz", ...more });
  const json = { type: sqlite ? "simple-json" : "json", nullable: true };
  const text = { type: "text" };
  const number = { type: "int" };
  const flag = { type: "boolean" };
  const key = { type: "int", primary: true, generated: "increment" };
  const maybe = (column) => ({ ...column, nullable: true });

  const managed = {
    created_at: time(),
    updated_at: time(),
    deleted_at: time({ nullable: true, deleteDate: true }),
    created_by: maybe(number),
    updated_by: maybe(number),
  };

  const User = new EntitySchema({
    name: "User",
    tableName: "users",
    columns: {
      id: key,
      name: text,
      email: text,
      hashed_password: text,
      role: text,
      is_active: flag,
      ...managed,
    },
  });

  const Session = new EntitySchema({
    name: "Session",
    tableName: "sessions",
    columns: {
      id: key,
      token: text,
      user_agent: maybe(text),
      ip_address: maybe(text),
      expires_at: time(),
      last_seen_at: time(),
      created_at: time(),
      updated_at: time(),
      user_id: number,
    },
    relations: {
      user: { type: "many-to-one", target: "User", joinColumn: { name: "user_id" } },
    },
  });

  const Plugin = new EntitySchema({
    name: "Plugin",
    tableName: "plugins",
    columns: {
      id: key,
      name: text,
      description: text,
      version: text,
      author: maybe(text),
      is_enabled: flag,
      ...managed,
      config_schema: json,
    },
  });

  const Workflow = new EntitySchema({
    name: "Workflow",
    tableName: "workflows",
    columns: {
      id: key,
      name: text,
      description: maybe(text),
      status: text,
      version: number,
      owner_id: number,
      deleted_with_owner: flag,
      ...managed,
      settings: json,
      connections: json,
      nodes: json,
      metadata: json,
    },
    relations: {
      owner: { type: "many-to-one", target: "User", joinColumn: { name: "owner_id" } },
      plugins: {
        type: "many-to-many",
        target: "Plugin",
        joinTable: {
          name: "workflow_plugins",
          joinColumn: { name: "workflow_id" },
          inverseJoinColumn: { name: "plugin_id" },
        },
      },
    },
  });

  const Log = new EntitySchema({
    name: "Log",
    tableName: "logs",
    columns: {
      id: key,
      level: text,
      message: text,
      workflow_id: number,
      execution_id: maybe(number),
      created_at: time(),
      metadata: { ...json, type: sqlite ? "simple-json" : "jsonb" },
    },
  });

  const Delivery = new EntitySchema({
    name: "Delivery",
    tableName: "deliveries",
    columns: {
      id: key,
      workflow_id: number,
      url: text,
      event: text,
      status: text,
      attempts: number,
      response_code: maybe(number),
      error: maybe(text),
      payload: text,
      created_at: time(),
      delivered_at: time({ nullable: true }),
    },
    relations: {
      tries: { type: "one-to-many", target: "Attempt", inverseSide: "delivery" },
    },
  });

  const Attempt = new EntitySchema({
    name: "Attempt",
    tableName: "delivery_attempts",
    columns: { id: key, delivery_id: number, response_code: number, ms: number },
    relations: {
      delivery: {
        type: "many-to-one",
        target: "Delivery",
        joinColumn: { name: "delivery_id" },
        inverseSide: "tries",
      },
    },
  });

  return { User, Session, Plugin, Workflow, Log, Delivery, Attempt };
}
