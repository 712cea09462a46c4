//! Migrations of any schema: steps as data, and a runner with a command line.
//!
//! A run takes one lock and one transaction, on SQLite and on PostgreSQL (see [`Runner`]).
//! Several schemas live in one database, each with a [`Runner`] and a history of its own,
//! and foreign keys from one to another.
//!
//! ```
//! use aura_orm::migration::columns::Columns;
//! use aura_orm::migration::{DbBackend, Migration, Runner};
//!
//! struct CreateNotes;
//!
//! impl Migration for CreateNotes {
//!     fn name(&self) -> &'static str {
//!         "m20261201_000001_create_notes"
//!     }
//!
//!     fn tables(&self) -> &'static [&'static str] {
//!         &["notes"]
//!     }
//!
//!     fn up(&self, backend: DbBackend) -> Vec<String> {
//!         let columns = Columns::of(backend);
//!         let mut table = columns.table("notes");
//!         table.col(columns.text("body").not_null());
//!         columns.sql(&table, &[])
//!     }
//! }
//!
//! # async fn example(config: connection::Config) -> Result<(), aura_orm::migration::Error> {
//! let runner = Runner::builder()
//!     .tool("notes")
//!     .history("notes_migrations")
//!     .steps(vec![Box::new(CreateNotes)])
//!     .build();
//! runner.up(&config).await?;
//! # Ok(()) }
//! ```
//!
//! With the feature `cli`, `cli::main(runner)` is the whole `main` of a tool with `up`,
//! `down`, `status`, `check` and the rest.
//!
//! # How to add a step
//!
//! 1. `TOOL generate add_tags` writes the file and lists it; with `--from-entities` it has
//!    the statements that bring the schema to the entities of [`RunnerBuilder::entity`].
//! 2. Write [`Migration::up`], and a [`Migration::down`] that undoes all of it, with
//!    [`columns::Columns`]; list the tables that it creates in [`Migration::tables`], and
//!    those of which `down` drops columns in [`Migration::destroys`], so that `down` asks
//!    before it deletes rows.
//! 3. `TOOL up` and `TOOL snapshot`, on each backend.
//!
//! A step that was released is never edited.

mod blocker;
mod builder;
pub mod catalog;
#[cfg(feature = "cli")]
pub mod cli;
pub mod columns;
mod entities;
mod error;
mod event;
mod history;
mod indexes;
mod lock;
mod outside;
mod references;
mod repair;
mod run;
mod runner;
mod segment;
mod state;
mod step;
mod times;

pub use async_trait::async_trait;
pub use sea_orm::{DatabaseTransaction, DbBackend};

pub use blocker::Blocker;
pub use builder::RunnerBuilder;
pub use catalog::{Catalog, Difference};
pub use entities::{EntityChange, Statements};
pub use error::Error;
pub use event::{Direction, Done, Event, Loss, Plan, log};
pub use history::{Applied, tables};
pub use indexes::{ExchangeIndexes, exchange_indexes};
pub use repair::Resolution;
pub use runner::{QueryNames, Runner};
pub use state::State;
pub use step::{
    BatchMigration, CreateTable, DataMigration, Migration, SeaOrmMigration, StepError,
    create_index, create_index_concurrently, create_table, drop_index, drop_index_concurrently,
};
pub use times::MicrosecondTimes;
