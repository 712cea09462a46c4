//! A schema as data: read from a live database, kept as a snapshot in the
//! repository, and compared.
//!
//! Reading needs no more than the right to connect. Only the tables and domains that are
//! asked for are looked at.

mod diff;
mod normal;
mod postgres;
mod rights;
mod sequences;
mod sqlite;

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{ConnectionTrait, DbBackend, QueryResult, Statement};
use serde::{Deserialize, Serialize};

pub use diff::{Difference, Kind, differences};

pub(super) use rights::missing as missing_rights;
pub(super) use sequences::behind as sequences_behind;

use super::error::{Context, Error};

/// The tables of a schema, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// The tables, by name.
    pub tables: BTreeMap<String, Table>,
    /// The domains that the steps make, by name, and the types that they stand
    /// for. SQLite has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub domains: BTreeMap<String, String>,
}

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The columns, by name: their order differs between a table that was made
    /// at once and one that grew.
    pub columns: BTreeMap<String, Column>,
    /// The columns of the primary key, in its order.
    pub primary_key: Vec<String>,
    /// The indexes beside the primary key's, by name.
    pub indexes: BTreeMap<String, Index>,
    /// The foreign keys, by their columns (`a, b`).
    pub foreign_keys: BTreeMap<String, ForeignKey>,
    /// The conditions, as the database prints them.
    pub checks: BTreeSet<String>,
    /// The triggers, by name; one that doesn't fire says so.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub triggers: BTreeSet<String>,
    /// What else makes it unlike a plain table: row-level security, rules, constraints that
    /// refuse rows and are none of the above.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub extra: BTreeSet<String>,
}

impl Table {
    /// Adds a foreign key. A second one on the same columns has its number behind them.
    fn add_foreign_key(&mut self, columns: &str, key: ForeignKey) {
        if self.foreign_keys.get(columns) == Some(&key) {
            return;
        }
        let numbered = (2..=99).map(|number| format!("{columns} ({number})"));
        let free = std::iter::once(columns.to_owned())
            .chain(numbered)
            .find(|name| !self.foreign_keys.contains_key(name));
        if let Some(name) = free {
            self.foreign_keys.insert(name, key);
        }
    }
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The type, as the database prints it, with collation and generation.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it may be null.
    pub nullable: bool,
    /// The default, as the database prints it.
    pub default: Option<String>,
}

/// One index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Its columns or expressions, in its order.
    pub columns: Vec<String>,
    /// Whether it is unique.
    pub unique: bool,
    /// The condition of a partial index.
    pub predicate: Option<String>,
    /// What else makes it unlike a plain index: another method than the usual
    /// one, another order or collation, that it is not valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<String>,
}

/// One foreign key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// The table that it refers to.
    pub table: String,
    /// The columns that it refers to.
    pub columns: Vec<String>,
    /// What happens to the rows when their parent goes.
    pub on_delete: String,
    /// What happens to the rows when their parent's key changes.
    pub on_update: String,
    /// What keeps it from holding at once and for every row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<String>,
}

impl Catalog {
    /// Reads those of these tables and domains that exist.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when the database can't be read.
    pub async fn read<C: ConnectionTrait>(
        connection: &C,
        tables: &[&str],
        domains: &[&str],
    ) -> Result<Self, Error> {
        match connection.get_database_backend() {
            DbBackend::Postgres => postgres::read(connection, tables, domains).await,
            _ => sqlite::read(connection, tables).await,
        }
    }
}

async fn rows<C: ConnectionTrait>(connection: &C, sql: String) -> Result<Vec<QueryResult>, Error> {
    connection
        .query_all_raw(Statement::from_string(
            connection.get_database_backend(),
            sql,
        ))
        .await
        .context("reading the schema")
}
