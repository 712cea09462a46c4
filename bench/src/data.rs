//! The rows that everybody is measured on: the same to the byte in every run.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{Result, deliveries};

/// Rows in one statement while filling.
const BATCH: i64 = 1_000;

/// Rows in one list.
pub(crate) const PAGE: u64 = 50;

/// Entries in one batch.
pub(crate) const ENTRIES: u64 = 1_000;

/// How far apart the places in the logs are from which pages are read, and how
/// many there are.
pub(crate) const PLACES: i64 = 16;

/// How many rows there are. Ids count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub users: i64,
    pub sessions: i64,
    pub plugins: i64,
    pub workflows: i64,
    pub logs: i64,
    /// How many log entries are newer than the pages that are read.
    pub depth: i64,
    pub deliveries: i64,
    /// How many workflows have deliveries.
    pub hooks: i64,
}

impl Shape {
    /// What figures are taken on.
    pub(crate) const FULL: Self = Self {
        users: 100,
        sessions: 5_000,
        plugins: 20,
        workflows: 6_000,
        logs: 200_000,
        depth: 100_000,
        deliveries: 10_000,
        hooks: 100,
    };

    /// Enough for every operation to find what it looks for.
    pub(crate) const QUICK: Self = Self {
        users: 4,
        sessions: 40,
        plugins: 5,
        workflows: 240,
        logs: 2_400,
        depth: 1_000,
        deliveries: 480,
        hooks: 4,
    };

    /// The id that the page at this place comes before, newest first.
    pub(crate) fn before(self, place: i64) -> i64 {
        self.logs - self.depth - PLACES.min(place) * PAGE.cast_signed() + 1
    }
}

/// The token that opens this session. It has the length of a real one.
pub(crate) fn token(session: i64) -> String {
    format!("bench-{session:037}")
}

/// What is stored of a token.
pub(crate) fn digest(token: &str) -> String {
    use std::fmt::Write;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(token.as_bytes()) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// A log entry to be written.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub message: String,
    pub workflow: i64,
    pub metadata: Value,
}

impl Entry {
    pub(crate) const LEVEL: &str = "info";

    pub(crate) fn new(number: u64, workflow: i64) -> Self {
        Self {
            message: format!("Node HTTP Request {number} finished with status 200 after 42 ms"),
            workflow,
            metadata: json!({"node": "HTTP Request", "run": number, "ms": 42}),
        }
    }
}

/// The time as SQLite's columns hold it.
pub(crate) fn sqlite_time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, false)
}

/// The present moment.
pub(crate) fn now() -> DateTime<Utc> {
    std::time::SystemTime::now().into()
}

/// The first moment of 2026, so many minutes on.
pub(crate) fn minute(count: i64) -> String {
    sqlite_time(DateTime::UNIX_EPOCH + TimeDelta::days(20_454) + TimeDelta::minutes(count))
}

/// A column's name and its type on PostgreSQL.
pub(crate) type Column = (&'static str, &'static str);

const USERS: &[Column] = &[
    ("name", "text"),
    ("email", "text"),
    ("hashed_password", "text"),
    ("role", "text"),
    ("created_at", "timestamptz"),
    ("updated_at", "timestamptz"),
];
const SESSIONS: &[Column] = &[
    ("token", "text"),
    ("user_agent", "text"),
    ("ip_address", "text"),
    ("expires_at", "timestamptz"),
    ("last_seen_at", "timestamptz"),
    ("created_at", "timestamptz"),
    ("updated_at", "timestamptz"),
    ("user_id", "bigint"),
];
const PLUGINS: &[Column] = &[
    ("name", "text"),
    ("description", "text"),
    ("version", "text"),
    ("author", "text"),
    ("created_at", "timestamptz"),
    ("updated_at", "timestamptz"),
    ("config_schema", "json"),
];
const WORKFLOWS: &[Column] = &[
    ("name", "text"),
    ("description", "text"),
    ("status", "text"),
    ("owner_id", "bigint"),
    ("created_at", "timestamptz"),
    ("updated_at", "timestamptz"),
    ("created_by", "bigint"),
    ("settings", "json"),
    ("connections", "json"),
    ("nodes", "json"),
    ("metadata", "json"),
];
const WORKFLOW_PLUGINS: &[Column] = &[("workflow_id", "bigint"), ("plugin_id", "bigint")];
const LOGS: &[Column] = &[
    ("level", "text"),
    ("message", "text"),
    ("workflow_id", "bigint"),
    ("created_at", "timestamptz"),
    ("metadata", "jsonb"),
];

/// Fills a migrated database that has no rows.
pub(crate) async fn fill(db: &DatabaseConnection, shape: Shape) -> Result<()> {
    let mut dice = ChaCha8Rng::seed_from_u64(20_261_122);
    let Shape {
        users,
        sessions,
        plugins,
        workflows,
        logs,
        ..
    } = shape;
    insert(db, "users", USERS, users, |id| vec![user(id)]).await?;
    insert(db, "sessions", SESSIONS, sessions, |id| {
        vec![session(id, id % users + 1)]
    })
    .await?;
    insert(db, "plugins", PLUGINS, plugins, |id| vec![plugin(id)]).await?;
    insert(db, "workflows", WORKFLOWS, workflows, |id| {
        vec![workflow(id, id % users + 1, &mut dice)]
    })
    .await?;
    insert(db, "workflow_plugins", WORKFLOW_PLUGINS, workflows, |id| {
        let three = (0..3).map(|nth| json!([id, (id + nth) % plugins + 1]));
        three.collect()
    })
    .await?;
    insert(db, "logs", LOGS, logs, |id| {
        vec![log(id, dice.random_range(1..=workflows))]
    })
    .await?;
    deliveries::fill(db, shape).await?;
    let tidy = match db.get_database_backend() {
        DbBackend::Postgres => "VACUUM ANALYZE",
        _ => "ANALYZE",
    };
    db.execute_unprepared(tidy).await?;
    Ok(())
}

