//! The steps of a schema, and what they mean for a database. How they are run is in
//! `run.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, Statement};

use super::builder::{LockLimit, RunnerBuilder, Settings};
use super::catalog::{Catalog, Difference, differences, missing_rights, sequences_behind};
use super::error::{Context, Error};
use super::history::{self, Applied, tables, tables_sql};
use super::{Direction, Loss, Migration, Plan, State};

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
        const CONTEXT: &str = "looking at the schema";
        let statement = Statement::from_string(self.0.get_database_backend(), sql);
        let rows = self.0.query_all_raw(statement).await.context(CONTEXT)?;
        let names = rows.iter().map(|row| row.try_get_by_index(0));
        names.collect::<Result<_, _>>().context(CONTEXT)
    }
}

/// The steps of a schema and the means to run them. A clone is cheap.
#[derive(Clone)]
pub struct Runner {
    pub(super) settings: Arc<Settings>,
    pub(super) lock_limit: LockLimit,
}

impl Runner {
    /// Returns a builder without steps.
    pub fn builder() -> RunnerBuilder {
        RunnerBuilder::new()
    }

    /// Returns the same steps with other limits on the wait for table locks; `None` leaves
    /// the one that it has.
    #[must_use]
    pub fn with_lock_limit(mut self, timeout: Option<Duration>, attempts: Option<u32>) -> Self {
        self.lock_limit.timeout = timeout.unwrap_or(self.lock_limit.timeout);
        self.lock_limit.attempts = attempts.or(self.lock_limit.attempts);
        self
    }

