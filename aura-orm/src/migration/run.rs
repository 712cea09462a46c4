//! Runs steps: one lock and one transaction around a run, on both backends.
//!
//! SeaORM's own migrator takes no lock and runs SQLite steps outside of a
//! transaction. Here, of several processes that start at once one applies and the others
//! find nothing to do, and a process that is killed leaves the old schema or the new one.
//!
//! Steps that aren't transactional cut a run into segments: a transaction for the steps
//! before, the step itself, a transaction for those after. The lock is held throughout on
//! PostgreSQL. On SQLite it isn't, so each segment looks again at what is left to do.

use std::time::Duration;

use connection::{Config, Target};
use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend};

use super::blocker::Watch;
use super::error::{Context, Error};
use super::references::refuse_referenced;
use super::segment::{Segment, Step};
use super::{Done, Event, Loss, Plan, Runner, State, lock, log};

/// How long other statements have to pass before a run is tried again, at first; each time
/// twice as long, because what takes long takes longer, and all wait during a try.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Runner {
    /// Applies the pending steps. The log names each, and what it waits for.
    ///
    /// # Errors
    ///
    /// Those of [`Runner::run`].
    pub async fn up(&self, config: &Config) -> Result<Vec<Done>, Error> {
        self.run(config, Plan::Up(None), log).await
    }

    /// Opens the database without timeouts and runs the plan, whatever rows it deletes.
    /// Waits as long as it takes for another process that is migrating.
    ///
    /// # Errors
    ///
    /// [`Error::Schema`] when the schema is another one than these steps make,
    /// [`Error::Step`] when a step fails, [`Error::Referenced`], [`Error::DanglingRows`],
    /// [`Error::LockTimeout`], [`Error::MissingRight`], [`Error::NotCommitted`] when the
    /// database refuses the COMMIT, as on a full disk, and what it says otherwise.
    /// [`Error::Stopped`] and [`Error::StepOutside`] mean that a part of it is done, and
    /// [`Error::Commit`] that it isn't known.
    pub async fn run(
        &self,
        config: &Config,
        plan: Plan,
        on_event: impl FnMut(Event<'_>) + Send,
    ) -> Result<Vec<Done>, Error> {
        self.run_on_config(config, plan, None, on_event).await
    }

    /// Runs a plan like [`Runner::run`], unless it would delete more than was shown by
    /// [`Runner::losses`] and confirmed: in between, another process may have written rows,
    /// or run steps.
    ///
    /// # Errors
    ///
    /// Those of [`Runner::run`], and [`Error::MoreToLose`].
    pub async fn run_confirmed(
        &self,
        config: &Config,
        plan: Plan,
        confirmed: &[Loss],
        on_event: impl FnMut(Event<'_>) + Send,
    ) -> Result<Vec<Done>, Error> {
        self.run_on_config(config, plan, Some(confirmed), on_event)
            .await
    }

    async fn run_on_config(
        &self,
        config: &Config,
        plan: Plan,
        confirmed: Option<&[Loss]>,
        on_event: impl FnMut(Event<'_>) + Send,
    ) -> Result<Vec<Done>, Error> {
        let connection = connection::connect_exclusive(config).await?;
        let run = Run {
            runner: self,
            connection: &connection,
            is_pooled: matches!(&config.target, Target::Postgres(postgres) if !postgres.prepared_statements),
            plan,
            confirmed,
            on_event,
            watch: Watch::new(Some(config), self.lock_limit.timeout),
        };
        let result = run.execute().await;
        let _ = connection.close().await;
        match &config.target {
            Target::Postgres(postgres) => {
                result.map_err(|error| error.with_missing_right(&postgres.user))
            }
            _ => result,
        }
    }

    /// Applies the pending steps on a pool of one connection: the only way for
    /// a database that lives in memory.
    ///
    /// # Errors
    ///
    /// Those of [`Runner::run`].
    pub async fn up_in_memory(
        &self,
        connection: &DatabaseConnection,
        on_event: impl FnMut(Event<'_>) + Send,
    ) -> Result<Vec<Done>, Error> {
        // Inside a transaction SQLite ignores this pragma, and with foreign
        // keys on a table that is rebuilt takes its child rows with it.
        enforce_foreign_keys(connection, false).await?;
        let run = Run {
            runner: self,
            connection,
            is_pooled: false,
            plan: Plan::Up(None),
            confirmed: None,
            on_event,
            watch: Watch::new(None, self.lock_limit.timeout),
        };
        let result = run.execute().await;
        enforce_foreign_keys(connection, true).await?;
        result
    }

    fn has_steps_outside(&self) -> bool {
        let own = self.migrations().iter().any(|step| !step.transactional());
        own || self.base().is_some_and(Self::has_steps_outside)
    }

    /// Returns the tables of these steps and of those before them.
    pub(super) fn all_tables(&self) -> Vec<&'static str> {
        let mut tables = self.base().map(Self::all_tables).unwrap_or_default();
        tables.extend(self.tables());
        tables
    }
}

/// One run of a plan.
pub(super) struct Run<'a, F> {
    pub(super) runner: &'a Runner,
    pub(super) connection: &'a DatabaseConnection,
    /// Behind a pooler, where a session can't hold a lock.
    pub(super) is_pooled: bool,
    pub(super) plan: Plan,
    pub(super) confirmed: Option<&'a [Loss]>,
    pub(super) on_event: F,
    pub(super) watch: Watch<'a>,
}

impl<'a, F: FnMut(Event<'_>) + Send> Run<'a, F> {
    async fn execute(mut self) -> Result<Vec<Done>, Error> {
        let result = self.run().await;
        self.watch.close().await;
        result
    }

    async fn run(&mut self) -> Result<Vec<Done>, Error> {
        self.runner.settings.validate()?;
        if self.is_postgres() && !self.is_pooled && self.runner.has_steps_outside() {
            lock::take_for_session(self.connection, &mut self.on_event).await?;
        }
        let mut attempt = 1;
        let (mut done, rest) = loop {
            match self.first().await {
                Ok(first) => break first,
                Err(error) => self.pause(error, &mut attempt).await?,
            }
        };
        for segment in rest {
            match self.later(&segment).await {
                Ok(more) => done.extend(more),
                Err(error) if done.is_empty() => return Err(error),
                Err(error) => {
                    return Err(Error::Stopped {
                        kept: done.into_iter().map(|step| step.name).collect(),
                        source: Box::new(error.after_commit()),
                    });
                }
            }
        }
        Ok(done)
    }

    pub(super) fn is_postgres(&self) -> bool {
        self.connection.get_database_backend() == DbBackend::Postgres
    }

    /// Waits before the next attempt, unless the error is another one than a lock that
    /// wasn't granted, or there were enough.
    pub(super) async fn pause(&mut self, error: Error, attempt: &mut u32) -> Result<(), Error> {
        if !error.is_lock_timeout() {
            return Err(error);
        }
        let limit = self.runner.lock_limit.attempts;
        if limit.is_some_and(|limit| *attempt >= limit) {
            let blocker = self.watch.last();
            return Err(Error::LockTimeout {
                attempts: *attempt,
                blocker: blocker.map_or_else(String::new, |blocker| format!(": {blocker}")),
                source: Box::new(error),
            });
        }
        let pause = PAUSE.saturating_mul(1 << (*attempt - 1).min(5));
        let pause = pause.min(LONGEST_PAUSE);
        (self.on_event)(Event::Retrying {
            attempt: *attempt,
            pause,
        });
        *attempt = attempt.saturating_add(1);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Plans the run, in the transaction of its first segment, and runs that segment.
    async fn first(&mut self) -> Result<(Vec<Done>, Vec<Segment<'a>>), Error> {
        let transaction = lock::begin(self.connection, &mut self.on_event).await?;
        let result = self.first_in(&transaction).await;
        finish(self.runner, transaction, result).await
    }

    async fn first_in(
        &mut self,
        transaction: &DatabaseTransaction,
    ) -> Result<(Vec<Done>, Vec<Segment<'a>>), Error> {
        let Some(steps) = self.planned(transaction).await? else {
            return Ok((Vec::new(), Vec::new()));
        };
        let mut segments = self.segments(steps);
        let is_outside = |segment: &&Segment<'_>| segment.outside;
        if let (true, Some(segment)) = (self.is_pooled, segments.iter().find(is_outside)) {
            let name = segment.steps[0].migration.name();
            return Err(Error::PooledConnection(name.to_owned()));
        }
        // One that has no transaction can't be the first: the tables that `fresh` drops,
        // or nothing, are.
        let first = segments.remove(0);
        let done = self.segment_in(transaction, &first).await?;
        Ok((done, segments))
    }

    /// Returns the steps to run, after a look at everything that forbids it. `None` when
    /// there is nothing to do.
    async fn planned(
        &mut self,
        transaction: &DatabaseTransaction,
    ) -> Result<Option<Vec<Step<'a>>>, Error> {
        let (runner, plan) = (self.runner, self.plan);
        let state = runner.state(transaction).await?;
        match (&state, plan) {
            // Switching branches leaves such a schema, and `fresh` mends it.
            (State::Ahead { .. } | State::Diverged { .. }, Plan::Fresh) => {}
            (State::Foreign { .. } | State::Ahead { .. } | State::Diverged { .. }, _) => {
                return Err(runner.refuse(state));
            }
            _ => {}
        }
        let applied = runner.applied_names(transaction).await?;
        let own = runner.planned(plan, &applied);
        let mut steps = Vec::new();
        if let (Plan::Up(_) | Plan::Refresh | Plan::Fresh, Some(base)) = (plan, runner.base()) {
            base.add_pending(transaction, &mut steps).await?;
        }
        if steps.is_empty() && own.is_empty() && matches!(plan, Plan::Up(_) | Plan::Down(_)) {
            return Ok(None);
        }
        let dropped = runner.dropped(plan, &own, |step| step.tables());
        refuse_referenced(transaction, &runner.tables(), &dropped).await?;
        if let Some(confirmed) = self.confirmed {
            let destroyed = runner.dropped(plan, &own, |step| step.destroys());
            self.set_lock_limit(transaction).await?;
            self.refuse_more(transaction, confirmed, &destroyed).await?;
        }
        let new = applied.is_empty() || plan.is_from_scratch();
        steps.extend(own.into_iter().map(|step| Step::new(runner, step, new)));
        Ok(Some(steps))
    }

    /// Cuts the steps where one isn't transactional. The first segment has a transaction.
    fn segments(&self, steps: Vec<Step<'a>>) -> Vec<Segment<'a>> {
        let mut segments = vec![Segment {
            is_fresh: self.plan == Plan::Fresh,
            ..Segment::default()
        }];
        for step in steps {
            let outside = step.outside;
            match segments.last_mut() {
                Some(last) if !last.outside && !outside => last.steps.push(step),
                _ => segments.push(Segment {
                    steps: vec![step],
                    outside,
                    ..Segment::default()
                }),
            }
        }
        if self.plan == Plan::Reset {
            if segments.last().is_some_and(|last| last.outside) {
                segments.push(Segment::default());
            }
            if let Some(last) = segments.last_mut() {
                last.drops_history = true;
            }
        }
        segments
    }

    /// Runs a segment behind the first one.
    async fn later(&mut self, segment: &Segment<'a>) -> Result<Vec<Done>, Error> {
        if segment.outside {
            for step in &segment.steps {
                self.batches(*step).await?;
            }
        }
        if segment.outside && self.is_postgres() {
            let mut done = Vec::new();
            for step in &segment.steps {
                done.extend(self.outside(*step).await?);
            }
            return Ok(done);
        }
        let mut attempt = 1;
        loop {
            let transaction = lock::begin(self.connection, &mut self.on_event).await?;
            let result = self.segment_in(&transaction, segment).await;
            match finish(self.runner, transaction, result).await {
                Err(error) => self.pause(error, &mut attempt).await?,
                done => return done,
            }
        }
    }
}

