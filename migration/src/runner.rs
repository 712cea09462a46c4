//! Runs steps: one lock and one transaction around a run, on both backends.
//!
//! SeaORM's own migrator takes no lock and runs SQLite steps outside of a
//! transaction; this drives it from inside one. So of several processes that
//! start at once one applies and the others find nothing to do, and a process
//! that is killed leaves the old schema or the new one.

use std::time::{Duration, Instant};

use connection::Config;
use sea_orm::sea_query::IntoIden;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, DynIden,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};
use sea_orm_migration::{MigrationTrait, MigratorTraitSelf};
use serde::Serialize;

use crate::change::{Change, Step};
use crate::error::{Doing, Error};
use crate::state::{HISTORY, State, applied, tables};

/// Which way a step was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Applied.
    Up,
    /// Reversed.
    Down,
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// What a run tells while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// Another process holds the lock; told once.
    Waiting {
        /// For whom, as far as the database tells.
        holder: &'a str,
    },
    /// A step was done; it counts when the run ends well.
    Done(&'a Done),
}

/// A step that was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// The step.
    pub name: String,
    /// Applied or reversed.
    pub direction: Direction,
    /// How long it took, in microseconds.
    pub micros: u64,
}

/// What a run is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Apply the pending steps, or the first so many of them.
    Up(Option<u32>),
    /// Reverse the last so many steps.
    Down(u32),
    /// Reverse all steps and remove the history.
    Reset,
    /// Reverse all steps and apply them again.
    Refresh,
    /// Drop every table that our steps make, even when `down` would fail, and
    /// apply all steps.
    Fresh,
}

/// The steps of a schema and the means to run them.
pub struct Runner {
    changes: fn() -> Vec<Box<dyn Change>>,
}

impl Default for Runner {
    fn default() -> Self {
        Self::new(crate::migrations::all)
    }
}

impl Runner {
    /// For these steps. [`Runner::default`] has aura-db's.
    #[must_use]
    pub fn new(changes: fn() -> Vec<Box<dyn Change>>) -> Self {
        Self { changes }
    }

    /// The steps, oldest first.
    #[must_use]
    pub fn changes(&self) -> Vec<Box<dyn Change>> {
        (self.changes)()
    }

    /// How the schema of a database relates to these steps.
    pub async fn state<C: ConnectionTrait>(&self, connection: &C) -> Result<State, Error> {
        let changes = self.changes();
        let known: Vec<&str> = changes.iter().map(|change| change.name()).collect();
        let owned: Vec<&str> = self.owned();
        let applied: Vec<String> = applied(connection)
            .await?
            .into_iter()
            .map(|step| step.name)
            .collect();
        Ok(State::of(
            &known,
            &owned,
            &applied,
            &tables(connection).await?,
        ))
    }

