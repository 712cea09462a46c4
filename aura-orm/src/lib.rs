//! What TypeORM was to AURA's old data layer: the part that runs statements and
//! knows no table. AURA's own tables and an application's enter it alike.
//!
//! * [`Executor`]: runs statements, operations and transactions on either database.
//! * [`Error`]: what went wrong, split by what the caller can do about it.
//! * [`page`]: lists in parts, by cursor or number.
//! * [`Statement`]: SQL with the values of its placeholders, for either database;
//!   [`TypedStatement`]: one whose rows have a type; [`CachedSql`]: one that is built once.
//! * [`row`]: rows of either database, read as models, tuples and structs.
//! * [`Batcher`]: requests of concurrent callers, sent in one statement.
//! * [`sqlite`]: SQLite inside the process.
//! * [`postgres`]: the connections to a server.
//! * [`migration`]: the runner of a schema's steps, and its command line (feature `cli`).
//! * `testing`: throw-away databases for tests (feature `testing`).
//! * [`SeaOrm`]: SeaORM's own connections, for what only they can do.
//!
//! The features `with-uuid`, `with-rust_decimal`, `with-time` and `postgres-array` add the
//! kinds of values that those of `SeaORM` do.

mod batcher;
mod clock;
pub mod error;
mod executor;
mod fetched;
pub mod migration;
pub mod page;
pub mod policy;
pub mod postgres;
pub mod repository;
pub mod row;
mod seaorm;
pub mod sqlite;
mod statement;
mod statement_cache;
#[cfg(feature = "testing")]
pub mod testing;
mod typed_statement;
mod value;

#[doc(hidden)]
pub use sea_orm;

pub use batcher::{Batch, Batcher, Leader, Slot};
pub use clock::{Clock, SystemClock};
pub use error::{Cause, Error, FieldError, at_most};
pub use executor::bulk::{SizedRow, array_literals};
pub use executor::stats::{DatabaseStats, OWN_STATEMENTS, OperationStats};
pub use executor::{Access, CommitHook, Executor, OpenTransaction, Operation, PoolSizes};
pub use fetched::{DecodedRows, Decoding, Fetched, Limit};
pub use page::{Cursor, Page, PageRequest, Sort, UnreadableRow};
pub use policy::{Action, RoleSource, Scope};
pub use postgres::Isolation;
pub use repository::{Repository, RepositoryEntity};
pub use row::{Deserialized, EntityModel, ModelOf, RowDecoder, RowError, RowReader};
pub use seaorm::{SeaOrm, SeaOrmTransaction, SeaOrmWriter};
pub use statement::{Statement, StatementKind};
pub use statement_cache::{CachedSql, CachedStatement};
pub use typed_statement::{RowOf, SelectorRows, TypedQuery, TypedStatement, returning, select};

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// AURA's tables, and the crates that know them.
    const FOREIGN: [&str; 14] = [
        "users",
        "sessions",
        "plugins",
        "workflows",
        "workflow_plugins",
        "workflow_versions",
        "executions",
        "execution_attempts",
        "execution_limits",
        "logs",
        "agents",
        "entity::",
        "aura_db",
        "migration::",
    ];

    /// Looks at the code in a folder, without its tests.
    fn look(folder: &Path, found: &mut impl FnMut(&Path, &str)) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                look(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("text");
            // These tests name what is looked for.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            found(&path, code);
        }
    }

    /// The order of a table's columns is another where one was changed and added again.
    #[test]
    fn no_statement_asks_for_all_columns() {
        let mut found = Vec::new();
        for source in ["src", "../aura-db/src", "../seed/src"] {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
            look(&source, &mut |path, code| {
                let code = code.lines().filter(|line| !line.trim().starts_with("//"));
                let code = code.collect::<Vec<_>>().join("\n").to_uppercase();
                let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
                for words in ["SELECT *", "RETURNING *", ".* FROM"] {
                    if code.contains(words) {
                        found.push(format!("{}: {words}", path.display()));
                    }
                }
            });
        }
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn no_table_of_aura_is_named() {
        let mut found = Vec::new();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        look(&source, &mut |path, code| {
            let words = code.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | ':'));
            let named = words.filter(|word| FOREIGN.iter().any(|name| word.starts_with(name)));
            found.extend(named.map(|word| format!("{}: {word}", path.display())));
        });
        assert_eq!(found, Vec::<String>::new());
        let manifest = include_str!("../Cargo.toml");
        for name in ["entity", "migration", "aura-db", "testdb"] {
            let named = manifest.lines().any(|line| line.starts_with(name));
            assert!(!named, "aura-orm depends on {name}");
        }
    }
}
