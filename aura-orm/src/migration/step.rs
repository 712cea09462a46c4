//! A step as data: the statements that it runs, for each backend. `up` executes the list
//! that `--dry-run` prints.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use sea_orm::sea_query::{
    IndexCreateStatement, PostgresQueryBuilder, SqliteQueryBuilder, TableCreateStatement,
};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, TransactionTrait};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::Direction;
use super::columns::Columns;

/// Why a step failed. `?` makes one of any error.
pub type StepError = Box<dyn std::error::Error + Send + Sync>;

/// One step of a schema.
pub trait Migration: Send + Sync {
    /// Returns its name in the history: `m20261201_000001_create_notes`.
    fn name(&self) -> &'static str;

    /// Lists the tables that exist because of this step, in the order of creation.
    fn tables(&self) -> &'static [&'static str] {
        &[]
    }

    /// Lists the domains that exist because of this step, for `check`.
    fn domains(&self) -> &'static [&'static str] {
        &[]
    }

    /// Lists the tables of which [`Migration::down`] deletes rows or columns.
    fn destroys(&self) -> &'static [&'static str] {
        self.tables()
    }

    /// Returns the statements that apply it.
    fn up(&self, backend: DbBackend) -> Vec<String>;

    /// Returns the statements that reverse it. They undo all of [`Migration::up`].
    fn down(&self, backend: DbBackend) -> Vec<String> {
        let _ = backend;
        self.tables()
            .iter()
            .rev()
            .map(|table| format!("DROP TABLE \"{table}\""))
            .collect()
    }

    /// Returns the part that is Rust, if there is one: `Some(self)`. It runs after the
    /// statements of `up`, and before those of `down`, in the same transaction.
    fn data(&self) -> Option<&dyn DataMigration> {
        None
    }

    /// Returns the part that changes the rows of a table in batches, however many there are:
    /// `Some(self)`. It runs before the statements of `up`, so that they can rely on it, and
    /// only in a step that isn't [transactional](Migration::transactional); [`Migration::down`]
    /// leaves the rows alone.
    fn batches(&self) -> Option<&dyn BatchMigration> {
        None
    }

    /// Whether it runs inside the transaction of the run. Return `false` for what
    /// PostgreSQL refuses there, such as `CREATE INDEX CONCURRENTLY`: the steps before are
    /// committed first, and those after it have a transaction of their own.
    ///
    /// A process that is killed leaves such a step half done, and the next run executes its
    /// statements again: write them with `IF NOT EXISTS` ([`create_index_concurrently`]).
    /// An index that a build left invalid is dropped first. On SQLite the step has a
    /// transaction of its own.
    ///
    /// Where the tables are new, because the history is empty or the run drops them first,
    /// a step that only creates and drops indexes, and validates constraints, is in the
    /// transaction all the same, without `CONCURRENTLY`.
    fn transactional(&self) -> bool {
        true
    }
}

/// A step that creates tables, in one expression:
///
/// ```
/// use aura_orm::migration::CreateTable;
///
/// const CREATE_NOTES: CreateTable =
///     CreateTable::new("m20261201_000001_create_notes", &["notes"], |columns| {
///         let mut table = columns.table("notes");
///         table.col(columns.text("body").not_null());
///         columns.sql(&table, &[])
///     });
/// ```
#[derive(Debug, Clone, Copy)]
pub struct CreateTable {
    name: &'static str,
    tables: &'static [&'static str],
    up: fn(Columns) -> Vec<String>,
}

impl CreateTable {
    /// Creates the step of this name, which makes these tables by what `up` returns and
    /// drops them when it is reversed.
    #[must_use]
    pub const fn new(
        name: &'static str,
        tables: &'static [&'static str],
        up: fn(Columns) -> Vec<String>,
    ) -> Self {
        Self { name, tables, up }
    }
}

impl Migration for CreateTable {
    fn name(&self) -> &'static str {
        self.name
    }

    fn tables(&self) -> &'static [&'static str] {
        self.tables
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        (self.up)(Columns::of(backend))
    }
}

