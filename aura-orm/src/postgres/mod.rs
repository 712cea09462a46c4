//! The connections to a PostgreSQL server.
//!
//! A connection is polled by the task that uses it, beside its statement: a task of its own
//! would cost each statement two hops. Between two uses it isn't polled; what the server
//! says meanwhile is read before the next.
//!
//! * [`Pool`]: at most `DB_POOL_MAX` connections; the one that was used last is used next.
//! * [`PooledConnection`]: a connection in use, its prepared statements, and what its
//!   errors say about it.
//! * `key`, `deadlock`: what is asked of the server after a failure.
//! * [`Listener`]: a connection of its own that receives notifications.
//! * `pipeline`: the connections that short reads share, each with a task of its own.
//!
//! What holds:
//!
//! * One statement at a time runs on a connection that isn't shared. Its answer is read to
//!   the end, or the connection is closed and the server is asked to cancel it.
//! * A connection in an unknown state is never used again.
//! * The driver's log has kinds of values, never values.

mod bind;
mod connection;
mod deadlock;
mod error;
mod key;
mod listener;
mod pipeline;
mod pool;
mod session;

pub use connection::{Isolation, PooledConnection};
pub(crate) use error::is_unanswered;
pub use error::{Error, Failure};
pub use listener::Listener;
pub use pool::Pool;
