//! What TypeORM was to AURA's old data layer: the part that runs statements and
//! knows no table. AURA's own tables and an application's enter it alike.
//!
//! * [`Statement`]: SQL with the values of its placeholders, for either database.
//! * [`Batcher`]: requests of concurrent callers, sent in one statement.
//! * [`sqlite`]: SQLite inside the process.

mod batcher;
pub mod sqlite;
mod statement;

pub use batcher::{Batch, Batcher, Leader, Slot};
pub use statement::{Statement, StatementKind};
