//! How the schema of a database relates to the one that this build knows.
//! Looking needs read rights only.

use std::collections::BTreeSet;
use std::fmt;

use sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::error::{Doing, Error};

/// The table that records which steps were applied. It is not SeaORM's usual
/// `seaql_migrations`, so that an application's own migrations can live in the
/// same database.
pub const HISTORY: &str = "aura_migrations";

/// How the schema of a database relates to the one that this build knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing of ours is there.
    Empty,
    /// Every step was applied, and no other.
    Current,
    /// Steps are missing.
    Behind {
        /// The missing steps, oldest first.
        pending: Vec<String>,
    },
    /// Every step was applied, and others that a newer build knows.
    Ahead {
        /// The steps that this build doesn't know.
        unknown: Vec<String>,
    },
    /// Steps are missing, and there are others that this build doesn't know:
    /// two branches have met in one database.
    Diverged {
        /// The missing steps, oldest first.
        pending: Vec<String>,
        /// The steps that this build doesn't know.
        unknown: Vec<String>,
    },
    /// There are tables with our names that our migrations did not make.
    Foreign {
        /// Those tables.
        tables: Vec<String>,
    },
}

impl State {
    /// The state of a database with these applied steps and tables.
    pub(crate) fn of(
        known: &[&str],
        owned: &[&str],
        applied: &[String],
        tables: &BTreeSet<String>,
    ) -> Self {
        if applied.is_empty() {
            let foreign: Vec<String> = owned
                .iter()
                .filter(|table| tables.contains(**table))
                .map(|table| (*table).to_owned())
                .collect();
            return if foreign.is_empty() {
                Self::Empty
            } else {
                Self::Foreign { tables: foreign }
            };
        }
        let pending: Vec<String> = known
            .iter()
            .filter(|name| !applied.iter().any(|done| done == *name))
            .map(|name| (*name).to_owned())
            .collect();
        let unknown: Vec<String> = applied
            .iter()
            .filter(|done| !known.contains(&done.as_str()))
            .cloned()
            .collect();
        match (pending.is_empty(), unknown.is_empty()) {
            (true, true) => Self::Current,
            (false, true) => Self::Behind { pending },
            (true, false) => Self::Ahead { unknown },
            (false, false) => Self::Diverged { pending, unknown },
        }
    }

    /// What a service asks before it starts: `Ok` when every step that it
    /// needs was applied. A schema that is ahead is fine (a rolling deploy has
    /// begun) and is logged as a warning.
    pub fn require(self) -> Result<(), Error> {
        match self {
            Self::Current => Ok(()),
            Self::Ahead { .. } => {
                tracing::warn!(target: "aura_db::migration", "{self}");
                Ok(())
            }
            other => Err(Error::Schema(other)),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str(
                "the database has no schema yet; create it with `cargo run -p migration -- up` (a service: DB_SYNCHRONIZE=true)",
            ),
            Self::Current => f.write_str("the schema is up to date"),
            Self::Behind { pending } => write!(
                f,
                "the schema is behind by {} ({}); apply with `cargo run -p migration -- up` (a service: DB_SYNCHRONIZE=true)",
                count(pending), pending.join(", "),
            ),
            Self::Ahead { unknown } => write!(
                f,
                "the schema is newer than this build by {} ({}); update this program",
                count(unknown), unknown.join(", "),
            ),
            Self::Diverged { pending, unknown } => write!(
                f,
                "the schema has {} that this build does not know ({}) and lacks {} ({}); use the build that migrated it",
                count(unknown), unknown.join(", "), count(pending), pending.join(", "),
            ),
            Self::Foreign { tables } => write!(
                f,
                "the database has tables with our names ({}) that another program made: there is no history in {HISTORY}. \
                 Nothing was changed; point DB_PATH, DB_NAME or DB_SCHEMA at an empty place",
                tables.join(", "),
            ),
        }
    }
}

fn count(steps: &[String]) -> String {
    match steps {
        [_] => "one migration".to_owned(),
        more => format!("{} migrations", more.len()),
    }
}

/// The names of the tables, and of what else takes a table's name, in the
/// connection's schema; on SQLite, which doesn't tell them apart, in lower case.
pub async fn tables<C: ConnectionTrait>(connection: &C) -> Result<BTreeSet<String>, Error> {
    let backend = connection.get_database_backend();
    let rows = connection
        .query_all_raw(Statement::from_string(backend, tables_sql(backend)))
        .await
        .doing("listing the tables")?;
    rows.iter()
        .map(|row| row.try_get("", "name"))
        .collect::<Result<_, _>>()
        .doing("listing the tables")
}

pub(crate) fn tables_sql(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => {
            "SELECT c.relname::text AS name FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
        }
        _ => "SELECT lower(name) AS name FROM sqlite_schema WHERE type IN ('table', 'view')",
    }
}

/// SQL that returns a row where there is a history. Much cheaper on PostgreSQL than a list
/// of all tables; a service asks it at each start.
pub(crate) fn history_exists(backend: DbBackend) -> String {
    match backend {
        DbBackend::Postgres => format!(
            "SELECT 'yes' WHERE to_regclass(quote_ident(current_schema()) || '.{HISTORY}') IS NOT NULL"
        ),
        _ => format!(
            "SELECT 'yes' WHERE EXISTS (SELECT 1 FROM sqlite_schema WHERE lower(name) = '{HISTORY}')"
        ),
    }
}

/// The applied steps, oldest first; none when there is no history.
pub async fn applied<C: ConnectionTrait>(connection: &C) -> Result<Vec<Applied>, Error> {
    let backend = connection.get_database_backend();
    let found = connection
        .query_one_raw(Statement::from_string(backend, history_exists(backend)))
        .await
        .doing("looking for the history")?;
    if found.is_none() {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT version, applied_at FROM {HISTORY} ORDER BY version");
    let rows = connection
        .query_all_raw(Statement::from_string(backend, sql))
        .await
        .doing("reading the history")?;
    rows.iter()
        .map(|row| {
            Ok(Applied {
                name: row.try_get("", "version")?,
                at: row.try_get("", "applied_at")?,
            })
        })
        .collect::<Result<_, _>>()
        .doing("reading the history")
}

/// A line of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The step.
    pub name: String,
    /// When, in seconds since 1970 (UTC).
    pub at: i64,
}
