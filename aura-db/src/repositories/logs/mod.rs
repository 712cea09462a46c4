//! What executions tell.
//!
//! ```
//! # use aura_db::{Error, LogFilter, LogLevel, NewLog, NewWorkflow, PageRequest, testing::TestDatabase};
//! # use aura_db::logs::TailFrom;
//! # #[tokio::main] async fn main() -> Result<(), Error> {
//! # let db = TestDatabase::sqlite().await?;
//! # let ada = db.user("ada").await?;
//! # let flow = db.workflows().create(NewWorkflow::new("x").owner(ada.id)).await?;
//! let mut tail = db.logs().tail(LogFilter::workflow(flow.id), TailFrom::Now).await?;
//! db.logs().append(NewLog::new(flow.id, LogLevel::Info, "started")).await?;
//! assert_eq!(tail.next().await?[0].message, "started");
//!
//! let errors = LogFilter::workflow(flow.id).at_least(LogLevel::Warn);
//! assert!(db.logs().list(errors, PageRequest::first(50)).await?.items.is_empty());
//! # Ok(()) }
//! ```

mod append_batch;
mod filter;
mod followers;
mod gap_queries;
mod gap_tracker;
#[cfg(test)]
mod plans;
mod stats;
mod tail;

use std::collections::BTreeSet;

use aura_orm::{CachedSql, ModelOf, Slot, TypedQuery, returning};
use chrono::{DateTime, Utc};
use entity::{
    Action, Document, ExecutionId, LogId, LogLevel, Resource, WorkflowId, executions, logs,
    workflows,
};
use sea_orm::sea_query::{Expr, LockBehavior, LockType, Query};
use sea_orm::{
    ColumnTrait, DbBackend, EntityTrait, ExprTrait, QueryFilter, QuerySelect, QueryTrait,
    Statement, Value,
};

pub(crate) use self::append_batch::{Appended, LogEntry};
pub use self::filter::LogFilter;
pub(crate) use self::followers::Followers;
pub use self::stats::{LogDay, LogStats};
pub use self::tail::{Tail, TailFrom, TailPosition};
pub use entity::logs::Model as Log;

use crate::IntoDocument;
use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::batches::Changed;
use crate::repositories::filter::{reads, setters};
use crate::repositories::{clamp_timestamp, json_expr};
use crate::validate::Check;
use append_batch::AppendBatch;
use aura_orm::page::{Page, PageRequest};

/// The most entries that [`Logs::append_many`] takes at once.
pub const MAX_BATCH: usize = 100_000;

/// What an entry is made of; the database counts the ids.
const COLUMNS: [logs::Column; 6] = [
    logs::Column::Level,
    logs::Column::Message,
    logs::Column::WorkflowId,
    logs::Column::ExecutionId,
    logs::Column::CreatedAt,
    logs::Column::Metadata,
];

/// A log entry to be appended. Its time is the database's clock.
#[derive(Debug, Clone)]
pub struct NewLog {
    /// How much it matters.
    pub level: LogLevel,
    /// What happened; up to 1 MiB.
    pub message: String,
    /// Of which workflow.
    pub workflow: WorkflowId,
    /// Of which of its executions.
    pub execution: Option<ExecutionId>,
    /// Details. On PostgreSQL stored as `jsonb`, which sorts the members.
    pub metadata: Option<Document>,
}

impl NewLog {
    /// An entry of a workflow.
    #[must_use]
    pub fn new(workflow: WorkflowId, level: LogLevel, message: impl Into<String>) -> Self {
        Self {
            level,
            message: message.into(),
            workflow,
            execution: None,
            metadata: None,
        }
    }

    fn checked(&self) -> Result<(), Error> {
        let mut check = Check::default();
        check.long_text("message", &self.message);
        check.searchable("metadata", self.metadata.as_ref());
        check.done()
    }

    /// About so many, as it is sent.
    fn bytes(&self) -> usize {
        self.message.len() + self.metadata.as_ref().map_or(0, |json| json.as_str().len())
    }

