//! Whether the database has the schema that this build needs.

use connection::Target;
use migration::{Runner, State};
use sea_orm::SqliteTransactionMode;

use crate::database::Database;
use crate::error::{Context, Error};
use crate::seaorm::begin;

impl Database {
    pub(crate) async fn prepare_schema(&self) -> Result<(), Error> {
        let state = self.schema_state().await?;
        if state != State::Current {
            self.bring_up(&state).await?;
            self.schema_state().await?.require()?;
        }
        if let Some(server) = self.executor().shared.postgres() {
            server.wait_for_returns().await;
        }
        Ok(())
    }

    async fn bring_up(&self, state: &State) -> Result<(), Error> {
        match self.config().target {
            // Another connection would be another database.
            Target::Memory => {
                Runner::default()
                    .up_in_memory(&self.executor().connections().writer, migration::log)
                    .await?;
            }
            _ if self.config().synchronize && !matches!(state, State::Ahead { .. }) => {
                migration::up(self.config()).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// How the schema relates to the one that this build knows.
    ///
    /// Fails when the database can't be read.
    pub async fn schema_state(&self) -> Result<State, Error> {
        // The pool would open another connection for each statement that comes
        // before it has the last one back.
        let look = begin(
            self.executor().connections().reader.clone(),
            SqliteTransactionMode::Deferred,
        )
        .await?;
        let state = migration::state(&look).await?;
        look.rollback().await.context("looking at the schema")?;
        Ok(state)
    }
}