impl Runner {
    /// Adds the pending steps, oldest first, after those of the runner before this one.
    async fn add_pending<'a>(
        &'a self,
        transaction: &DatabaseTransaction,
        steps: &mut Vec<Step<'a>>,
    ) -> Result<(), Error> {
        let mut chain = vec![self];
        while let Some(base) = chain[chain.len() - 1].base() {
            chain.push(base);
        }
        for runner in chain.into_iter().rev() {
            match runner.state(transaction).await? {
                State::Current | State::Ahead { .. } => {}
                State::Empty | State::Behind { .. } => {
                    let applied = runner.applied_names(transaction).await?;
                    let pending = runner.planned(Plan::Up(None), &applied);
                    let new = applied.is_empty();
                    steps.extend(pending.into_iter().map(|step| Step::new(runner, step, new)));
                }
                state => return Err(runner.refuse(state)),
            }
        }
        Ok(())
    }
}

/// Ends a transaction as its work ended.
pub(super) async fn finish<T>(
    runner: &Runner,
    transaction: DatabaseTransaction,
    result: Result<T, Error>,
) -> Result<T, Error> {
    match result {
        Ok(value) => {
            runner.commit(transaction).await?;
            Ok(value)
        }
        Err(error) => {
            // The first error is the one to report; the transaction ends
            // with the connection at the latest.
            let _ = transaction.rollback().await;
            Err(error)
        }
    }
}

async fn enforce_foreign_keys(connection: &DatabaseConnection, on: bool) -> Result<(), Error> {
    let sql = format!("PRAGMA foreign_keys = {}", if on { "ON" } else { "OFF" });
    let done = connection.execute_unprepared(&sql).await;
    done.map(|_| ()).context("switching foreign keys")
}
