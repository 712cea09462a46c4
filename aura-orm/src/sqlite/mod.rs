//! SQLite inside the process.
//!
//! A statement costs SQLite a few microseconds, and a hop to another thread and
//! back costs ten times that. So reads run in the calling task, on read-only
//! connections and within a time budget; a read that exceeds it starts again on
//! a thread that may block. Writes go through one connection, one after the
//! other. Writes that wait at the same time share a commit, each under its own
//! savepoint, and each is acknowledged after the commit.
//!
//! * [`Readers`]: the read-only connections, the budget, and cancellation.
//! * [`Writer`]: the queue for the connection that writes.
//! * [`Write`]: statements that are committed together or not at all.
//!
//! What holds:
//!
//! * A write that returned `Ok` is committed, in the file at its path.
//! * A dropped future leaves nothing behind: its read ends, its statements are
//!   all committed or none. A write that runs no statement while others wait, as in a
//!   future that is no longer polled, is rolled back.
//! * An error or a panic in one write affects no other.
//! * The pages of deleted rows are given back to the file system while no write is under
//!   way, except some that are kept for rows to come.

mod bind;
mod connection;
mod disk_wait;
mod error;
mod file;
mod free_pages;
mod readers;
mod row;
mod value;
mod write;
mod writer;
mod writer_connection;

pub(crate) use bind::stored;
pub use bind::time_as_text;
pub use connection::Options;
pub use error::Error;
pub use file::DatabaseFile;
pub use readers::{Readers, Snapshot};
pub(crate) use row::Row;
pub use rusqlite::{Connection, types::ValueRef};
pub use value::value;
pub use write::{Owner, Write};
pub use writer::{WriteLock, Writer};
