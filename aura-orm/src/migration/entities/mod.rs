//! The difference between the schema that the steps make and what entities declare, as the
//! statements of a step.
//!
//! The steps run on an empty SQLite database in memory, and the tables of the entities on
//! another one, so that both are read in the same form. No database of the application's is
//! looked at: what one of them has been through says nothing about the next.

mod compare;
mod declared;

use connection::Config;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, TransactionTrait};
use serde::Serialize;

use self::declared::Declared;
use super::error::{Context, Error};
use super::{Catalog, Difference, Direction, Runner, create_table, step};

pub(super) use self::declared::EntityTable;

/// The statements of a part of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Statements {
    /// On SQLite.
    pub sqlite: Vec<String>,
    /// On PostgreSQL.
    pub postgres: Vec<String>,
}

impl Statements {
    fn both(of: impl Fn(DbBackend) -> String) -> Self {
        Self {
            sqlite: vec![of(DbBackend::Sqlite)],
            postgres: vec![of(DbBackend::Postgres)],
        }
    }

    fn same(sql: &str) -> Self {
        Self::both(|_| sql.to_owned())
    }

    /// Returns those of a backend.
    #[must_use]
    pub fn of(&self, backend: DbBackend) -> &[String] {
        match backend {
            DbBackend::Postgres => &self.postgres,
            _ => &self.sqlite,
        }
    }
}

/// One difference between the schema that the steps make and what an entity declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EntityChange {
    /// What differs. Missing is what the entity declares and the schema lacks.
    #[serde(flatten)]
    pub difference: Difference,
    /// The statements that bring the schema to what the entity declares; none where a person
    /// has to write them.
    pub up: Statements,
    /// The statements that reverse `up`; none where it can't be reversed.
    pub down: Statements,
    /// What a person has to decide, or to know, before the step is applied.
    pub decide: Option<String>,
    /// Whether `up` deletes what the schema holds.
    pub drops: bool,
}

impl Runner {
    /// Compares the schema that the steps make with the entities of
    /// [`RunnerBuilder::entity`](super::RunnerBuilder::entity). Returns an empty list when
    /// the steps make what the entities declare, so a test can ask it.
    ///
    /// Compared are tables, columns with their types and whether they may be null, primary
    /// keys, foreign keys and indexes that an entity declares. Defaults, conditions, and
    /// what only the schema has beside columns are left alone: other tables, indexes,
    /// foreign keys.
    ///
    /// # Errors
    ///
    /// [`Error::NoEntities`] without entities, [`Error::Replay`] when a step doesn't run on
    /// SQLite, and [`Error::Database`].
    pub async fn entity_changes(&self) -> Result<Vec<EntityChange>, Error> {
        self.settings.validate()?;
        let entities = &self.settings.entities;
        if entities.is_empty() {
            return Err(Error::NoEntities(self.tool()));
        }
        let declared = sorted(entities.iter().map(Declared::of).collect());
        let names: Vec<&str> = declared.iter().map(|table| table.name.as_str()).collect();

        let connection = in_memory().await?;
        self.replay(&connection).await?;
        let schema = Catalog::read(&connection, &names, &[]).await?;
        let _ = connection.close().await;

        let connection = in_memory().await?;
        for table in &declared {
            let create = create_table(DbBackend::Sqlite, &table.table(DbBackend::Sqlite));
            let created = connection.execute_unprepared(&create).await;
            created.context("making the table of an entity")?;
        }
        let wanted = Catalog::read(&connection, &names, &[]).await?;
        let _ = connection.close().await;

        Ok(compare::changes(&declared, &schema, &wanted))
    }

    /// Runs all steps on an empty database, those of the runners before it first.
    async fn replay(&self, connection: &DatabaseConnection) -> Result<(), Error> {
        let mut chain = vec![self];
        while let Some(base) = chain[chain.len() - 1].base() {
            chain.push(base);
        }
        for step in chain.iter().rev().flat_map(|runner| runner.migrations()) {
            let transaction = connection.begin().await.context("opening a transaction")?;
            let done = step::execute(&**step, Direction::Up, &transaction).await;
            done.map_err(|source| Error::Replay {
                name: step.name().to_owned(),
                source,
            })?;
            transaction.commit().await.context("committing a step")?;
        }
        Ok(())
    }
}

/// Opens an empty database without foreign keys, as a run has them.
async fn in_memory() -> Result<DatabaseConnection, Error> {
    let connection = connection::connect_exclusive(&Config::memory()).await?;
    let off = connection
        .execute_unprepared("PRAGMA foreign_keys = OFF")
        .await;
    off.context("switching foreign keys")?;
    Ok(connection)
}

/// Puts the tables that others refer to first.
fn sorted(mut tables: Vec<Declared>) -> Vec<Declared> {
    let mut sorted: Vec<Declared> = Vec::new();
    while !tables.is_empty() {
        let waits = |table: &Declared| {
            let mut references = table.references.iter().map(|key| &key.table);
            references.any(|parent| {
                *parent != table.name && tables.iter().any(|other| other.name == *parent)
            })
        };
        // In a circle there is none, and the first is as good as any.
        let next = tables.iter().position(|table| !waits(table)).unwrap_or(0);
        sorted.push(tables.remove(next));
    }
    sorted
}