    /// The values of [`COLUMNS`].
    fn row(&self, now: DateTime<Utc>) -> Vec<Value> {
        vec![
            self.level.into(),
            self.message.clone().into(),
            self.workflow.into(),
            self.execution.into(),
            now.into(),
            self.metadata.clone().into(),
        ]
    }
}

setters!(NewLog {
    /// Sets the execution that wrote it, which is one of the workflow's.
    execution(execution: ExecutionId) => execution = Some(execution),
    /// Sets details. On PostgreSQL they are `jsonb`, which sorts the members.
    metadata(json: impl IntoDocument) => metadata = json.into_document(),
});

/// The log entries. From [`Database::logs`](crate::Database::logs). They are in
/// the order of their ids, also when the clock was set back.
#[derive(Debug, Clone)]
pub struct Logs(pub(crate) Context);

const fn op(name: &'static str, action: Action) -> Op {
    Op {
        table: "logs",
        name,
        needs: (action, Resource::Execution),
    }
}

reads!(Logs of logs: LogId, Log);

impl Logs {
    /// Appends one entry.
    ///
    /// Fails with [`Error::NotFound`] when there is no such workflow, or it has
    /// no such execution, and with [`Error::Validation`].
    pub async fn append(&self, new: NewLog) -> Result<Log, Error> {
        new.checked()?;
        let new = &new;
        self.0
            .write(op("append", Action::Update), |h| async move {
                match appending(&h, new).await? {
                    Some(log) => {
                        h.notify_appended([new.workflow]);
                        Ok(log)
                    }
                    None => Err(unknown(&h, [new.workflow]).await?.unwrap_or_else(|| {
                        let execution = new.execution.unwrap_or(ExecutionId(0));
                        Error::not_found("execution", format!("{execution} of that workflow"))
                    })),
                }
            })
            .await
    }

    /// Appends many entries, all or none, and says how many. However large they
    /// are, they go to the database in parts of a few MiB.
    ///
    /// Fails with [`Error::Validation`] when there are more than
    /// [`MAX_BATCH`], or one can't be stored, and with [`Error::NotFound`] when
    /// there is no such workflow, or it has no such execution.
    pub async fn append_many(&self, entries: Vec<NewLog>) -> Result<u64, Error> {
        if entries.len() > MAX_BATCH {
            return Err(Error::field("entries", "must be at most 100,000"));
        }
        for (index, entry) in entries.iter().enumerate() {
            if let Err(Error::Validation(mut errors)) = entry.checked() {
                for error in &mut errors {
                    error.problem = format!("of entry {index}: {}", error.problem);
                }
                return Err(Error::Validation(errors));
            }
        }
        let entries = &entries;
        self.0
            .atomic(op("append_many", Action::Update), |h| async move {
                let workflows: BTreeSet<_> = entries.iter().map(|entry| entry.workflow).collect();
                if let Some(error) = unknown(&h, workflows.iter().copied()).await? {
                    return Err(error);
                }
                strangers(&h, entries).await?;
                let now = h.now();
                let rows = entries.iter().map(|entry| (entry.row(now), entry.bytes()));
                let count = h
                    .insert_bulk::<logs::Entity>(&COLUMNS, Box::new(rows))
                    .await?;
                h.notify_appended(workflows);
                Ok(count)
            })
            .await
    }

    /// A part of the entries, newest first.
    ///
    /// Fails with [`Error::Validation`] when the page or the text can't be used.
    pub async fn list(&self, filter: LogFilter, page: PageRequest) -> Result<Page<Log>, Error> {
        let (filter, page) = (&filter, &page);
        self.0
            .read(op("list", Action::Read), |h| async move {
                let (select, all) = (filter.0.select_page(&h, page)?, filter.0.select(&h)?);
                let order = filter.0.order();
                h.page_of(select, all, &order, page.clone()).await
            })
            .await
    }

