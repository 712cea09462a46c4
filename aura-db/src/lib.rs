//! The data layer of AURA on SQLite or PostgreSQL: the one crate that its
//! services depend on.
//!
//! ```no_run
//! use aura_db::entity::{Live, Role, users};
//! use aura_db::sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let db = aura_db::Database::from_env().await?; // DB_* variables, or .env
//! let admins = users::Entity::live()
//!     .filter(users::COLUMN.role.eq(Role::Admin))
//!     .all(db.reader())
//!     .await?;
//! println!("{} admins; {:?}", admins.len(), db.health().await?.schema);
//! db.close().await;
//! # Ok(()) }
//! ```
//!
//! * [`Database`] opens the connections, checks that the schema is the one
//!   that this build needs, and tells how it is ([`Database::health`]).
//! * [`entity`] has the tables, [`Config`] the settings, [`Migrator`] and
//!   [`migration`] the schema.
//! * [`password`] hashes passwords.

mod clock;
mod database;
mod error;
mod health;
pub mod password;

pub use clock::{Clock, SystemClock};
pub use connection::{Config, Environment, Pool, Postgres, Source, Target, Tls, TlsMode};
pub use database::Database;
pub use entity;
pub use error::Error;
pub use health::{Health, PoolHealth, SchemaHealth};
pub use migration::{self, Migrator};
pub use sea_orm;
pub use secrecy::{self, SecretString};

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
