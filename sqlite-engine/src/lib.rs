//! SQLite inside the process.
//!
//! A statement costs SQLite a few microseconds, and a hop to another thread and
//! back costs ten times that. So reads run where they are called, on read-only
//! connections and under a budget of time; one that takes longer is begun anew
//! on a thread that may block. Writes go through one connection, one after the
//! other. Those that wait together share a commit, each under its own
//! savepoint, and each is answered after the commit.
//!
//! * [`Readers`]: reads, the budget, and how a read is given up.
//! * [`Writer`]: the line of those who write.
//! * [`Write`]: statements that are done together or not at all.
//!
//! What holds:
//!
//! * What was answered with `Ok` is committed.
//! * A caller who hangs up leaves nothing behind: its read ends, its
//!   statements are all done or none.
//! * An error or a panic in one write touches no other.

mod bind;
mod connection;
mod error;
mod file;
mod readers;
mod value;
mod write;
mod writer;

pub use bind::{Statement, time_as_text};
pub use connection::Options;
pub use error::{AsEngine, Error};
pub use file::DatabaseFile;
pub use readers::{Readers, Snapshot};
pub use rusqlite::{Connection, Row, types::ValueRef};
pub use value::value;
pub use write::{Pace, Write};
pub use writer::{Exclusion, Writer};