    /// Removes at most `limit` entries that were written before this time, oldest
    /// first, and says how many. Of several who do this at once each removes
    /// others. Call it until it says 0.
    ///
    /// Outside of a transaction they are removed in batches that commit by themselves:
    /// what is removed before a failure stays removed.
    pub async fn prune(&self, before: DateTime<Utc>, limit: u64) -> Result<u64, Error> {
        let before = clamp_timestamp(before);
        self.0
            .in_batches(op("prune", Action::Delete), limit, |h, batch| async move {
                let sql = match h.backend() {
                    DbBackend::Postgres => PRUNE_POSTGRES,
                    _ => PRUNE_SQLITE,
                };
                let values = vec![before.into(), batch.limit().into()];
                h.sql(sql, values).await.map(Changed::rows)
            })
            .await
    }
}

/// Inserts an entry, when there is such a workflow, and it has the execution.
async fn appending(h: &Context, new: &NewLog) -> Result<Option<Log>, Error> {
    let now = h.now();
    if h.backend() == DbBackend::Sqlite || h.in_transaction() {
        return appending_alone(h, new, now, Locked::Wait).await;
    }
    let entry = || LogEntry::of(new, now);
    match h.appends().join(entry, AppendBatch(h.clone())).await {
        Slot::Follower(Some(appended)) => {
            h.count_rows(1);
            appended.map(Some)
        }
        Slot::Follower(None) => appending_alone(h, new, now, Locked::Wait).await,
        Slot::Lost => Err(Error::OutcomeUnknown {
            context: "writing",
            source: "the task that sent it has ended".into(),
        }),
        Slot::Leader(leader) => {
            // Counts as in flight until its end, so it doesn't wait for a lock.
            let appended = appending_alone(h, new, now, Locked::Skip).await?;
            drop(leader);
            match appended {
                None => appending_alone(h, new, now, Locked::Wait).await,
                appended => Ok(appended),
            }
        }
    }
}

/// What to do when the workflow or the execution is locked on PostgreSQL, as while it is
/// purged.
#[derive(Clone, Copy)]
enum Locked {
    Wait,
    /// Append nothing, as if it didn't exist.
    Skip,
}

async fn appending_alone(
    h: &Context,
    new: &NewLog,
    now: DateTime<Utc>,
    locked: Locked,
) -> Result<Option<Log>, Error> {
    static APPEND: CachedSql = CachedSql::new();
    static OF_EXECUTION: CachedSql = CachedSql::new();
    static APPEND_UNLOCKED: CachedSql = CachedSql::new();
    static OF_EXECUTION_UNLOCKED: CachedSql = CachedSql::new();
    let mut values = new.row(now);
    // The workflow's is the one that is found.
    let workflow = values.remove(2);
    values.extend(new.execution.map(Value::from));
    values.push(workflow);
    let fixed = match (new.execution, locked) {
        (None, Locked::Wait) => &APPEND,
        (Some(_), Locked::Wait) => &OF_EXECUTION,
        (None, Locked::Skip) => &APPEND_UNLOCKED,
        (Some(_), Locked::Skip) => &OF_EXECUTION_UNLOCKED,
    };
    let insert = || {
        let mut from = Query::select();
        from.expr(Expr::val(new.level))
            .expr(Expr::val(new.message.clone()))
            .column((workflows::Entity, workflows::Column::Id))
            .expr(Expr::val(new.execution))
            .expr(Expr::val(now))
            .expr(json_expr(logs::Column::Metadata, new.metadata.as_ref()))
            .from(workflows::Entity)
            .and_where(workflows::COLUMN.id.eq(new.workflow));
        if let Some(execution) = new.execution {
            let of_workflow = Expr::col((executions::Entity, executions::Column::WorkflowId))
                .equals((workflows::Entity, workflows::Column::Id));
            let on = executions::COLUMN.id.eq(execution).and(of_workflow);
            from.inner_join(executions::Entity, on);
        }
        if h.backend() == DbBackend::Postgres {
            // Waits for who is purging it, so that it is missing and not a
            // broken reference, which would spoil the caller's transaction.
            // The entry holds it all the same.
            match locked {
                Locked::Wait => from.lock(LockType::KeyShare),
                Locked::Skip => {
                    from.lock_with_behavior(LockType::KeyShare, LockBehavior::SkipLocked)
                }
            };
        }
        let mut insert = Query::insert();
        insert
            .into_table(logs::Entity)
            .columns(COLUMNS)
            .returning(returning::<logs::Entity>(h.backend()))
            .select_from(from)
            .map_err(crate::repositories::unbuilt)?;
        Ok(TypedQuery::<ModelOf<logs::Entity>>::insert(insert))
    };
    h.fetch_optional(fixed.with(values, insert)).await
}

