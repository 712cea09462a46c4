//! The parts of a run: the steps of one transaction, or one that has none.

use std::time::Instant;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend};

use super::error::{Context, Error};
use super::history::{self, tables};
use super::references::{dangling, refuse_dangling};
use super::run::{Run, finish};
use super::{Direction, Done, Event, Loss, Migration, Runner, lock, outside, step};

/// A step, and whose it is.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) runner: &'a Runner,
    pub(super) migration: &'a dyn Migration,
    pub(super) direction: Direction,
    /// Outside of the run's transaction.
    pub(super) outside: bool,
}

/// Steps that are run together: those of one transaction, or one that has none.
#[derive(Default)]
pub(super) struct Segment<'a> {
    pub(super) steps: Vec<Step<'a>>,
    /// Outside of a transaction.
    pub(super) outside: bool,
    /// Drop all tables first.
    pub(super) is_fresh: bool,
    /// Drop the history at the end.
    pub(super) drops_history: bool,
}

impl<'a, F: FnMut(Event<'_>) + Send> Run<'a, F> {
    pub(super) async fn segment_in(
        &mut self,
        transaction: &DatabaseTransaction,
        segment: &Segment<'a>,
    ) -> Result<Vec<Done>, Error> {
        let owned = self.runner.all_tables();
        let dangling = dangling(transaction, &owned).await?;
        let pid = self.set_lock_limit(transaction).await?;
        if segment.is_fresh {
            self.drop_tables(transaction).await?;
        }
        let mut done = Vec::new();
        for step in &segment.steps {
            if let Some(ran) = self.step(transaction, *step, pid).await? {
                (self.on_event)(Event::Done(&ran));
                done.push(ran);
            }
        }
        if segment.drops_history {
            transaction
                .execute_unprepared(&history::drop(self.runner.history()))
                .await
                .context("dropping the history")?;
        }
        refuse_dangling(transaction, &owned, &dangling).await?;
        // PostgreSQL answers the COMMIT of a failed transaction with ROLLBACK
        // and no error; a statement in such a transaction does fail.
        tables(transaction).await?;
        Ok(done)
    }

    /// Limits how long statements wait for table locks, and returns the session's process.
    pub(super) async fn set_lock_limit(
        &mut self,
        transaction: &DatabaseTransaction,
    ) -> Result<Option<i32>, Error> {
        if !self.is_postgres() {
            return Ok(None);
        }
        let limit = self.lock_limit_millis();
        let sql = format!("SET LOCAL lock_timeout = {limit}");
        let set = transaction.execute_unprepared(&sql).await;
        set.context("limiting the wait for locks")?;
        outside::process(transaction).await.map(Some)
    }

    async fn drop_tables(&mut self, transaction: &DatabaseTransaction) -> Result<(), Error> {
        let tables = self.runner.tables().into_iter().rev();
        for table in tables.chain([self.runner.history()]) {
            // No CASCADE: what an application hung on the table, such as a
            // view, is not ours to drop.
            let sql = format!("DROP TABLE IF EXISTS \"{table}\"");
            transaction
                .execute_unprepared(&sql)
                .await
                .context("dropping a table")?;
        }
        Ok(())
    }

    /// Runs a step and notes it, unless another process has done so.
    async fn step(
        &mut self,
        transaction: &DatabaseTransaction,
        step: Step<'a>,
        pid: Option<i32>,
    ) -> Result<Option<Done>, Error> {
        if !step.is_due(transaction).await? {
            return Ok(None);
        }
        let started = Instant::now();
        let work = step::execute(step.migration, step.direction, transaction);
        let result = self.watch.run(pid, work, &mut self.on_event).await;
        result.map_err(|source| Error::Step {
            name: step.migration.name().to_owned(),
            source,
        })?;
        step.note(transaction).await?;
        Ok(Some(step.done(started)))
    }

    /// Runs a step that isn't transactional, on PostgreSQL.
    pub(super) async fn outside(&mut self, step: Step<'a>) -> Result<Option<Done>, Error> {
        lock::take_for_session(self.connection, &mut self.on_event).await?;
        if !step.is_due(self.connection).await? {
            return Ok(None);
        }
        let started = Instant::now();
        outside::drop_invalid_indexes(self.connection, step, &mut self.on_event).await?;
        let pid = outside::process(self.connection).await?;
        for statement in step.statements() {
            self.statement_outside(step, &statement, pid).await?;
        }
        step.note(self.connection).await?;
        let done = step.done(started);
        (self.on_event)(Event::Done(&done));
        Ok(Some(done))
    }

    /// Changes the rows of a step, each batch in a transaction of its own.
    pub(super) async fn batches(&mut self, step: Step<'a>) -> Result<(), Error> {
        let (Some(rows), Direction::Up) = (step.migration.batches(), step.direction) else {
            return Ok(());
        };
        if !step.is_due(self.connection).await? {
            return Ok(());
        }
        let (mut number, mut after, mut attempt) = (0, None, 1);
        loop {
            let transaction = lock::begin(self.connection, &mut self.on_event).await?;
            let pid = self.set_lock_limit(&transaction).await?;
            let work = rows.batch(&transaction, after.clone());
            let changed = self.watch.run(pid, work, &mut self.on_event).await;
            let changed = changed.map_err(|source| Error::LaterStep {
                name: step.migration.name().to_owned(),
                source,
            });
            match finish(self.runner, transaction, changed).await {
                Ok(None) => return Ok(()),
                Ok(next) => {
                    (after, attempt, number) = (next, 1, number + 1);
                    (self.on_event)(Event::Batch {
                        name: step.migration.name(),
                        number,
                    });
                }
                Err(error) => self.pause(error, &mut attempt).await?,
            }
        }
    }

    /// Runs a statement outside of a transaction. Nothing queues behind one that works
    /// concurrently. Another one has the limit for locks, and is tried again.
    async fn statement_outside(
        &mut self,
        step: Step<'a>,
        statement: &str,
        pid: i32,
    ) -> Result<(), Error> {
        let is_concurrent = step::is_concurrent(statement);
        let mut attempt = 1;
        loop {
            let limit = if is_concurrent {
                0
            } else {
                self.lock_limit_millis()
            };
            let work = outside::execute(self.connection, step, statement, limit);
            match self.watch.run(Some(pid), work, &mut self.on_event).await {
                Err(error) if !is_concurrent => self.pause(error, &mut attempt).await?,
                done => return done,
            }
        }
    }

    fn lock_limit_millis(&self) -> u128 {
        self.runner.lock_limit.timeout.as_millis().max(1)
    }

    /// Counts again, with the tables locked.
    pub(super) async fn refuse_more(
        &mut self,
        transaction: &DatabaseTransaction,
        confirmed: &[Loss],
        destroyed: &[&'static str],
    ) -> Result<(), Error> {
        if self.is_postgres() {
            let pid = outside::process(transaction).await?;
            let existing = tables(transaction).await?;
            for table in destroyed.iter().filter(|table| existing.contains(**table)) {
                let sql = format!("LOCK TABLE \"{table}\" IN ACCESS EXCLUSIVE MODE");
                let work = transaction.execute_unprepared(&sql);
                self.watch
                    .run(Some(pid), work, &mut self.on_event)
                    .await
                    .context("locking a table")?;
            }
        }
        let losses = self.runner.losses(transaction, self.plan).await?;
        let more = losses.into_iter().find(|loss| {
            let rows = confirmed
                .iter()
                .find(|confirmed| confirmed.table == loss.table)
                .map_or(0, |confirmed| confirmed.rows);
            loss.rows > rows
        });
        more.map_or(Ok(()), |loss| {
            Err(Error::MoreToLose(format!(
                "{} rows of {}",
                loss.rows, loss.table
            )))
        })
    }
}

impl<'a> Step<'a> {
    /// Returns a step of a run. `new` says that its tables are made in this run.
    pub(super) fn new(
        runner: &'a Runner,
        (migration, direction): (&'a dyn Migration, Direction),
        new: bool,
    ) -> Self {
        Self {
            runner,
            migration,
            direction,
            outside: step::runs_outside(migration, direction, new),
        }
    }

    /// Returns its statements on PostgreSQL.
    pub(super) fn statements(&self) -> Vec<String> {
        step::statements(self.migration, self.direction, DbBackend::Postgres)
    }

    /// Whether the history says that it is still to be run.
    async fn is_due<C: ConnectionTrait>(&self, connection: &C) -> Result<bool, Error> {
        let applied = self.runner.applied_names(connection).await?;
        let is_applied = applied.iter().any(|name| name == self.migration.name());
        Ok(is_applied == (self.direction == Direction::Down))
    }

    async fn note<C: ConnectionTrait>(&self, connection: &C) -> Result<(), Error> {
        self.runner
            .note(connection, self.migration.name(), self.direction)
            .await
    }

    fn done(&self, started: Instant) -> Done {
        Done {
            name: self.migration.name().to_owned(),
            direction: self.direction,
            micros: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        }
    }
}