/// A step, or a part of one, in Rust: for rows that SQL can't compute.
///
/// It may run more than once: a run that is rolled back, because a table lock isn't granted,
/// is tried again.
#[async_trait]
pub trait DataMigration: Send + Sync {
    /// Changes rows, in the transaction of the run.
    async fn up(&self, transaction: &DatabaseTransaction) -> Result<(), StepError>;

    /// Undoes it. By default there is nothing to undo.
    async fn down(&self, transaction: &DatabaseTransaction) -> Result<(), StepError> {
        let _ = transaction;
        Ok(())
    }
}

/// Rows that are changed in batches, each in a transaction of its own, while others read and
/// write the table.
///
/// ```
/// # use aura_orm::migration::{BatchMigration, DatabaseTransaction, StepError, async_trait};
/// # use sea_orm::ConnectionTrait;
/// struct LowerCaseNames;
///
/// #[async_trait]
/// impl BatchMigration for LowerCaseNames {
///     async fn batch(
///         &self,
///         transaction: &DatabaseTransaction,
///         _after: Option<String>,
///     ) -> Result<Option<String>, StepError> {
///         let sql = "UPDATE notes SET name = lower(name) WHERE id IN \
///             (SELECT id FROM notes WHERE name <> lower(name) LIMIT 1000)";
///         let changed = transaction.execute_unprepared(sql).await?.rows_affected();
///         Ok((changed > 0).then(String::new))
///     }
/// }
/// ```
#[async_trait]
pub trait BatchMigration: Send + Sync {
    /// Changes the next rows, some thousands, and returns where they end, in words of its
    /// own, for the next call; `None` when none is left. `after` is what the last call
    /// returned, `None` at first.
    ///
    /// A run that was killed begins again, so rows that are changed already must stay as they
    /// are.
    async fn batch(
        &self,
        transaction: &DatabaseTransaction,
        after: Option<String>,
    ) -> Result<Option<String>, StepError>;
}

/// Returns the statements of a step in this direction.
pub(super) fn statements(
    step: &dyn Migration,
    direction: Direction,
    backend: DbBackend,
) -> Vec<String> {
    match direction {
        Direction::Up => step.up(backend),
        Direction::Down => step.down(backend),
    }
}

/// Whether a step runs outside of the run's transaction. Where the tables are `new` an index
/// is built at once, and keeps no writer waiting; and there are no rows to change.
pub(super) fn runs_outside(step: &dyn Migration, direction: Direction, new: bool) -> bool {
    let statements = statements(step, direction, DbBackend::Postgres);
    let is_quick = |sql: &String| is_concurrent(sql) || is_validation(sql);
    let is_for_new = new && statements.iter().all(is_quick);
    !(step.transactional() || is_for_new)
}

/// Whether a statement creates or drops an index concurrently.
pub(super) fn is_concurrent(sql: &str) -> bool {
    let words = sql.split_whitespace().take(4);
    let words: Vec<_> = words.map(str::to_ascii_uppercase).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    matches!(
        words[..],
        ["CREATE" | "DROP", "INDEX", "CONCURRENTLY", ..]
            | ["CREATE", "UNIQUE", "INDEX", "CONCURRENTLY"]
    )
}

/// Whether a statement looks at the rows of a constraint, which is quick where there are none.
fn is_validation(sql: &str) -> bool {
    let words = sql.split_whitespace().take(5);
    let words: Vec<_> = words.map(str::to_ascii_uppercase).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    matches!(words[..], ["ALTER", "TABLE", _, "VALIDATE", "CONSTRAINT"])
}

/// Returns the statement for the inside of a transaction, where nothing is concurrent.
pub(super) fn for_transaction(sql: &str) -> Cow<'_, str> {
    const WORD: &str = "CONCURRENTLY ";
    match sql.to_ascii_uppercase().find(WORD) {
        Some(start) if is_concurrent(sql) => {
            Cow::Owned(format!("{}{}", &sql[..start], &sql[start + WORD.len()..]))
        }
        _ => Cow::Borrowed(sql),
    }
}

