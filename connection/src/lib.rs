//! `DB_*` variables to a checked [`Config`] to database connections.
//!
//! Two invariants of the workspace live here: only this crate reads the
//! environment, and nothing else opens a database.
//!
//! ```no_run
//! # async fn example() -> Result<(), connection::Error> {
//! let config = connection::Config::from_env()?;
//! println!("{}", config.describe()); // where each setting came from, secrets hidden
//! let connections = connection::connect(&config).await?;
//! # connections.close().await; Ok(()) }
//! ```

#![expect(
    clippy::disallowed_methods,
    reason = "the one crate that reads the environment"
)]

mod cancel;
mod config;
mod connect_error;
mod connector;
mod describe;
mod dotenv;
mod environment;
mod error;
mod open;
mod postgres;
mod read;
mod refusal;
mod sqlite;
mod tls;
mod trouble;
mod url;
mod variables;

pub use cancel::Canceller;
pub use config::{Config, Durability, Pool, Postgres, Target, Tls, TlsMode};
pub use connect_error::ConnectError;
pub use connector::{Connector, Session, SessionConnection};
pub use describe::Setting;
pub use environment::{Environment, Source};
pub use error::{Error, Problem, causes, root_cause};
pub use open::{
    Connections, NO_TIME_LIMITS, connect, connect_exclusive, connect_memory, connect_read_only,
};
pub use sqlite::{LIKE_PRAGMA, busy_timeout, memory_name, prepare_sqlite};
pub use trouble::{Trouble, trouble};
pub use variables::{VARIABLES, Variable, variable};
