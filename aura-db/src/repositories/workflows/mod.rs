//! Automations and their history.
//!
//! Name, description and documents change only with the version that the
//! caller read, so that nobody's change is lost unseen; the state before goes
//! into the history.
//!
//! ```
//! # use aura_db::{Error, NewWorkflow, PageRequest, WorkflowChange, WorkflowFilter, testing::TestDatabase};
//! # use serde_json::json;
//! # #[tokio::main] async fn main() -> Result<(), Error> {
//! # let db = TestDatabase::sqlite().await?;
//! # let ada = db.user("ada").await?;
//! let workflows = db.acting_as(ada.id).workflows();
//! let flow = workflows
//!     .create(NewWorkflow::new("Greet").nodes(json!([{"name": "Start"}])))
//!     .await?;
//!
//! let change = WorkflowChange::new().name("Greet politely");
//! let flow = workflows.update(flow.id, flow.version, change.clone()).await?;
//! assert_eq!(flow.version, 2);
//! // Somebody who still has version 1 is told so.
//! assert!(matches!(
//!     workflows.update(flow.id, 1, change).await,
//!     Err(Error::Stale { read: 1, found: 2, .. })
//! ));
//! workflows.restore_version(flow.id, flow.version, 1).await?;
//!
//! let mine = workflows.list(WorkflowFilter::owner(ada.id), PageRequest::first(50)).await?;
//! assert_eq!(mine.items[0].name, "Greet");
//! # Ok(()) }
//! ```

mod change;
mod details;
mod filter;
mod history;
mod plugins;
mod status;

use aura_orm::{CachedSql, ModelOf, TypedQuery, TypedStatement};
use chrono::{DateTime, Utc};
use entity::{
    Action, Live, Resource, UserId, WorkflowId, WorkflowStatus, workflow_plugins, workflows,
};
use sea_orm::sea_query::{LockType, Query};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, DbBackend, EntityTrait, QueryFilter, QuerySelect, QueryTrait,
};
use serde::Serialize;

pub use self::change::{NewWorkflow, WorkflowChange};
use self::details::{Detail, details};
pub use self::filter::{WorkflowFilter, WorkflowSort, WorkflowSummary};
pub use self::history::{HISTORY, WorkflowVersionSummary};
pub use self::status::StatusChange;
pub use entity::workflow_versions::Model as WorkflowVersion;
pub use entity::workflows::Model as Workflow;

use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::plugins::Plugin;
use crate::repositories::users::{User, hold_owner};
use aura_orm::page::{Page, PageRequest};

/// A workflow with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WorkflowDetails {
    /// The workflow.
    pub workflow: Workflow,
    /// Whose it is. `None` on a restricted handle whose user may not read users.
    pub owner: Option<User>,
    /// Its plugins that are not deleted, by name. `None` on a restricted handle
    /// whose user may not read plugins.
    pub plugins: Option<Vec<Plugin>>,
}

/// The workflows. From [`Database::workflows`](crate::Database::workflows).
#[derive(Debug, Clone)]
pub struct Workflows(pub(crate) Context);

const fn op(name: &'static str, action: Action) -> Op {
    Op {
        table: "workflows",
        name,
        needs: (action, Resource::Workflow),
    }
}

impl Workflows {
    /// Creates a workflow; it is a draft unless said otherwise. It belongs to
    /// `owner`, or to who acts.
    ///
    /// Fails with [`Error::Validation`], also when nobody owns it, and with
    /// [`Error::NotFound`] when the owner doesn't exist or is deleted.
    pub async fn create(&self, new: NewWorkflow) -> Result<Workflow, Error> {
        let owner = new.checked(self.0.actor())?;
        let new = &new;
        let op = op("create", Action::Create);
        self.0
            .atomic(op, |h| async move {
                h.ensure_owner(op, owner)?;
                hold_owner(&h, owner).await?;
                h.insert(new.row(&h, owner)).await
            })
            .await
    }