/// Runs a step inside a transaction.
pub(super) async fn execute(
    step: &dyn Migration,
    direction: Direction,
    transaction: &DatabaseTransaction,
) -> Result<(), StepError> {
    if let (Direction::Down, Some(data)) = (direction, step.data()) {
        data.down(transaction).await?;
    }
    if let (Direction::Up, Some(batches)) = (direction, step.batches()) {
        let mut after = None;
        while let Some(next) = batches.batch(transaction, after).await? {
            after = Some(next);
        }
    }
    let backend = transaction.get_database_backend();
    for statement in statements(step, direction, backend) {
        let statement = for_transaction(&statement);
        transaction.execute_unprepared(&statement).await?;
    }
    if let (Direction::Up, Some(data)) = (direction, step.data()) {
        data.up(transaction).await?;
    }
    Ok(())
}

/// A [`Migration`] where SeaORM wants a `MigrationTrait`.
#[derive(Clone)]
pub struct SeaOrmMigration(pub Arc<dyn Migration>);

impl MigrationName for SeaOrmMigration {
    fn name(&self) -> &str {
        self.0.name()
    }
}

#[async_trait]
impl MigrationTrait for SeaOrmMigration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        self.execute(manager, Direction::Up).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        self.execute(manager, Direction::Down).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(self.0.transactional())
    }
}

impl SeaOrmMigration {
    async fn execute(
        &self,
        manager: &SchemaManager<'_>,
        direction: Direction,
    ) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        if self.0.transactional() {
            let transaction = connection.begin().await?;
            let done = execute(&*self.0, direction, &transaction).await;
            done.map_err(db_error)?;
            return transaction.commit().await;
        }
        if let (Direction::Up, Some(batches)) = (direction, self.0.batches()) {
            let mut after = None;
            loop {
                let transaction = connection.begin().await?;
                let next = batches.batch(&transaction, after).await;
                after = next.map_err(db_error)?;
                transaction.commit().await?;
                if after.is_none() {
                    break;
                }
            }
        }
        let backend = manager.get_database_backend();
        for statement in statements(&*self.0, direction, backend) {
            connection.execute_unprepared(&statement).await?;
        }
        Ok(())
    }
}

fn db_error(error: StepError) -> DbErr {
    match error.downcast::<DbErr>() {
        Ok(error) => *error,
        Err(error) => DbErr::Custom(error.to_string()),
    }
}

/// Returns the SQL of a `CREATE TABLE`.
#[must_use]
pub fn create_table(backend: DbBackend, table: &TableCreateStatement) -> String {
    match backend {
        DbBackend::Postgres => table.to_string(PostgresQueryBuilder),
        _ => table.to_string(SqliteQueryBuilder),
    }
}

/// Returns the SQL of a `CREATE INDEX`.
#[must_use]
pub fn create_index(backend: DbBackend, index: &IndexCreateStatement) -> String {
    match backend {
        DbBackend::Postgres => index.to_string(PostgresQueryBuilder),
        _ => index.to_string(SqliteQueryBuilder),
    }
}

/// Returns the SQL that drops an index, if it is there: one that was dropped by hand keeps
/// no migration from running, and `check` reports it.
#[must_use]
pub fn drop_index(name: &str) -> String {
    format!("DROP INDEX IF EXISTS \"{name}\"")
}

/// Returns the SQL that builds an index without keeping writers out, unless it exists. On
/// PostgreSQL it belongs in a step that isn't [transactional](Migration::transactional); on
/// SQLite it is an ordinary `CREATE INDEX`.
#[must_use]
pub fn create_index_concurrently(backend: DbBackend, index: &IndexCreateStatement) -> String {
    let mut index = index.clone();
    index.if_not_exists();
    if backend == DbBackend::Postgres {
        index.concurrently();
    }
    create_index(backend, &index)
}

/// Returns the SQL that reverses [`create_index_concurrently`].
#[must_use]
pub fn drop_index_concurrently(backend: DbBackend, name: &str) -> String {
    let concurrently = match backend {
        DbBackend::Postgres => "CONCURRENTLY ",
        _ => "",
    };
    format!("DROP INDEX {concurrently}IF EXISTS \"{name}\"")
}
