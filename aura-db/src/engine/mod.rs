//! What every repository stands on: one handle that knows where its statements
//! go, who acts and what the actor may do.
//!
//! * [`handle`]: the handle, its permissions, and the frame around each
//!   operation (span, numbers, transaction when it needs one).
//! * [`row`]: rows of either driver, read by position.
//! * [`run`]: the narrow waist. Every statement of this crate goes through it;
//!   nothing else calls `.one(db)` or `.all(db)`.
//! * [`embedded`] and [`server`]: the connections to a SQLite file and to
//!   PostgreSQL. What is in memory, and what the caller begins on a file, goes
//!   through `SeaORM`'s driver.
//! * [`together`]: what several callers do at the same moment, done at once.
//! * [`transaction`]: begin, commit, savepoints, retries.
//! * [`stats`]: the numbers.

pub(crate) mod begin;
mod build;
pub(crate) mod bulk;
pub(crate) mod embedded;
pub(crate) mod fetch;
pub(crate) mod fixed;
pub(crate) mod handle;
pub(crate) mod row;
pub(crate) mod run;
pub(crate) mod server;
pub(crate) mod session;
mod shapes;
pub(crate) mod stats;
pub(crate) mod together;
pub(crate) mod transaction;

pub(crate) use handle::{Handle, Op, Shared};
