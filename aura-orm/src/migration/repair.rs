//! Mends a history that went wrong by hand: notes steps without running them.

use connection::Config;
use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, Statement};

use super::error::{Context, Error};
use super::history::{self, tables};
use super::{Direction, Event, Migration, Runner, State, lock};

/// What [`Runner::resolve`] notes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// It was applied.
    Applied,
    /// It was not applied.
    NotApplied,
}

impl Runner {
    /// Returns the pending steps up to this one, or all of them: what [`Runner::baseline`]
    /// would note as applied.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownStep`] when this build has no step of this name,
    /// [`Error::NotThere`] when a table of the steps doesn't exist, and [`Error::Schema`]
    /// when the history has steps that this build doesn't know.
    pub async fn baseline_steps<C: ConnectionTrait>(
        &self,
        connection: &C,
        until: Option<&str>,
    ) -> Result<Vec<&'static str>, Error> {
        let state = self.state(connection).await?;
        if matches!(state, State::Ahead { .. } | State::Diverged { .. }) {
            return Err(self.refuse(state));
        }
        let steps = self.migrations();
        let end = match until {
            None => steps.len(),
            Some(name) => match steps.iter().position(|step| step.name() == name) {
                Some(at) => at + 1,
                None => return Err(self.unknown(name)),
            },
        };
        let applied = self.applied_names(connection).await?;
        let is_pending = |step: &&dyn Migration| !applied.iter().any(|name| name == step.name());
        let steps = steps[..end].iter().map(|step| &**step);
        let steps: Vec<&dyn Migration> = steps.filter(is_pending).collect();
        let existing = tables(connection).await?;
        for step in &steps {
            let missing = step
                .tables()
                .iter()
                .find(|table| !existing.contains(**table));
            if let Some(table) = missing {
                return Err(Error::NotThere {
                    step: step.name().to_owned(),
                    table: (*table).to_owned(),
                });
            }
        }
        Ok(steps.into_iter().map(Migration::name).collect())
    }

    /// Notes the pending steps up to this one, or all of them, as applied, without running
    /// them: for a schema that was made by other means. Returns those that it noted.
    ///
    /// # Errors
    ///
    /// Those of [`Runner::baseline_steps`].
    pub async fn baseline(
        &self,
        config: &Config,
        until: Option<&str>,
        mut on_event: impl FnMut(Event<'_>) + Send,
    ) -> Result<Vec<&'static str>, Error> {
        self.settings.validate()?;
        let connection = connection::connect_exclusive(config).await?;
        let noted = async {
            let transaction = lock::begin(&connection, &mut on_event).await?;
            let steps = self.baseline_steps(&transaction, until).await?;
            for name in &steps {
                self.note(&transaction, name, Direction::Up).await?;
            }
            self.commit(transaction).await?;
            Ok(steps)
        };
        closed(noted.await, &connection).await
    }

    /// Returns whether [`Runner::resolve`] would change the history.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownStep`] when neither this build nor the history has a step of this
    /// name.
    pub async fn resolves<C: ConnectionTrait>(
        &self,
        connection: &C,
        name: &str,
        resolution: Resolution,
    ) -> Result<bool, Error> {
        let applied = self.applied_names(connection).await?;
        let is_applied = applied.iter().any(|other| other == name);
        let is_known = self.migrations().iter().any(|step| step.name() == name);
        match resolution {
            Resolution::Applied if is_applied => Ok(false),
            Resolution::NotApplied if is_applied => Ok(true),
            _ if is_known => Ok(resolution == Resolution::Applied),
            _ => Err(self.unknown(name)),
        }
    }

    /// Notes one step as applied or as not applied, without running it. Returns whether that
    /// changed the history. A step that this build doesn't know can be noted as not applied.
    ///
    /// # Errors
    ///
    /// Those of [`Runner::resolves`].
    pub async fn resolve(
        &self,
        config: &Config,
        name: &str,
        resolution: Resolution,
        mut on_event: impl FnMut(Event<'_>) + Send,
    ) -> Result<bool, Error> {
        self.settings.validate()?;
        let connection = connection::connect_exclusive(config).await?;
        let noted = async {
            let transaction = lock::begin(&connection, &mut on_event).await?;
            if !self.resolves(&transaction, name, resolution).await? {
                return Ok(false);
            }
            let direction = match resolution {
                Resolution::Applied => Direction::Up,
                Resolution::NotApplied => Direction::Down,
            };
            self.note(&transaction, name, direction).await?;
            self.commit(transaction).await?;
            Ok(true)
        };
        closed(noted.await, &connection).await
    }

    fn unknown(&self, name: &str) -> Error {
        Error::UnknownStep {
            name: name.to_owned(),
            history: self.history(),
        }
    }

    pub(super) async fn commit(&self, transaction: DatabaseTransaction) -> Result<(), Error> {
        let tool = self.tool();
        let committed = transaction.commit().await;
        committed.map_err(|source| Error::of_commit(tool, source))
    }

    /// Notes in the history that a step was run in this direction.
    pub(super) async fn note<C: ConnectionTrait>(
        &self,
        connection: &C,
        name: &str,
        direction: Direction,
    ) -> Result<(), Error> {
        const CONTEXT: &str = "noting a migration";
        let (backend, history) = (connection.get_database_backend(), self.history());
        let exists = Statement::from_string(backend, history::exists(backend, history));
        if connection
            .query_one_raw(exists)
            .await
            .context(CONTEXT)?
            .is_none()
        {
            let create = history::create(backend, history);
            connection
                .execute_unprepared(&create)
                .await
                .context(CONTEXT)?;
        }
        let record = history::record(backend, history, name, direction);
        connection
            .execute_unprepared(&record)
            .await
            .context(CONTEXT)?;
        Ok(())
    }
}

/// Closes a connection after its work.
async fn closed<T>(result: Result<T, Error>, connection: &DatabaseConnection) -> Result<T, Error> {
    let _ = connection.close_by_ref().await;
    result
}