    /// The tables that the steps make, in the order of creation.
    #[must_use]
    pub fn owned(&self) -> Vec<&'static str> {
        self.changes()
            .iter()
            .flat_map(|change| change.tables().iter().copied())
            .collect()
    }

    /// Opens the database without timeouts and runs the plan. Waits as long
    /// as it takes for another process that is migrating.
    pub async fn run(
        &self,
        config: &Config,
        plan: Plan,
        tell: impl FnMut(Event<'_>) + Send,
    ) -> Result<Vec<Done>, Error> {
        let connection = connection::connect_exclusive(config).await?;
        let result = self.run_on(&connection, plan, tell).await;
        let _ = connection.close().await;
        result
    }

    /// Runs the plan on a pool of one connection: the only way for a database
    /// that lives in memory.
    pub async fn run_on(
        &self,
        connection: &DatabaseConnection,
        plan: Plan,
        mut tell: impl FnMut(Event<'_>) + Send,
    ) -> Result<Vec<Done>, Error> {
        // Inside a transaction SQLite ignores this pragma, and with foreign
        // keys on a table that is rebuilt takes its child rows with it.
        let enforced = foreign_keys(connection, None).await?;
        if enforced {
            foreign_keys(connection, Some(false)).await?;
        }
        let result = self.locked(connection, plan, &mut tell).await;
        if enforced {
            foreign_keys(connection, Some(true)).await?;
        }
        result
    }

    async fn locked(
        &self,
        connection: &DatabaseConnection,
        plan: Plan,
        tell: &mut (impl FnMut(Event<'_>) + Send),
    ) -> Result<Vec<Done>, Error> {
        let transaction = lock(connection, tell).await?;
        match self.planned(&transaction, plan, tell).await {
            Ok(done) => {
                let committed = transaction.commit().await;
                committed.doing("committing the migrations").map(|()| done)
            }
            Err(error) => {
                // The first error is the one to tell; the transaction ends
                // with the connection at the latest.
                let _ = transaction.rollback().await;
                Err(error)
            }
        }
    }

    async fn planned(
        &self,
        transaction: &DatabaseTransaction,
        plan: Plan,
        tell: &mut (impl FnMut(Event<'_>) + Send),
    ) -> Result<Vec<Done>, Error> {
        let state = self.state(transaction).await?;
        match (&state, plan) {
            (State::Foreign { .. } | State::Ahead { .. } | State::Diverged { .. }, _) => {
                return Err(Error::Schema(state));
            }
            (State::Current, Plan::Up(_)) | (State::Empty, Plan::Down(_)) => {
                return Ok(Vec::new());
            }
            _ => {}
        }
        if plan == Plan::Fresh {
            for table in self.owned().into_iter().rev().chain([HISTORY]) {
                // No CASCADE: what an application hung on our table is not
                // ours to drop.
                let sql = format!("DROP TABLE IF EXISTS \"{table}\"");
                transaction
                    .execute_unprepared(&sql)
                    .await
                    .doing("dropping a table")?;
            }
        }
        let mut done = Vec::new();
        for (change, direction) in self.steps(plan, &names(transaction).await?) {
            done.push(self.step(transaction, change.name(), direction).await?);
            tell(Event::Done(&done[done.len() - 1]));
        }
        if plan == Plan::Reset {
            transaction
                .execute_unprepared(&format!("DROP TABLE IF EXISTS \"{HISTORY}\""))
                .await
                .doing("dropping the history")?;
        }
        check_foreign_keys(transaction).await?;
        // PostgreSQL answers the COMMIT of a failed transaction with ROLLBACK
        // and no error; a statement in such a transaction does fail.
        tables(transaction).await?;
        Ok(done)
    }

    /// The steps that a plan runs on a database with this history.
    #[must_use]
    pub fn steps(&self, plan: Plan, applied: &[String]) -> Vec<(Box<dyn Change>, Direction)> {
        let is_applied = |change: &dyn Change| applied.iter().any(|name| name == change.name());
        let (reversed, again) = match plan {
            Plan::Up(_) => (0, false),
            Plan::Fresh => (0, true),
            Plan::Down(steps) => (steps as usize, false),
            Plan::Reset => (usize::MAX, false),
            Plan::Refresh => (usize::MAX, true),
        };
        let down = self
            .changes()
            .into_iter()
            .rev()
            .filter(|change| is_applied(&**change))
            .take(reversed);
        let mut steps: Vec<_> = down.map(|change| (change, Direction::Down)).collect();
        let up = self
            .changes()
            .into_iter()
            .filter(|change| again || !is_applied(&**change));
        let limit = match plan {
            Plan::Up(limit) => limit.map_or(usize::MAX, |limit| limit as usize),
            Plan::Refresh | Plan::Fresh => usize::MAX,
            Plan::Down(_) | Plan::Reset => 0,
        };
        steps.extend(up.take(limit).map(|change| (change, Direction::Up)));
        steps
    }

    /// Runs the next step in that direction, which is the one of that name.
    async fn step(
        &self,
        transaction: &DatabaseTransaction,
        name: &str,
        direction: Direction,
    ) -> Result<Done, Error> {
        let started = Instant::now();
        match direction {
            Direction::Up => self.up(transaction, Some(1)).await,
            Direction::Down => self.down(transaction, Some(1)).await,
        }
        .map_err(|source| Error::Step {
            name: name.to_owned(),
            source,
        })?;
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(Done {
            name: name.to_owned(),
            direction,
            micros,
        })
    }

    /// The rows that a plan would throw away, per table, without those that
    /// are empty.
    pub async fn losses<C: ConnectionTrait>(
        &self,
        connection: &C,
        plan: Plan,
    ) -> Result<Vec<Loss>, Error> {
        let existing = tables(connection).await?;
        let mut lost = if plan == Plan::Fresh {
            self.owned()
        } else {
            let steps = self.steps(plan, &names(connection).await?);
            let down = steps
                .iter()
                .filter(|(_, direction)| *direction == Direction::Down);
            down.flat_map(|(change, _)| change.loses().iter().copied())
                .collect()
        };
        lost.retain(|table| existing.contains(*table));
        let backend = connection.get_database_backend();
        let mut losses = Vec::new();
        for table in lost {
            let sql = format!("SELECT count(*) AS rows FROM \"{table}\"");
            let row = connection
                .query_one_raw(Statement::from_string(backend, sql))
                .await
                .doing("counting rows")?;
            let rows: i64 = row
                .map_or(Ok(0), |row| row.try_get("", "rows"))
                .doing("counting rows")?;
            if rows > 0 {
                losses.push(Loss { table, rows });
            }
        }
        Ok(losses)
    }
}

/// Rows that a plan would throw away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// The table.
    pub table: &'static str,
    /// How many rows it has.
    pub rows: i64,
}

#[async_trait::async_trait]
impl MigratorTraitSelf for Runner {
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>> {
        self.changes()
            .into_iter()
            .map(|change| Box::new(Step(change)) as Box<dyn MigrationTrait>)
            .collect()
    }

    fn migration_table_name(&self) -> DynIden {
        HISTORY.into_iden()
    }
}

async fn names<C: ConnectionTrait>(connection: &C) -> Result<Vec<String>, Error> {
    Ok(applied(connection)
        .await?
        .into_iter()
        .map(|step| step.name)
        .collect())
}

/// Reads, or sets, whether SQLite enforces foreign keys; `false` elsewhere.
async fn foreign_keys(connection: &DatabaseConnection, set: Option<bool>) -> Result<bool, Error> {
    if connection.get_database_backend() != DbBackend::Sqlite {
        return Ok(false);
    }
    if let Some(on) = set {
        let sql = format!("PRAGMA foreign_keys = {}", if on { "ON" } else { "OFF" });
        connection
            .execute_unprepared(&sql)
            .await
            .doing("switching foreign keys")?;
    }
    let row = connection
        .query_one_raw(Statement::from_string(
            DbBackend::Sqlite,
            "PRAGMA foreign_keys",
        ))
        .await
        .doing("reading whether foreign keys are enforced")?;
    row.map_or(Ok(false), |row| row.try_get_by_index(0))
        .doing("reading whether foreign keys are enforced")
}

async fn check_foreign_keys(transaction: &DatabaseTransaction) -> Result<(), Error> {
    if transaction.get_database_backend() != DbBackend::Sqlite {
        return Ok(());
    }
    let sql = "SELECT DISTINCT \"table\" || ' to ' || parent AS pair FROM pragma_foreign_key_check";
    let rows = transaction
        .query_all_raw(Statement::from_string(DbBackend::Sqlite, sql))
        .await
        .doing("checking foreign keys")?;
    let pairs: Vec<String> = rows
        .iter()
        .map(|row| row.try_get("", "pair"))
        .collect::<Result<_, _>>()
        .doing("checking foreign keys")?;
    if pairs.is_empty() {
        Ok(())
    } else {
        Err(Error::DanglingRows(pairs.join(", ")))
    }
}

/// Begins the transaction that only one process can be in.
async fn lock(
    connection: &DatabaseConnection,
    tell: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<DatabaseTransaction, Error> {
    match connection.get_database_backend() {
        DbBackend::Postgres => lock_postgres(connection, tell).await,
        _ => lock_sqlite(connection, tell).await,
    }
}

async fn lock_sqlite(
    connection: &DatabaseConnection,
    tell: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<DatabaseTransaction, Error> {
    let mut told = false;
    loop {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        match connection.begin_with_options(options).await {
            // Each try waits for SQLite's busy timeout, a second.
            Err(error) if is_busy(&error) => {
                if !told {
                    tell(Event::Waiting {
                        holder: "another process that is writing",
                    });
                    told = true;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return other.doing("beginning the migrations"),
        }
    }
}

fn is_busy(error: &DbErr) -> bool {
    let (DbErr::Exec(error) | DbErr::Query(error) | DbErr::Conn(error)) = error else {
        return false;
    };
    let sea_orm::RuntimeErr::SqlxError(error) = error else {
        return false;
    };
    error
        .as_database_error()
        .and_then(|error| error.code()?.parse::<i32>().ok())
        .is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

/// The lock is of the schema, so that two schemas of one database migrate
/// independently, and it ends with the transaction, however that ends.
const KEY: &str = "hashtextextended('aura-db migrations of ' || current_schema(), 0)";

async fn lock_postgres(
    connection: &DatabaseConnection,
    tell: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<DatabaseTransaction, Error> {
    let transaction = connection.begin().await.doing("beginning the migrations")?;
    let sql = format!("SELECT pg_try_advisory_xact_lock({KEY}) AS locked");
    let row = transaction
        .query_one_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await
        .doing("taking the migration lock")?;
    let locked: bool = row
        .map_or(Ok(false), |row| row.try_get("", "locked"))
        .doing("taking the migration lock")?;
    if !locked {
        tell(Event::Waiting {
            holder: &holder(&transaction).await,
        });
        let sql = format!("SELECT pg_advisory_xact_lock({KEY})");
        transaction
            .execute_unprepared(&sql)
            .await
            .doing("waiting for the migration lock")?;
    }
    Ok(transaction)
}

/// Who holds the lock, for the person who waits; the answer may be out of date.
async fn holder(transaction: &DatabaseTransaction) -> String {
    let sql = format!(
        "SELECT a.pid, a.application_name::text AS name FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
         AND ((l.classid::bigint << 32) | l.objid::bigint) = {KEY}"
    );
    let row = transaction
        .query_one_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await;
    match row {
        Ok(Some(row)) => {
            let pid: i32 = row.try_get("", "pid").unwrap_or_default();
            let name: String = row.try_get("", "name").unwrap_or_default();
            format!("the migration of {name} (server process {pid})")
        }
        _ => "another migration".to_owned(),
    }
}
