//! Runs steps: one lock and one transaction around a run, on both backends.
//!
//! SeaORM's own migrator takes no lock and runs SQLite steps outside of a
//! transaction; this drives it from inside one. So of several processes that
//! start at once one applies and the others find nothing to do, and a process
//! that is killed leaves the old schema or the new one.

use std::collections::BTreeSet;
use std::time::Instant;

use connection::Config;
use sea_orm::sea_query::IntoIden;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DynIden, Statement,
};
use sea_orm_migration::{MigrationTrait, MigratorTraitSelf};
use serde::Serialize;

use crate::change::{Change, Step};
use crate::error::{Doing, Error};
use crate::lock::lock;
use crate::references::{dangling, refuse_dangling, refuse_referenced};
use crate::state::{HISTORY, State, applied, history_exists, tables, tables_sql};

/// Runs a query that returns names.
pub trait QueryNames {
    /// Why it fails.
    type Error;

    /// Returns the first column of each row.
    fn names(&self, sql: String) -> impl Future<Output = Result<Vec<String>, Self::Error>> + Send;
}

/// On a connection of `SeaORM`'s.
struct Names<'c, C>(&'c C);

impl<C: ConnectionTrait> QueryNames for Names<'_, C> {
    type Error = Error;

    async fn names(&self, sql: String) -> Result<Vec<String>, Error> {
        const DOING: &str = "looking at the schema";
        let statement = Statement::from_string(self.0.get_database_backend(), sql);
        let rows = self.0.query_all_raw(statement).await.doing(DOING)?;
        let names = rows.iter().map(|row| row.try_get_by_index(0));
        names.collect::<Result<_, _>>().doing(DOING)
    }
}

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
        self.state_by(connection.get_database_backend(), &Names(connection))
            .await
    }

    /// How the schema of a database relates to these steps, for a caller that runs the
    /// statements itself.
    pub async fn state_by<Q: QueryNames>(
        &self,
        backend: DbBackend,
        query: &Q,
    ) -> Result<State, Q::Error> {
        let changes = self.changes();
        let known: Vec<&str> = changes.iter().map(|change| change.name()).collect();
        let owned: Vec<&str> = self.owned();
        let applied = if query.names(history_exists(backend)).await?.is_empty() {
            Vec::new()
        } else {
            let sql = format!("SELECT version FROM {HISTORY} ORDER BY version");
            query.names(sql).await?
        };
        let tables = if applied.is_empty() {
            let names = query.names(tables_sql(backend).to_owned()).await?;
            names.into_iter().collect()
        } else {
            BTreeSet::new()
        };
        Ok(State::of(&known, &owned, &applied, &tables))
    }

    /// The tables that the steps make, in the order of creation.
    #[must_use]
    pub fn owned(&self) -> Vec<&'static str> {
        self.changes()
            .iter()
            .flat_map(|change| change.tables().iter().copied())
            .collect()
    }

    /// Opens the database without timeouts and runs the plan, whatever is lost
    /// by it. Waits as long as it takes for another process that is migrating.
    pub async fn run(
        &self,
        config: &Config,
        plan: Plan,
        tell: impl FnMut(Event<'_>) + Send,
    ) -> Result<Vec<Done>, Error> {
        self.opened(config, plan, None, tell).await
    }

    /// Like [`Runner::run`], unless more would be lost than somebody was shown
    /// by [`Runner::losses`] and has agreed to: in between, another process may
    /// have written rows, or run steps.
    pub async fn run_agreed(
        &self,
        config: &Config,
        plan: Plan,
        agreed: &[Loss],
        tell: impl FnMut(Event<'_>) + Send,
    ) -> Result<Vec<Done>, Error> {
        self.opened(config, plan, Some(agreed), tell).await
    }

    async fn opened(
        &self,
        config: &Config,
        plan: Plan,
        agreed: Option<&[Loss]>,
        mut tell: impl FnMut(Event<'_>) + Send,
    ) -> Result<Vec<Done>, Error> {
        let connection = connection::connect_exclusive(config).await?;
        let result = self.locked(&connection, plan, agreed, &mut tell).await;
        let _ = connection.close().await;
        result
    }

    /// Applies the pending steps on a pool of one connection: the only way for
    /// a database that lives in memory.
    pub async fn up_in_memory(
        &self,
        connection: &DatabaseConnection,
        mut tell: impl FnMut(Event<'_>) + Send,
    ) -> Result<Vec<Done>, Error> {
        // Inside a transaction SQLite ignores this pragma, and with foreign
        // keys on a table that is rebuilt takes its child rows with it.
        enforce_foreign_keys(connection, false).await?;
        let result = self
            .locked(connection, Plan::Up(None), None, &mut tell)
            .await;
        enforce_foreign_keys(connection, true).await?;
        result
    }

    async fn locked(
        &self,
        connection: &DatabaseConnection,
        plan: Plan,
        agreed: Option<&[Loss]>,
        tell: &mut (impl FnMut(Event<'_>) + Send),
    ) -> Result<Vec<Done>, Error> {
        let transaction = lock(connection, tell).await?;
        match self.planned(&transaction, plan, agreed, tell).await {
            Ok(done) => {
                let committed = transaction.commit().await;
                committed.map(|()| done).map_err(Error::Commit)
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
        agreed: Option<&[Loss]>,
        tell: &mut (impl FnMut(Event<'_>) + Send),
    ) -> Result<Vec<Done>, Error> {
        let state = self.state(transaction).await?;
        match (&state, plan) {
            // Switching branches leaves such a schema, and `fresh` mends it.
            (State::Ahead { .. } | State::Diverged { .. }, Plan::Fresh) => {}
            (State::Foreign { .. } | State::Ahead { .. } | State::Diverged { .. }, _) => {
                return Err(Error::Schema(state));
            }
            (State::Current, Plan::Up(_)) | (State::Empty, Plan::Down(_)) => {
                return Ok(Vec::new());
            }
            _ => {}
        }
        let owned = self.owned();
        let steps = self.steps(plan, &names(transaction).await?);
        let dropped = self.dropped(plan, &steps, |change| change.tables());
        refuse_referenced(transaction, &owned, &dropped).await?;
        if let Some(agreed) = agreed {
            self.refuse_more(transaction, plan, agreed).await?;
        }
        let dangling = dangling(transaction, &owned).await?;
        if plan == Plan::Fresh {
            for table in owned.iter().rev().copied().chain([HISTORY]) {
                // No CASCADE: what an application hung on our table, such as a
                // view, is not ours to drop.
                let sql = format!("DROP TABLE IF EXISTS \"{table}\"");
                transaction
                    .execute_unprepared(&sql)
                    .await
                    .doing("dropping a table")?;
            }
        }
        let mut done = Vec::new();
        for (change, direction) in steps {
            done.push(self.step(transaction, change.name(), direction).await?);
            tell(Event::Done(&done[done.len() - 1]));
        }
        if plan == Plan::Reset {
            transaction
                .execute_unprepared(&format!("DROP TABLE IF EXISTS \"{HISTORY}\""))
                .await
                .doing("dropping the history")?;
        }
        refuse_dangling(transaction, &owned, &dangling).await?;
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

    /// What the steps drop of the tables that `of` names for each.
    fn dropped(
        &self,
        plan: Plan,
        steps: &[(Box<dyn Change>, Direction)],
        of: fn(&dyn Change) -> &'static [&'static str],
    ) -> Vec<&'static str> {
        if plan == Plan::Fresh {
            return self.owned();
        }
        let reversed = steps
            .iter()
            .filter(|(_, direction)| *direction == Direction::Down);
        reversed
            .flat_map(|(change, _)| of(&**change).iter().copied())
            .collect()
    }

    /// Counts again, with the tables locked.
    async fn refuse_more(
        &self,
        transaction: &DatabaseTransaction,
        plan: Plan,
        agreed: &[Loss],
    ) -> Result<(), Error> {
        if transaction.get_database_backend() == DbBackend::Postgres {
            let existing = tables(transaction).await?;
            let steps = self.steps(plan, &names(transaction).await?);
            for table in self.dropped(plan, &steps, |change| change.loses()) {
                if existing.contains(table) {
                    let sql = format!("LOCK TABLE \"{table}\" IN ACCESS EXCLUSIVE MODE");
                    transaction
                        .execute_unprepared(&sql)
                        .await
                        .doing("locking a table")?;
                }
            }
        }
        let more = self
            .losses(transaction, plan)
            .await?
            .into_iter()
            .find(|loss| {
                let rows = agreed
                    .iter()
                    .find(|agreed| agreed.table == loss.table)
                    .map_or(0, |agreed| agreed.rows);
                loss.rows > rows
            });
        more.map_or(Ok(()), |loss| {
            Err(Error::MoreToLose(format!(
                "{} rows of {}",
                loss.rows, loss.table
            )))
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
        let steps = self.steps(plan, &names(connection).await?);
        let mut lost = self.dropped(plan, &steps, |change| change.loses());
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

async fn enforce_foreign_keys(connection: &DatabaseConnection, on: bool) -> Result<(), Error> {
    let sql = format!("PRAGMA foreign_keys = {}", if on { "ON" } else { "OFF" });
    let done = connection.execute_unprepared(&sql).await;
    done.map(|_| ()).doing("switching foreign keys")
}