/// The ids are not in the order of time when a clock was ahead, so what is old
/// is looked for in the index that has the times.
const PRUNE_POSTGRES: &str = r"
DELETE FROM logs WHERE id = ANY (ARRAY (
    SELECT id FROM logs WHERE created_at < $1
    ORDER BY created_at, id LIMIT $2 FOR UPDATE SKIP LOCKED))";

const PRUNE_SQLITE: &str = r"
DELETE FROM logs WHERE id IN (
    SELECT id FROM logs WHERE created_at < ?1 ORDER BY created_at, id LIMIT ?2)";

/// The error about the first of these workflows that doesn't exist. Those that
/// do stay until the end of the transaction.
async fn unknown(
    h: &Context,
    ids: impl IntoIterator<Item = WorkflowId>,
) -> Result<Option<Error>, Error> {
    let mut missing: BTreeSet<WorkflowId> = ids.into_iter().collect();
    let known = TypedQuery::<(WorkflowId,)>::sql(known(h, &missing));
    for (id,) in h.fetch_all(known).await? {
        missing.remove(&id);
    }
    let first = missing.first();
    Ok(first.map(|id| Error::not_found("workflow", id)))
}

/// A statement that is the same for any number of workflows.
fn known(h: &Context, ids: &BTreeSet<WorkflowId>) -> Statement {
    let list: Vec<_> = ids.iter().map(ToString::to_string).collect();
    let list = list.join(",");
    let (sql, list) = match h.backend() {
        DbBackend::Postgres => (KNOWN_POSTGRES, format!("{{{list}}}")),
        _ => (KNOWN_SQLITE, format!("[{list}]")),
    };
    Statement::from_sql_and_values(h.backend(), sql, [list.into()])
}

const KNOWN_POSTGRES: &str =
    "SELECT id FROM workflows WHERE id = ANY (CAST($1 AS bigint[])) ORDER BY id FOR KEY SHARE";

const KNOWN_SQLITE: &str = "SELECT id FROM workflows WHERE id IN (SELECT value FROM json_each(?))";

/// Refuses an execution that is not one of its entry's workflow.
async fn strangers(h: &Context, entries: &[NewLog]) -> Result<(), Error> {
    let pairs = entries
        .iter()
        .filter_map(|entry| Some((entry.execution?, entry.workflow)));
    let mut missing: BTreeSet<(ExecutionId, WorkflowId)> = pairs.collect();
    let ids: Vec<_> = missing.iter().map(|(id, _)| *id).collect();
    for ids in ids.chunks(1_000) {
        let known = executions::Entity::find()
            .select_only()
            .columns([executions::Column::Id, executions::Column::WorkflowId])
            .filter(executions::COLUMN.id.is_in(ids.iter().copied()));
        for pair in h
            .fetch_all(TypedQuery::<(ExecutionId, WorkflowId)>::of(
                known.into_query(),
            ))
            .await?
        {
            missing.remove(&pair);
        }
    }
    match missing.first() {
        None => Ok(()),
        Some((execution, _)) => Err(Error::not_found(
            "execution",
            format!("{execution} of that workflow"),
        )),
    }
}
