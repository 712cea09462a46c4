//! How attempts ended that failed.

use entity::{Action, Document, ExecutionId, execution_attempts, executions};
use sea_orm::{ColumnTrait, DbBackend, EntityTrait, QueryFilter, QueryOrder};

use super::sql::{NOTE_POSTGRES, NOTE_SQLITE, TRIM_SQLITE};
use super::{Execution, Executions, op};
use crate::context::Context;
use crate::error::Error;
use crate::repositories::readable;

pub use entity::execution_attempts::Model as ExecutionAttempt;

/// How many bytes are kept of the reason of an attempt.
const REASON_BYTES: usize = 2_048;

impl Executions {
    /// Returns how attempts of an execution ended that failed and could have been followed by
    /// another, or lost their worker: the last 20, oldest first. Of each there is the beginning
    /// of the reason, of at most 2,048 bytes; where the worker was lost it is
    /// `{"code":"lease_expired"}`. How the last one ended is in the execution itself, too. One
    /// that this build can't read is logged as an error (target `aura_db::unreadable`) and left
    /// out.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn attempts(&self, id: ExecutionId) -> Result<Vec<ExecutionAttempt>, Error> {
        use execution_attempts::{COLUMN, Column, Entity};
        self.0
            .read(op("attempts", Action::Read), |h| async move {
                h.rows::<executions::Entity>().get(id).await?;
                let attempts = Entity::find()
                    .filter(COLUMN.execution_id.eq(id))
                    .order_by_asc(Column::ClaimNo);
                Ok(readable(h.fetch_results(attempts).await?.rows))
            })
            .await
    }
}

/// Keeps how an attempt of this execution has ended, and forgets those before the last 20.
pub(super) async fn note(
    h: &Context,
    execution: &Execution,
    worker: &str,
    error: &Document,
) -> Result<(), Error> {
    let text = error.as_str();
    let reason = &text[..text.floor_char_boundary(REASON_BYTES)];
    let values = vec![
        h.shared_now().into(),
        execution.id.0.into(),
        execution.claim_no.into(),
        execution.attempts.into(),
        worker.into(),
        reason.into(),
    ];
    if h.backend() == DbBackend::Postgres {
        h.sql(&**NOTE_POSTGRES, values).await?;
    } else {
        h.sql(&**TRIM_SQLITE, vec![execution.id.0.into()]).await?;
        h.sql(&**NOTE_SQLITE, values).await?;
    }
    Ok(())
}
