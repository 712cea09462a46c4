//! What people do with executions: resume, cancel, retry, discard.

use entity::{Action, ExecutionId, ExecutionStatus, executions};
use sea_orm::sea_query::{Expr, Query, UpdateStatement};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::clock::ended_at;
use super::lease::{no_limit, no_time, only};
use super::{ENDED, Execution, Executions, limits, missing, op, prune, run};
use crate::context::{Context, Op};
use crate::error::Error;

impl Executions {
    /// Queues an execution that waits, whatever it waits for.
    ///
    /// An event that comes before the worker has called [`Executions::wait`] is
    /// not kept: the error is for its sender, to try again.
    ///
    /// Fails with [`Error::State`] when it doesn't wait, and with
    /// [`Error::NotFound`].
    pub async fn resume(&self, id: ExecutionId) -> Result<Execution, Error> {
        let build = |_: &Context| {
            only(id)
                .value(executions::Column::Status, ExecutionStatus::Queued)
                .value(executions::Column::LimitId, no_limit())
                .value(executions::Column::WaitUntil, no_time())
                .and_where(executions::COLUMN.status.eq(ExecutionStatus::Waiting))
                .take()
        };
        let state = ("is not waiting", "only what waits can be resumed");
        self.by_anyone(run("resume"), id, build, state).await
    }

    /// Stops an execution that has not ended. Its worker notices when it extends or
    /// finishes it.
    ///
    /// Fails with [`Error::State`] when it has ended, and with
    /// [`Error::NotFound`].
    pub async fn cancel(&self, id: ExecutionId) -> Result<Execution, Error> {
        let build = |h: &Context| {
            only(id)
                .value(executions::Column::Status, ExecutionStatus::Canceled)
                .value(
                    executions::Column::FinishedAt,
                    ended_at(h.backend(), h.shared_now()),
                )
                .value(executions::Column::LeaseUntil, no_time())
                .value(executions::Column::WaitUntil, no_time())
                .and_where(executions::COLUMN.status.is_not_in(ENDED))
                .take()
        };
        let state = ("has ended", "there is nothing left to cancel");
        let canceled = self.by_anyone(run("cancel"), id, build, state).await?;
        // Otherwise it took no room.
        if canceled.worker_id.is_some() {
            limits::unpark(&self.0, run("cancel"), &canceled).await?;
        }
        Ok(canceled)
    }

    /// Queues a dead execution again, with all its attempts and what it has by now.
    ///
    /// Fails with [`Error::State`] when it isn't dead, and with [`Error::NotFound`].
    pub async fn retry(&self, id: ExecutionId) -> Result<Execution, Error> {
        let build = |_: &Context| {
            only(id)
                .value(executions::Column::Status, ExecutionStatus::Queued)
                .value(executions::Column::LimitId, no_limit())
                .value(executions::Column::Attempts, 0)
                .value(executions::Column::WorkerId, Option::<String>::None)
                .value(executions::Column::FinishedAt, no_time())
                .value(executions::Column::Error, Expr::cust("NULL"))
                .and_where(executions::COLUMN.status.eq(ExecutionStatus::Dead))
                .take()
        };
        let state = ("is not dead", "only what is dead can be retried");
        self.by_anyone(run("retry"), id, build, state).await
    }

    /// Deletes a dead execution with its logs, and returns it.
    ///
    /// Fails with [`Error::State`] when it isn't dead, and with [`Error::NotFound`].
    pub async fn discard(&self, id: ExecutionId) -> Result<Execution, Error> {
        let state = ("is not dead", "only what is dead can be discarded");
        let (op, h) = (op("discard", Action::Delete), &self.0);
        let look = |h: Context| async move {
            let found = h.rows::<executions::Entity>().get(id).await?;
            if found.status == ExecutionStatus::Dead {
                Ok(found)
            } else {
                Err(refused(&h, id, state).await?)
            }
        };
        let found = h.write(op, look).await?;
        if !h.in_transaction() {
            // Otherwise all of them would be deleted with it in one statement.
            prune::delete_all_entries(h, op, &[id.0]).await?;
        }
        let delete = |h: Context| async move {
            let dead = Query::delete()
                .from_table(executions::Entity)
                .and_where(executions::COLUMN.id.eq(id))
                .and_where(executions::COLUMN.status.eq(ExecutionStatus::Dead))
                .take();
            match h.delete_many(&dead).await? {
                0 => Err(refused(&h, id, state).await?),
                _ => Ok(()),
            }
        };
        h.write(op, delete).await?;
        Ok(found)
    }

    async fn by_anyone(
        &self,
        op: Op,
        id: ExecutionId,
        build: impl Fn(&Context) -> UpdateStatement + Send + Sync,
        state: (&'static str, &'static str),
    ) -> Result<Execution, Error> {
        let build = &build;
        self.0
            .write(op, |h| async move {
                let mut update = build(&h);
                update.cond_where(h.own_rows::<executions::Entity>());
                let changed = h.update_returning::<executions::Entity>(update);
                if let Some(execution) = changed.await?.pop() {
                    if execution.status == ExecutionStatus::Queued {
                        h.notify_queued([execution.queue.as_str()]);
                    }
                    return Ok(execution);
                }
                Err(refused(&h, id, state).await?)
            })
            .await
    }
}

/// Returns why an execution couldn't be changed.
async fn refused(
    h: &Context,
    id: ExecutionId,
    (state, hint): (&'static str, &'static str),
) -> Result<Error, Error> {
    let there = executions::Entity::find()
        .filter(executions::COLUMN.id.eq(id))
        .filter(h.own_rows::<executions::Entity>());
    Ok(if h.exists(there).await? {
        Error::State {
            what: "execution",
            key: id.to_string(),
            state,
            hint,
        }
    } else {
        missing(id)
    })
}
