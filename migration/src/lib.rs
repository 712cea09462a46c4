//! The schema of aura-db, step by step. The means to apply it, and an application's own
//! steps, are [`aura_orm::migration`], which this crate re-exports.
//!
//! Only this crate issues DDL for AURA's tables. A run takes one lock and one transaction,
//! on SQLite and on PostgreSQL (see [`Runner`]).
//!
//! An application migrates on start, or refuses to start on a schema that is
//! behind:
//!
//! ```no_run
//! # async fn example() -> Result<(), migration::Error> {
//! let config = connection::Config::from_env()?;
//! migration::up(&config).await?;
//!
//! let connections = connection::connect(&config).await?;
//! let state = migration::state(&connections.reader).await?;
//! migration::runner().require(state)?;
//! # Ok(()) }
//! ```
//!
//! # How to add a step
//!
//! 1. `cargo run -p migration -- generate add_tags` writes the file and lists it.
//! 2. Write `up` and a `down` that undoes all of it, with [`columns::Columns`];
//!    list the tables that it creates in `tables`, and those of which `down`
//!    drops columns in `destroys`, so that `down` asks before it deletes rows.
//! 3. `just entities` generates the entities, the snapshots and the diagram.

mod migrations;

use std::sync::{Arc, OnceLock};

use connection::Config;
use sea_orm::sea_query::IntoIden;
use sea_orm::{ConnectionTrait, DynIden};
use sea_orm_migration::{MigrationTrait, MigratorTrait};

pub use aura_orm::migration::*;
pub use migrations::all as steps;

/// The table that records which steps were applied. It is not SeaORM's usual
/// `seaql_migrations`, so that an application's own migrations can live in the
/// same database.
pub const HISTORY: &str = "aura_migrations";

/// Returns the runner of aura-db's own schema.
#[must_use]
pub fn runner() -> Runner {
    static RUNNER: OnceLock<Runner> = OnceLock::new();
    let build = || {
        Runner::builder()
            .tool("cargo run -p migration --")
            .version(env!("CARGO_PKG_VERSION"))
            .history(HISTORY)
            .steps(steps())
            .apply_hint("`cargo run -p migration -- up` (a service: DB_SYNCHRONIZE=true)")
            .snapshots(
                include_str!("../snapshots/sqlite.json"),
                include_str!("../snapshots/postgres.json"),
            )
            .manifest_dir(env!("CARGO_MANIFEST_DIR"))
            .build()
    };
    RUNNER.get_or_init(build).clone()
}

/// Applies the pending steps, and returns those that it applied. The log names each, and
/// what it waits for.
///
/// # Errors
///
/// Those of [`Runner::run`].
pub async fn up(config: &Config) -> Result<Vec<Done>, Error> {
    runner().up(config).await
}

/// Reads how the schema of a database relates to the one that this build knows.
///
/// # Errors
///
/// [`Error::Database`] when the database can't be read.
pub async fn state<C: ConnectionTrait>(connection: &C) -> Result<State, Error> {
    runner().state(connection).await
}

/// Lists what of a live schema is not as the steps would have made it. Only our own
/// tables are looked at, and read rights suffice.
///
/// # Errors
///
/// [`Error::Database`] when the database can't be read.
pub async fn check<C: ConnectionTrait>(connection: &C) -> Result<Vec<Difference>, Error> {
    runner().check(connection).await
}

/// The steps for SeaORM's own tools. They know nothing of the lock and the
/// transaction; [`up`] is the way to apply them.
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let adapted = |step| Box::new(SeaOrmMigration(Arc::from(step))) as Box<dyn MigrationTrait>;
        steps().into_iter().map(adapted).collect()
    }

    fn migration_table_name() -> DynIden {
        HISTORY.into_iden()
    }
}