    /// Returns the command that people type.
    #[must_use]
    pub fn tool(&self) -> &'static str {
        self.settings.tool
    }

    /// Returns the table that records which steps were applied.
    #[must_use]
    pub fn history(&self) -> &'static str {
        self.settings.history
    }

    /// Returns the steps, oldest first.
    #[must_use]
    pub fn migrations(&self) -> &[Box<dyn Migration>] {
        &self.settings.steps
    }

    /// Returns the runner whose steps are applied before these.
    #[must_use]
    pub fn base(&self) -> Option<&Runner> {
        self.settings.base.as_ref()
    }

    /// Returns the tables that the steps make, in the order of creation.
    #[must_use]
    pub fn tables(&self) -> Vec<&'static str> {
        let steps = self.migrations().iter();
        steps
            .flat_map(|step| step.tables().iter().copied())
            .collect()
    }

    /// Returns the tool whose steps make a table: this one, or one before it.
    pub(super) fn owner(&self, table: &str) -> Option<&'static str> {
        if self.tables().contains(&table) {
            return Some(self.tool());
        }
        self.base().and_then(|base| base.owner(table))
    }

    /// Reads how the schema of a database relates to these steps.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when the database can't be read.
    pub async fn state<C: ConnectionTrait>(&self, connection: &C) -> Result<State, Error> {
        self.state_by(connection.get_database_backend(), &Names(connection))
            .await
    }

    /// Reads how the schema of a database relates to these steps, for a caller that runs the
    /// statements itself.
    ///
    /// # Errors
    ///
    /// Those of `query`.
    pub async fn state_by<Q: QueryNames>(
        &self,
        backend: DbBackend,
        query: &Q,
    ) -> Result<State, Q::Error> {
        let history = self.history();
        let known: Vec<&str> = self.migrations().iter().map(|step| step.name()).collect();
        let applied = if query
            .names(history::exists(backend, history))
            .await?
            .is_empty()
        {
            Vec::new()
        } else {
            let sql = format!("SELECT version FROM {history} ORDER BY version");
            query.names(sql).await?
        };
        let tables = if applied.is_empty() {
            let names = query.names(tables_sql(backend).to_owned()).await?;
            names.into_iter().collect()
        } else {
            BTreeSet::new()
        };
        Ok(State::of(&known, &self.tables(), &applied, &tables))
    }

    /// Returns `Ok` when every step that a service needs was applied. A schema that is ahead
    /// is fine (a rolling deploy has begun) and is logged as a warning.
    ///
    /// # Errors
    ///
    /// [`Error::Schema`] when steps are missing, or the tables are another program's.
    pub fn require(&self, state: State) -> Result<(), Error> {
        match state {
            State::Current => Ok(()),
            State::Ahead { .. } => {
                tracing::warn!(target: "aura_orm::migration", "{}", self.explain(&state));
                Ok(())
            }
            state => Err(self.refuse(state)),
        }
    }

    pub(super) fn refuse(&self, state: State) -> Error {
        Error::Schema {
            explanation: self.explain(&state),
            state,
        }
    }

    /// Describes a state, and what to do about it.
    #[must_use]
    pub fn explain(&self, state: &State) -> String {
        let apply = self
            .settings
            .apply_hint
            .map_or_else(|| format!("`{} up`", self.settings.tool), str::to_owned);
        match state {
            State::Current => state.to_string(),
            State::Empty => format!("{state}; create it with {apply}"),
            State::Behind { .. } => format!("{state}; apply with {apply}"),
            State::Ahead { .. } => format!("{state}; update this program"),
            State::Diverged { .. } => format!("{state}; use the build that migrated it"),
            State::Foreign { .. } => format!(
                "{state}: there is no history in {}. Nothing was changed; point DB_PATH, DB_NAME \
                 or DB_SCHEMA at an empty place, or note what is there with `{} baseline`",
                self.settings.history, self.settings.tool
            ),
        }
    }

    /// Reads which steps were applied, oldest first; none when there is no history.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when the database can't be read.
    pub async fn applied<C: ConnectionTrait>(&self, connection: &C) -> Result<Vec<Applied>, Error> {
        history::applied(connection, self.history()).await
    }

    pub(super) async fn applied_names<C: ConnectionTrait>(
        &self,
        connection: &C,
    ) -> Result<Vec<String>, Error> {
        let applied = self.applied(connection).await?;
        Ok(applied.into_iter().map(|step| step.name).collect())
    }

    /// Returns the steps that a plan runs on a database with this history.
    #[must_use]
    pub fn planned(&self, plan: Plan, applied: &[String]) -> Vec<(&dyn Migration, Direction)> {
        let is_applied = |step: &dyn Migration| applied.iter().any(|name| name == step.name());
        let (reversed, again) = match plan {
            Plan::Up(_) => (0, false),
            Plan::Fresh => (0, true),
            Plan::Down(steps) => (steps as usize, false),
            Plan::Reset => (usize::MAX, false),
            Plan::Refresh => (usize::MAX, true),
        };
        let all = || self.migrations().iter().map(|step| &**step);
        let down = all().rev().filter(|step| is_applied(*step)).take(reversed);
        let mut steps: Vec<_> = down.map(|step| (step, Direction::Down)).collect();
        let up = all().filter(|step| again || !is_applied(*step));
        let limit = match plan {
            Plan::Up(limit) => limit.map_or(usize::MAX, |limit| limit as usize),
            Plan::Refresh | Plan::Fresh => usize::MAX,
            Plan::Down(_) | Plan::Reset => 0,
        };
        steps.extend(up.take(limit).map(|step| (step, Direction::Up)));
        steps
    }

    /// Returns what the steps drop of the tables that `of` names for each.
    pub(super) fn dropped(
        &self,
        plan: Plan,
        steps: &[(&dyn Migration, Direction)],
        of: fn(&dyn Migration) -> &'static [&'static str],
    ) -> Vec<&'static str> {
        if plan == Plan::Fresh {
            return self.tables();
        }
        let reversed = steps
            .iter()
            .filter(|(_, direction)| *direction == Direction::Down);
        reversed
            .flat_map(|(step, _)| of(*step).iter().copied())
            .collect()
    }

    /// Counts the rows that a plan would delete, per table, without tables that are empty.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when the database can't be read.
    pub async fn losses<C: ConnectionTrait>(
        &self,
        connection: &C,
        plan: Plan,
    ) -> Result<Vec<Loss>, Error> {
        let existing = tables(connection).await?;
        let applied = self.applied_names(connection).await?;
        let steps = self.planned(plan, &applied);
        let mut lost = self.dropped(plan, &steps, |step| step.destroys());
        lost.retain(|table| existing.contains(*table));
        let backend = connection.get_database_backend();
        let mut losses = Vec::new();
        for table in lost {
            let sql = format!("SELECT count(*) AS rows FROM \"{table}\"");
            let row = connection
                .query_one_raw(Statement::from_string(backend, sql))
                .await
                .context("counting rows")?;
            let rows: i64 = row
                .map_or(Ok(0), |row| row.try_get("", "rows"))
                .context("counting rows")?;
            if rows > 0 {
                losses.push(Loss { table, rows });
            }
        }
        Ok(losses)
    }

    /// Reads the tables and domains that the steps make, and the history, as they are now.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when the database can't be read.
    pub async fn catalog<C: ConnectionTrait>(&self, connection: &C) -> Result<Catalog, Error> {
        let mut tables = self.tables();
        tables.push(self.history());
        let domains: Vec<&str> = self
            .migrations()
            .iter()
            .flat_map(|step| step.domains().iter().copied())
            .collect();
        Catalog::read(connection, &tables, &domains).await
    }

    /// Returns the schema that the steps make, from [`RunnerBuilder::snapshots`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSnapshot`] and [`Error::Snapshot`].
    pub fn snapshot(&self, backend: DbBackend) -> Result<Catalog, Error> {
        let tool = self.settings.tool;
        let (sqlite, postgres) = self.settings.snapshots.ok_or(Error::NoSnapshot(tool))?;
        let text = match backend {
            DbBackend::Postgres => postgres,
            _ => sqlite,
        };
        if text.trim().is_empty() {
            return Err(Error::NoSnapshot(tool));
        }
        serde_json::from_str(text).map_err(|source| Error::Snapshot { tool, source })
    }

    /// Compares a live schema with the one that the steps make. It looks at the tables of
    /// these steps only, and needs read rights only. It also finds sequences that stand behind
    /// their columns, where it may read both, and rights that a role which writes lacks.
    ///
    /// # Errors
    ///
    /// [`Error::NoSnapshot`] without [`RunnerBuilder::snapshots`], and [`Error::Database`].
    pub async fn check<C: ConnectionTrait>(
        &self,
        connection: &C,
    ) -> Result<Vec<Difference>, Error> {
        let expected = self.snapshot(connection.get_database_backend())?;
        let mut found = differences(&self.catalog(connection).await?, &expected);
        let tables = self.tables();
        found.extend(sequences_behind(connection, &tables).await?);
        found.extend(missing_rights(connection, &tables).await?);
        Ok(found)
    }
}
