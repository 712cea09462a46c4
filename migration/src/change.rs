//! A migration as data: the statements that it runs, per backend. So the same
//! list is executed by `up`, and printed by `--dry-run`.

use sea_orm::sea_query::{
    IndexCreateStatement, PostgresQueryBuilder, SqliteQueryBuilder, TableCreateStatement,
};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Schema};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, seaql_migrations};

/// One step of the schema.
pub trait Change: Send + Sync {
    /// Its name in the history: `m20261122_000001_create_users`.
    fn name(&self) -> &'static str;

    /// The tables that exist because of this step, in the order of creation.
    fn tables(&self) -> &'static [&'static str] {
        &[]
    }

    /// The tables of which [`Change::down`] throws rows or columns away.
    fn loses(&self) -> &'static [&'static str] {
        self.tables()
    }

    /// The statements that apply it.
    fn up(&self, backend: DbBackend) -> Vec<String>;

    /// The statements that reverse it. They undo all of [`Change::up`].
    fn down(&self, backend: DbBackend) -> Vec<String> {
        let _ = backend;
        self.tables()
            .iter()
            .rev()
            .map(|table| format!("DROP TABLE \"{table}\""))
            .collect()
    }
}

/// A [`Change`] where SeaORM wants a `MigrationTrait`.
pub struct Step(pub Box<dyn Change>);

impl MigrationName for Step {
    fn name(&self) -> &str {
        self.0.name()
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, self.0.up(manager.get_database_backend())).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, self.0.down(manager.get_database_backend())).await
    }
}

async fn run(manager: &SchemaManager<'_>, statements: Vec<String>) -> Result<(), DbErr> {
    for statement in statements {
        manager
            .get_connection()
            .execute_unprepared(&statement)
            .await?;
    }
    Ok(())
}

/// The SQL of a `CREATE TABLE`.
#[must_use]
pub fn create_table(backend: DbBackend, table: &TableCreateStatement) -> String {
    match backend {
        DbBackend::Postgres => table.to_string(PostgresQueryBuilder),
        _ => table.to_string(SqliteQueryBuilder),
    }
}

/// The SQL of a `CREATE INDEX`.
#[must_use]
pub fn create_index(backend: DbBackend, index: &IndexCreateStatement) -> String {
    match backend {
        DbBackend::Postgres => index.to_string(PostgresQueryBuilder),
        _ => index.to_string(SqliteQueryBuilder),
    }
}

/// The SQL that creates the history.
#[must_use]
pub fn create_history(backend: DbBackend) -> String {
    let mut table = Schema::new(backend).create_table_from_entity(seaql_migrations::Entity);
    create_table(backend, table.table(crate::HISTORY).if_not_exists())
}
