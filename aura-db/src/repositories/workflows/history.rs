//! Changes by version, and the versions before.

use super::{Workflow, WorkflowChange, WorkflowVersion, Workflows, check, op};
use crate::context::Context;
use crate::error::Error;
use crate::repositories::owned::lock;
use aura_orm::page::{Page, PageRequest, Sort};
use aura_orm::projection;
use aura_orm::repository::Projection;
use aura_orm::{CachedSql, ModelOf, TypedQuery};
use chrono::{DateTime, Utc};
use entity::{Action, RepositoryEntity, UserId, WorkflowId, workflow_versions, workflows};
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::{
    CommonTableExpression, DeleteStatement, Expr, InsertStatement, LockType, Query,
    QueryStatementBuilder, SelectStatement, UpdateStatement, WithClause,
};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DbBackend, DbErr, EntityTrait, ExprTrait, Iterable, QueryFilter,
    QuerySelect,
};
use serde::Serialize;

/// So many earlier versions are kept of each workflow; the oldest go first.
pub const HISTORY: i64 = 100;

/// The version that [`Workflows::restore_version`] goes back to: a type of its own, because
/// two numbers next to each other are easily swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlierVersion(pub i64);

projection! {
    /// An earlier version, without its documents.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    #[non_exhaustive]
    pub struct WorkflowVersionSummary of workflow_versions {
        /// The version.
        pub version: i64 = Version,
        /// What the workflow was called.
        pub name: String = Name,
        /// What it was for.
        pub description: Option<String> = Description,
        /// When the workflow was last changed while it was at this version.
        pub created_at: DateTime<Utc> = CreatedAt,
        /// Who changed it then.
        pub created_by: Option<UserId> = CreatedBy,
    }
}

impl Workflows {
    /// Changes name, description and documents of the version that the caller
    /// read; the workflow goes to the next version, and the state before into
    /// the history, of which the newest [`HISTORY`] are kept.
    ///
    /// Fails with [`Error::Validation`], with [`Error::NotFound`], and with
    /// [`Error::Stale`] when the workflow is not at this version any
    /// more.
    pub async fn update(
        &self,
        id: WorkflowId,
        version: i64,
        change: WorkflowChange,
    ) -> Result<Workflow, Error> {
        check(&change.0).done()?;
        let change = &change;
        let op = op("update", Action::Update);
        self.0
            .atomic_on_sqlite(op, |h| async move {
                guard(&h, id).await?;
                apply_update(&h, id, version, change).await
            })
            .await
    }

    /// The versions before the present one, newest first.
    ///
    /// Fails with [`Error::NotFound`] when the workflow is not there, and with
    /// [`Error::Validation`] when the page can't be used.
    pub async fn history(
        &self,
        id: WorkflowId,
        page: PageRequest,
    ) -> Result<Page<WorkflowVersionSummary>, Error> {
        use workflow_versions::Column;
        let op = op("history", Action::Read);
        let page = &page;
        self.0
            .read(op, |h| async move {
                known(&h, id).await?;
                let select = workflow_versions::Entity::find()
                    .select_only()
                    .columns(WorkflowVersionSummary::columns())
                    .filter(workflow_versions::COLUMN.workflow_id.eq(id));
                let newest = Sort::desc(Column::Version).unique();
                h.page(select, &newest, page.clone()).await
            })
            .await
    }

    /// An earlier version.
    ///
    /// Fails with [`Error::NotFound`] when the workflow or the version is not
    /// there.
    pub async fn version(&self, id: WorkflowId, version: i64) -> Result<WorkflowVersion, Error> {
        let op = op("version", Action::Read);
        self.0
            .read(op, |h| async move {
                known(&h, id).await?;
                find_version(&h, id, version).await
            })
            .await
    }

