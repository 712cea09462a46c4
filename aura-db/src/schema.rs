//! Whether the database has the schema that this build needs.

use aura_orm::TypedQuery;
use connection::Target;
use migration::{QueryNames, State};
use sea_orm::Statement;

use crate::context::Executor;
use crate::database::Database;
use crate::error::Error;

impl Database {
    pub(crate) async fn prepare_schema(&self) -> Result<(), Error> {
        let state = self.schema_state().await?;
        if state != State::Current {
            self.bring_up(&state).await?;
            let state = self.schema_state().await?;
            migration::runner().require(state)?;
        }
        Ok(())
    }

    async fn bring_up(&self, state: &State) -> Result<(), Error> {
        match self.config().target {
            // Another connection would be another database.
            Target::Memory => {
                let writer = self.seaorm().writer().await?;
                migration::runner()
                    .up_in_memory(&writer, migration::log)
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
        let names = Names(self.executor());
        migration::runner().state_by(self.backend(), &names).await
    }
}

/// Asks the migration's questions.
struct Names<'a>(&'a Executor);

impl QueryNames for Names<'_> {
    type Error = Error;

    async fn names(&self, sql: String) -> Result<Vec<String>, Error> {
        let query = Statement::from_string(self.0.backend(), sql);
        self.0.fetch_all(TypedQuery::<String>::sql(query)).await
    }
}
