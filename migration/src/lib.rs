//! The schema of aura-db, step by step, and the means to apply it.
//!
//! Only this crate issues DDL. A run takes one lock and one transaction, on
//! SQLite and on PostgreSQL (see [`Runner`]).
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
//! migration::state(&connections.reader).await?.require()?;
//! # Ok(()) }
//! ```
//!
//! # How to add a step
//!
//! 1. `cargo run -p migration -- generate add_tags` writes the file and lists it.
//! 2. Write `up` and a `down` that undoes all of it, with [`columns::Columns`];
//!    list the tables that it creates in `tables`, and those of which `down`
//!    drops columns in `loses`, so that `down` asks before it loses rows.
//! 3. `just entities` generates the entities, the snapshots and the diagram.

pub mod catalog;
pub mod change;
pub mod columns;
mod error;
mod lock;
mod migrations;
mod references;
mod runner;
mod state;

use connection::Config;
use sea_orm::{ConnectionTrait, DynIden};
use sea_orm_migration::{MigrationTrait, MigratorTrait};

pub use catalog::{Catalog, Difference};
pub use error::Error;
pub use runner::{Direction, Done, Event, Loss, Plan, QueryNames, Runner};
pub use state::{Applied, HISTORY, State, applied, tables};

/// Applies the pending steps, and gives those that it applied. Logs each, and
/// whom it waits for.
pub async fn up(config: &Config) -> Result<Vec<Done>, Error> {
    Runner::default().run(config, Plan::Up(None), log).await
}

/// How the schema of a database relates to the one that this build knows.
pub async fn state<C: ConnectionTrait>(connection: &C) -> Result<State, Error> {
    Runner::default().state(connection).await
}

/// What of a live schema is not as the steps would have made it. Only our own
/// tables are looked at, and read rights suffice.
pub async fn check<C: ConnectionTrait>(connection: &C) -> Result<Vec<Difference>, Error> {
    let runner = Runner::default();
    let tables: Vec<&str> = runner.owned().into_iter().chain([HISTORY]).collect();
    let live = Catalog::read(connection, &tables).await?;
    Ok(catalog::differences(
        &live,
        &Catalog::expected(connection.get_database_backend()),
    ))
}

/// Writes events to the log.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is handed to Runner::run as it is"
)]
pub fn log(event: Event<'_>) {
    match event {
        Event::Waiting { holder } => {
            tracing::warn!(target: "aura_db::migration", "waiting for {holder}");
        }
        Event::Done(Done {
            name,
            direction,
            micros,
        }) => {
            tracing::info!(target: "aura_db::migration", name, ?direction, micros, "migration");
        }
    }
}

/// The steps for SeaORM's own tools. They know nothing of the lock and the
/// transaction; [`up`] is the way to apply them.
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        sea_orm_migration::MigratorTraitSelf::migrations(&Runner::default())
    }

    fn migration_table_name() -> DynIden {
        sea_orm_migration::MigratorTraitSelf::migration_table_name(&Runner::default())
    }
}