    /// Makes an earlier version the present one again, as a new version:
    /// `read` is the version that the workflow is at now.
    ///
    /// Fails like [`Workflows::update`], and with [`Error::NotFound`] when
    /// there is no such version.
    pub async fn restore_version(
        &self,
        id: WorkflowId,
        read: i64,
        version: EarlierVersion,
    ) -> Result<Workflow, Error> {
        let op = op("restore_version", Action::Update);
        self.0
            .atomic(op, |h| async move {
                // Held first, so that the version isn't pruned meanwhile.
                lock::<workflows::Entity>(&h, id.0).await?;
                let found = present(&h, id).await?;
                if read != found {
                    return Err(stale(id, read, found));
                }
                let earlier = find_version(&h, id, version.0).await?;
                let change = WorkflowChange::new()
                    .name(earlier.name)
                    .description(earlier.description)
                    .settings(earlier.settings)
                    .connections(earlier.connections)
                    .nodes(earlier.nodes);
                apply_update(&h, id, read, &change).await
            })
            .await
    }

    /// Forgets all earlier versions but the newest `keep`, and says how many it
    /// forgot.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn prune_history(&self, id: WorkflowId, keep: u32) -> Result<u64, Error> {
        let op = op("prune_history", Action::Delete);
        self.0
            .atomic(op, |h| async move {
                lock::<workflows::Entity>(&h, id.0).await?;
                let version = present(&h, id).await?;
                delete_versions(&h, id, version - 1 - i64::from(keep)).await
            })
            .await
    }
}

fn stale(workflow: WorkflowId, read: i64, found: i64) -> Error {
    Error::Stale {
        what: "workflow",
        key: workflow.to_string(),
        read,
        found,
    }
}

/// Fails where the workflow is not there, or may not be seen.
async fn known(h: &Context, id: WorkflowId) -> Result<(), Error> {
    let rows = h.rows::<workflows::Entity>();
    if rows.exists(workflows::COLUMN.id.eq(id)).await? {
        return Ok(());
    }
    Err(Error::not_found("workflow", id))
}

/// Fails for another user's workflow, where the handle is limited to own ones.
async fn guard(h: &Context, id: WorkflowId) -> Result<(), Error> {
    let Some(owner) = h.limited_to() else {
        return Ok(());
    };
    let own = workflows::Entity::not_deleted()
        .filter(workflows::COLUMN.id.eq(id))
        .filter(workflows::COLUMN.owner_id.eq(owner));
    if h.exists(own).await? {
        return Ok(());
    }
    Err(Error::not_found("workflow", id))
}

/// Returns the version that the workflow is at.
async fn present(h: &Context, id: WorkflowId) -> Result<i64, Error> {
    let present = workflows::Entity::not_deleted()
        .select_only()
        .column(workflows::Column::Version)
        .filter(workflows::COLUMN.id.eq(id));
    let present = h.scalar(present).await?;
    present.ok_or_else(|| Error::not_found("workflow", id))
}

async fn find_version(h: &Context, id: WorkflowId, version: i64) -> Result<WorkflowVersion, Error> {
    let found = workflow_versions::Entity::find()
        .filter(workflow_versions::COLUMN.workflow_id.eq(id))
        .filter(workflow_versions::COLUMN.version.eq(version));
    h.fetch_optional(found)
        .await?
        .ok_or_else(|| Error::not_found("earlier version", format!("{version} of workflow {id}")))
}

/// Forgets the versions up to this one.
async fn delete_versions(h: &Context, id: WorkflowId, last: i64) -> Result<u64, Error> {
    h.delete(&forgetting(id, last)).await
}

fn forgetting(id: WorkflowId, last: i64) -> DeleteStatement {
    Query::delete()
        .from_table(workflow_versions::Entity)
        .and_where(workflow_versions::COLUMN.workflow_id.eq(id))
        .and_where(workflow_versions::COLUMN.version.lte(last))
        .take()
}

/// What the history keeps of a workflow, in the order of [`KEPT`].
const STATE: [workflows::Column; 9] = [
    workflows::Column::Id,
    workflows::Column::Version,
    workflows::Column::Name,
    workflows::Column::Description,
    workflows::Column::UpdatedAt,
    workflows::Column::UpdatedBy,
    workflows::Column::Settings,
    workflows::Column::Connections,
    workflows::Column::Nodes,
];