    /// The workflow with this id, unless deleted.
    pub async fn find(&self, id: WorkflowId) -> Result<Option<Workflow>, Error> {
        let op = op("find", Action::Read);
        self.0
            .read(op, |h| async move {
                let workflow = h.fetch_optional(live_by_id(id)).await?;
                if let Some(workflow) = &workflow {
                    h.ensure_owner(op, workflow.owner_id)?;
                }
                Ok(workflow)
            })
            .await
    }

    /// The workflow with this id.
    ///
    /// Fails with [`Error::NotFound`] when there is none, or it is deleted.
    pub async fn get(&self, id: WorkflowId) -> Result<Workflow, Error> {
        self.find(id)
            .await?
            .ok_or_else(|| Error::not_found("workflow", id))
    }

    /// The workflow with its owner and its plugins, as far as the user of a
    /// restricted handle may read them.
    ///
    /// Fails with [`Error::NotFound`] when there is none, or it is deleted.
    pub async fn get_details(&self, id: WorkflowId) -> Result<WorkflowDetails, Error> {
        let op = op("get_details", Action::Read);
        self.0
            .read(op, |h| async move {
                let mut found = None;
                let mut plugins = Vec::new();
                for detail in h.fetch_all(details(id)).await? {
                    match detail {
                        Detail::Workflow(both) => found = Some(*both),
                        Detail::Plugin(plugin) => plugins.push(plugin),
                    }
                }
                let (workflow, owner) = found.ok_or_else(|| Error::not_found("workflow", id))?;
                h.ensure_owner(op, workflow.owner_id)?;
                plugins.sort_by(|a, b| a.name.cmp(&b.name));
                let may_read = |resource| {
                    h.is_allowed(Op {
                        needs: (Action::Read, resource),
                        ..op
                    })
                };
                Ok(WorkflowDetails {
                    workflow,
                    owner: may_read(Resource::User).then_some(owner),
                    plugins: may_read(Resource::Plugin).then_some(plugins),
                })
            })
            .await
    }

    /// A part of the workflows, without their documents.
    ///
    /// Fails with [`Error::Validation`] when the page or the text can't be used.
    pub async fn list(
        &self,
        filter: WorkflowFilter,
        page: PageRequest,
    ) -> Result<Page<WorkflowSummary>, Error> {
        let (filter, page) = (&filter, &page);
        self.0
            .read(op("list", Action::Read), |h| async move {
                let select = WorkflowSummary::columns(filter.select(&h)?);
                h.page(select, &filter.sorted(), page.clone()).await
            })
            .await
    }

    /// A part of the workflows, with their documents.
    ///
    /// Fails with [`Error::Validation`] when the page or the text can't be used.
    pub async fn list_full(
        &self,
        filter: WorkflowFilter,
        page: PageRequest,
    ) -> Result<Page<Workflow>, Error> {
        let (filter, page) = (&filter, &page);
        self.0
            .read(op("list_full", Action::Read), |h| async move {
                let select = filter.select(&h)?;
                h.page(select, &filter.sorted(), page.clone()).await
            })
            .await
    }