fn user(id: i64) -> Value {
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$nDbnQ1LOA8FKBlAmLzTFLTqKd0mYsHf3PAlwVDXeD5g";
    json!([
        format!("User {id}"),
        format!("user{id}@example.org"),
        hash,
        "editor",
        minute(id),
        minute(id),
    ])
}

fn session(id: i64, user: i64) -> Value {
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    let expires = "2099-12-31T23:59:59.000000+00:00";
    json!([
        digest(&token(id)),
        agent,
        "198.51.100.7",
        expires,
        minute(id),
        minute(id),
        minute(id),
        user,
    ])
}

fn plugin(id: i64) -> Value {
    let schema = json!({
        "type": "object",
        "required": ["url"],
        "properties": {"url": {"type": "string"}, "retries": {"type": "integer", "minimum": 0}},
    });
    json!([
        format!("plugin-{id:03}"),
        format!("Talks to service {id}"),
        "1.2.3",
        "AURA",
        minute(id),
        minute(id),
        schema.to_string(),
    ])
}

/// About 2.7 kB of documents: eight nodes in a row.
fn workflow(id: i64, owner: i64, dice: &mut ChaCha8Rng) -> Value {
    let name = |nth: usize| format!("Step {nth}");
    let nodes: Vec<Value> = (0..8)
        .map(|nth| {
            json!({
                "id": format!("{:016x}", dice.random::<u64>()),
                "name": name(nth),
                "type": "aura-nodes-base.httpRequest",
                "typeVersion": 4,
                "position": [nth * 220, dice.random_range(0..600)],
                "parameters": {
                    "method": "POST",
                    "url": format!("https://api.example.org/v1/items/{}", dice.random_range(0..1_000_000)),
                    "options": {"timeout": 30_000, "retry": true},
                },
            })
        })
        .collect();
    let connections: serde_json::Map<String, Value> = (0..7)
        .map(|nth| {
            let to = json!({"main": [[{"node": name(nth + 1), "type": "main", "index": 0}]]});
            (name(nth), to)
        })
        .collect();
    let settings = json!({"timezone": "Europe/Berlin", "saveExecutionProgress": true});
    let metadata = json!({"tags": ["orders", "nightly"]});
    let description = "Fetches the orders of the night and tells the warehouse about them";
    json!([
        format!("Workflow {id}"),
        description,
        "active",
        owner,
        minute(id),
        minute(id),
        owner,
        settings.to_string(),
        Value::Object(connections).to_string(),
        Value::Array(nodes).to_string(),
        metadata.to_string(),
    ])
}

fn log(id: i64, workflow: i64) -> Value {
    let entry = Entry::new(id.cast_unsigned(), workflow);
    json!([
        Entry::LEVEL,
        entry.message,
        workflow,
        minute(id),
        entry.metadata.to_string()
    ])
}

/// Inserts the rows of the ids from 1 to `count`, in that order. All rows of a
/// statement are one bound JSON array of arrays.
pub(crate) async fn insert(
    db: &DatabaseConnection,
    table: &str,
    columns: &[Column],
    count: i64,
    mut rows: impl FnMut(i64) -> Vec<Value>,
) -> Result<()> {
    let backend = db.get_database_backend();
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let values = columns
        .iter()
        .enumerate()
        .map(|(place, (_, kind))| match backend {
            DbBackend::Postgres => format!("CAST(row ->> {place} AS {kind})"),
            _ => format!("value ->> {place}"),
        });
    let source = match backend {
        DbBackend::Postgres => {
            "jsonb_array_elements(CAST($1 AS jsonb)) WITH ORDINALITY AS all_rows (row, nth) ORDER BY nth"
        }
        _ => "json_each(?1)",
    };
    let sql = format!(
        "INSERT INTO {table} ({}) SELECT {} FROM {source}",
        names.join(", "),
        values.collect::<Vec<_>>().join(", "),
    );
    let mut next = 1;
    while next <= count {
        let end = count.min(next + BATCH - 1);
        let batch: Vec<Value> = (next..=end).flat_map(&mut rows).collect();
        let batch = Value::Array(batch).to_string();
        db.execute_raw(Statement::from_sql_and_values(
            backend,
            &sql,
            [batch.into()],
        ))
        .await?;
        next = end + 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_the_length_of_a_real_one() {
        assert_eq!(token(7).len(), 43);
        assert_eq!(digest("abc").len(), 64);
        assert!(digest("abc").starts_with("ba7816bf"));
    }

    #[test]
    fn every_place_has_a_page_behind_it() {
        for shape in [Shape::FULL, Shape::QUICK] {
            assert_eq!(shape.before(0), shape.logs - shape.depth + 1);
            assert!(shape.before(PLACES) > PAGE.cast_signed());
            assert!(shape.workflows / shape.users > PAGE.cast_signed());
        }
    }
}