const KEPT: [workflow_versions::Column; 9] = [
    workflow_versions::Column::WorkflowId,
    workflow_versions::Column::Version,
    workflow_versions::Column::Name,
    workflow_versions::Column::Description,
    workflow_versions::Column::CreatedAt,
    workflow_versions::Column::CreatedBy,
    workflow_versions::Column::Settings,
    workflow_versions::Column::Connections,
    workflow_versions::Column::Nodes,
];

/// The present state, if it is at this version.
fn state(id: WorkflowId, version: i64) -> SelectStatement {
    Query::select()
        .columns(STATE)
        .from(workflows::Entity)
        .and_where(workflows::COLUMN.id.eq(id))
        .and_where(workflows::COLUMN.version.eq(version))
        .and_where(workflows::COLUMN.deleted_at.is_null())
        .take()
}

/// Copies what is selected into the history.
fn archive(state: SelectStatement) -> Result<InsertStatement, DbErr> {
    let mut insert = Query::insert();
    insert
        .into_table(workflow_versions::Entity)
        .columns(KEPT)
        .select_from(state)
        .map_err(crate::repositories::unbuilt)?;
    Ok(insert)
}

/// Changes a workflow that is at this version, and keeps its state before; `None`
/// when it is not.
async fn replace(
    h: &Context,
    id: WorkflowId,
    version: i64,
    mut update: UpdateStatement,
) -> Result<Option<Workflow>, Error> {
    static ARCHIVE: CachedSql = CachedSql::new();
    if h.backend() == DbBackend::Postgres {
        update.and_where(
            workflows::COLUMN
                .id
                .in_subquery(old(&[workflows::Column::Id])),
        );
        let with = at_once(id, version)?;
        return h
            .fetch_optional(TypedQuery::<ModelOf<workflows::Entity>>::update_with(
                update, with,
            ))
            .await;
    }
    let archive = ARCHIVE.with(vec![id.into(), version.into()], || {
        Ok(TypedQuery::<()>::insert(archive(state(id, version))?))
    });
    if h.execute_typed(archive).await? == 0 {
        return Ok(None);
    }
    update
        .and_where(workflows::COLUMN.id.eq(id))
        .and_where(workflows::COLUMN.version.eq(version));
    let updated = h.update_returning::<workflows::Entity>(update).await?.pop();
    if version > HISTORY {
        delete_versions(h, id, version - HISTORY).await?;
    }
    Ok(updated)
}

/// What PostgreSQL does together with the change, in one statement and one round
/// trip: it locks the row, so that of two who read the same version the second
/// finds another, and keeps the state that was locked.
fn at_once(id: WorkflowId, version: i64) -> Result<WithClause, Error> {
    fn named(name: &'static str, query: impl QueryStatementBuilder) -> CommonTableExpression {
        let mut part = CommonTableExpression::new();
        part.table_name(name).query(query);
        part
    }
    let mut with = WithClause::new();
    let locked = state(id, version).lock(LockType::NoKeyUpdate).take();
    with.cte(named("old", locked));
    with.cte(named("kept", archive(old(&STATE))?));
    if version > HISTORY {
        let mut forget = forgetting(id, version - HISTORY);
        forget.and_where(Expr::exists(old(&[workflows::Column::Id])));
        with.cte(named("forgotten", forget));
    }
    Ok(with)
}

/// Columns of the row that [`at_once`] locked.
fn old(columns: &[workflows::Column]) -> SelectStatement {
    let columns = columns.iter().copied();
    Query::select().columns(columns).from("old").take()
}

async fn apply_update(
    h: &Context,
    id: WorkflowId,
    version: i64,
    change: &WorkflowChange,
) -> Result<Workflow, Error> {
    use workflows::Column;
    let mut update = h.audited_update::<workflows::Entity>(h.now());
    update.value(Column::Version, Expr::col(Column::Version).add(1));
    for column in Column::iter() {
        if let Set(value) = change.0.get(column) {
            update.value(column, column.save_as(Expr::val(value)));
        }
    }
    if let Some(workflow) = replace(h, id, version, update).await? {
        return Ok(workflow);
    }
    Err(stale(id, version, present(h, id).await?))
}