    /// Makes a copy, a draft at version 1 with the same documents and plugins,
    /// that belongs to who acts, or else to the same owner. Without a name it
    /// is called "… (copy)".
    ///
    /// Fails with [`Error::NotFound`] and [`Error::Validation`].
    pub async fn duplicate(&self, id: WorkflowId, name: Option<String>) -> Result<Workflow, Error> {
        let op = op("duplicate", Action::Create);
        let name = &name;
        self.0
            .atomic(op, |h| async move {
                let heir = match h.actor() {
                    Some(actor) => actor,
                    None => owner_of(&h, id).await?,
                };
                let held = hold_owner(&h, heir).await;
                let original = lock_whole(&h, op, id).await?;
                let owner = h.actor().unwrap_or(original.owner_id);
                let copy = NewWorkflow {
                    name: name.clone().unwrap_or_else(|| copy_of(&original.name)),
                    description: original.description,
                    owner: Some(owner),
                    status: WorkflowStatus::Draft,
                    settings: original.settings,
                    connections: original.connections,
                    nodes: original.nodes,
                    metadata: original.metadata,
                };
                copy.checked(None)?;
                if owner == heir {
                    held?;
                } else {
                    // It was handed over in between.
                    hold_owner(&h, owner).await?;
                }
                let copy = h.insert(copy.row(&h, owner)).await?;
                let plugins = Query::select()
                    .expr(sea_orm::sea_query::Expr::val(copy.id.0))
                    .column(workflow_plugins::Column::PluginId)
                    .from(workflow_plugins::Entity)
                    .and_where(workflow_plugins::COLUMN.workflow_id.eq(id))
                    .take();
                let attach = Query::insert()
                    .into_table(workflow_plugins::Entity)
                    .columns([
                        workflow_plugins::Column::WorkflowId,
                        workflow_plugins::Column::PluginId,
                    ])
                    .select_from(plugins)
                    .map_err(crate::repositories::unbuilt)?
                    .take();
                h.insert_rows(&attach).await?;
                Ok(copy)
            })
            .await
    }

    /// Deletes the workflow, which can be restored. Its executions and logs
    /// stay.
    ///
    /// Fails with [`Error::NotFound`].
    pub async fn delete(&self, id: WorkflowId) -> Result<(), Error> {
        let op = op("delete", Action::Delete);
        self.0
            .atomic(op, |h| async move {
                lock(&h, op, id).await?;
                let now = h.now();
                let mut update = h.audited_update::<workflows::Entity>(now);
                update
                    .value(workflows::Column::DeletedAt, now)
                    .value(workflows::Column::DeletedWithOwner, false)
                    .and_where(workflows::COLUMN.id.eq(id));
                h.update(&update).await.map(|_| ())
            })
            .await
    }

    /// Brings a deleted workflow back. Restoring one that isn't deleted changes
    /// nothing.
    ///
    /// Fails with [`Error::NotFound`] when there is no such workflow, deleted
    /// or not, and with [`Error::State`] when its owner is deleted.
    pub async fn restore(&self, id: WorkflowId) -> Result<Workflow, Error> {
        let op = op("restore", Action::Delete);
        self.0
            .atomic(op, |h| async move {
                let owner = owner_of(&h, id).await?;
                let mut held = hold_owner(&h, owner).await;
                let workflow = lock_any(&h, op, id).await?;
                if !workflow.deleted {
                    return load(&h, id).await;
                }
                if workflow.owner != owner {
                    held = hold_owner(&h, workflow.owner).await;
                }
                match held {
                    Err(Error::NotFound { .. }) => {
                        return Err(Error::State {
                            what: "workflow",
                            key: id.to_string(),
                            state: "belongs to a deleted user",
                            hint: "restore the user, or transfer the workflow first",
                        });
                    }
                    held => held?,
                };
                let mut update = h.audited_update::<workflows::Entity>(h.now());
                update
                    .value(workflows::Column::DeletedAt, Option::<DateTime<Utc>>::None)
                    .value(workflows::Column::DeletedWithOwner, false)
                    .and_where(workflows::COLUMN.id.eq(id));
                h.update_returning::<workflows::Entity>(update)
                    .await?
                    .pop()
                    .ok_or_else(|| Error::not_found("workflow", id))
            })
            .await
    }

    /// Removes a deleted workflow for good, with its history, executions and
    /// logs.
    ///
    /// Fails with [`Error::NotFound`], and with [`Error::State`] when it isn't
    /// deleted.
    pub async fn purge(&self, id: WorkflowId) -> Result<(), Error> {
        let op = op("purge", Action::Delete);
        self.0
            .atomic(op, |h| async move {
                guard(&h, op, id).await?;
                crate::repositories::purge::<workflows::Entity>(&h, "workflow", id.0).await
            })
            .await
    }
}

fn copy_of(name: &str) -> String {
    const SUFFIX: &str = " (copy)";
    let mut copy: String = name.chars().take(160 - SUFFIX.len()).collect();
    copy.push_str(SUFFIX);
    copy
}

/// What an operation must know of a workflow before it changes it. No documents:
/// they may be large, and one that can't be read is no reason not to delete it.
struct Held {
    owner: UserId,
    version: i64,
    deleted: bool,
}

/// Keeps everybody else from changing the workflow, deleted or not, until the
/// transaction ends.
async fn lock_any(h: &Context, op: Op, id: WorkflowId) -> Result<Held, Error> {
    let mut workflow = workflows::Entity::find()
        .select_only()
        .columns([
            workflows::Column::OwnerId,
            workflows::Column::Version,
            workflows::Column::DeletedAt,
        ])
        .filter(workflows::COLUMN.id.eq(id));
    if h.backend() == DbBackend::Postgres {
        // What refers to the row may still be inserted.
        workflow = workflow.lock(LockType::NoKeyUpdate);
    }
    let (owner, version, deleted_at) = h
        .fetch_optional(TypedQuery::<(UserId, i64, Option<DateTime<Utc>>)>::of(
            workflow.into_query(),
        ))
        .await?
        .ok_or_else(|| Error::not_found("workflow", id))?;
    h.ensure_owner(op, owner)?;
    Ok(Held {
        owner,
        version,
        deleted: deleted_at.is_some(),
    })
}

/// Returns whose the workflow is, deleted or not. The owner is locked before the workflow,
/// as by those who delete or restore a user with the workflows.
async fn owner_of(h: &Context, id: WorkflowId) -> Result<UserId, Error> {
    let owner = workflows::Entity::find()
        .select_only()
        .column(workflows::Column::OwnerId)
        .filter(workflows::COLUMN.id.eq(id));
    h.scalar::<UserId, _>(owner)
        .await?
        .ok_or_else(|| Error::not_found("workflow", id))
}

/// As [`lock_any`], unless it is deleted.
async fn lock(h: &Context, op: Op, id: WorkflowId) -> Result<Held, Error> {
    let workflow = lock_any(h, op, id).await?;
    if workflow.deleted {
        return Err(Error::not_found("workflow", id));
    }
    Ok(workflow)
}

/// As [`lock`], and reads it with its documents.
async fn lock_whole(h: &Context, op: Op, id: WorkflowId) -> Result<Workflow, Error> {
    lock(h, op, id).await?;
    load(h, id).await
}

async fn load(h: &Context, id: WorkflowId) -> Result<Workflow, Error> {
    h.fetch_optional(live_by_id(id))
        .await?
        .ok_or_else(|| Error::not_found("workflow", id))
}

/// Refuses another's workflow when the handle is limited to own ones.
async fn guard(h: &Context, op: Op, id: WorkflowId) -> Result<(), Error> {
    if h.limited_to().is_none() {
        return Ok(());
    }
    h.ensure_owner(op, owner_of(h, id).await?)
}

impl NewWorkflow {
    fn row(&self, h: &Context, owner: UserId) -> workflows::ActiveModel {
        let now = h.now();
        workflows::ActiveModel {
            id: NotSet,
            name: Set(self.name.clone()),
            description: Set(self.description.clone()),
            status: Set(self.status),
            version: Set(1),
            owner_id: Set(owner),
            deleted_with_owner: Set(false),
            created_at: Set(now),
            updated_at: Set(now),
            deleted_at: Set(None),
            created_by: Set(h.actor()),
            updated_by: Set(h.actor()),
            settings: Set(self.settings.clone()),
            connections: Set(self.connections.clone()),
            nodes: Set(self.nodes.clone()),
            metadata: Set(self.metadata.clone()),
        }
    }
}

/// A workflow that is not deleted.
fn live_by_id(id: WorkflowId) -> impl TypedStatement<Decoder = ModelOf<workflows::Entity>> {
    static LIVE: CachedSql = CachedSql::new();
    LIVE.with(vec![id.into()], move || {
        Ok(workflows::Entity::live().filter(workflows::COLUMN.id.eq(id)))
    })
}
