//! Automations and their history.
//!
//! Name, description and documents change only with the version that the
//! caller read, so that nobody's change is lost unseen; the state before goes
//! into the history.
//!
//! ```
//! # use aura_db::workflows::EarlierVersion;
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
//! workflows.restore_version(flow.id, flow.version, EarlierVersion(1)).await?;
//!
//! let mine = workflows.list(WorkflowFilter::owner(ada.id), PageRequest::first(50)).await?;
//! assert_eq!(mine.items[0].name, "Greet");
//! # Ok(()) }
//! ```

mod change;
mod children;
mod details;
mod filter;
mod history;
mod plugins;
mod status;

use entity::{Action, Resource, WorkflowId, workflow_plugins, workflows};
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{ActiveValue::Set, ColumnTrait};
use serde::Serialize;

use self::change::check;
pub use self::change::{NewWorkflow, WorkflowChange};
pub(crate) use self::children::{Doomed, delete_children};
use self::details::{Detail, details};
pub use self::filter::{WorkflowFilter, WorkflowSort, WorkflowSummary};
pub use self::history::{EarlierVersion, HISTORY, WorkflowVersionSummary};
pub use self::status::StatusChange;
pub use entity::workflow_versions::Model as WorkflowVersion;
pub use entity::workflows::Model as Workflow;

use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::executions::suspend::{self, Of};
use crate::repositories::filter::reads;
use crate::repositories::owned::{self, hold_owner, lock, owner_of};
use crate::repositories::plugins::Plugin;
use crate::repositories::users::User;

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

reads!(Workflows of workflows: WorkflowId, Workflow, WorkflowFilter, WorkflowSummary);

impl Workflows {
    /// Deletes the workflow, which can be restored. Its executions and logs stay; no worker
    /// takes what is queued.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: WorkflowId) -> Result<(), Error> {
        let op = op("delete", Action::Delete);
        self.0
            .atomic(op, |h| async move {
                owned::delete::<workflows::Entity>(&h, id.0).await
            })
            .await?;
        suspend::suspend(&self.0, op, Of::Workflow(id)).await
    }

    /// Deletes a deleted workflow for good, with its history, executions and logs. Outside
    /// of a transaction these are deleted first, in batches that commit by themselves:
    /// after a failure the next call goes on with what is left, and a workflow that is
    /// restored meanwhile has lost what was deleted before.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::State`] when it isn't deleted.
    pub async fn purge(&self, id: WorkflowId) -> Result<(), Error> {
        if !self.0.in_transaction() {
            let op = op("purge", Action::Delete);
            delete_children(&self.0, op, id, Doomed::Alone).await?;
        }
        self.0.rows::<workflows::Entity>().purge(id).await
    }

    /// Creates a workflow, which is a draft unless its status is set, for its owner, or for
    /// the actor.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`], also without an owner; [`Error::NotFound`] when the owner
    /// doesn't exist or is deleted.
    pub async fn create(&self, new: NewWorkflow) -> Result<Workflow, Error> {
        let owner = check(&new.0).owner(&new.0.owner_id, self.0.actor())?;
        let row = &workflows::ActiveModel {
            owner_id: Set(owner),
            ..new.0
        };
        let op = op("create", Action::Create);
        self.0
            .atomic(op, |h| async move {
                owned::insert::<workflows::Entity>(&h, op, owner, row.clone()).await
            })
            .await
    }

    /// Returns the workflow with its owner and its plugins, as far as the user of a
    /// restricted handle may read them.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is none, or it is deleted.
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
                let found = found.filter(|(workflow, _)| h.reaches(workflow.owner_id));
                let (workflow, owner) = found.ok_or_else(|| Error::not_found("workflow", id))?;
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

    /// Creates a copy, a draft at version 1 with the same documents and plugins,
    /// for the actor, or else for the same owner. Without a name it is called "… (copy)".
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Validation`].
    pub async fn duplicate(&self, id: WorkflowId, name: Option<String>) -> Result<Workflow, Error> {
        let op = op("duplicate", Action::Create);
        let name = &name;
        self.0
            .atomic(op, |h| async move {
                let heir = match h.actor() {
                    Some(actor) => actor,
                    None => owner_of::<workflows::Entity>(&h, id.0).await?,
                };
                let held = hold_owner(&h, heir).await;
                lock::<workflows::Entity>(&h, id.0).await?;
                let original = load(&h, id).await?;
                let owner = h.actor().unwrap_or(original.owner_id);
                let name = name.clone().unwrap_or_else(|| copy_of(&original.name));
                let NewWorkflow(copy) = NewWorkflow::new(name).owner(owner);
                let copy = workflows::ActiveModel {
                    description: Set(original.description),
                    settings: Set(original.settings),
                    connections: Set(original.connections),
                    nodes: Set(original.nodes),
                    metadata: Set(original.metadata),
                    ..copy
                };
                check(&copy).done()?;
                if owner == heir {
                    held?;
                } else {
                    // It was handed over in between.
                    hold_owner(&h, owner).await?;
                }
                let copy = h.rows::<workflows::Entity>().insert(copy).await?;
                let plugins = Query::select()
                    .expr(Expr::val(copy.id.0))
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

    /// Restores a deleted workflow. One that isn't deleted stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::State`] when its owner is deleted.
    pub async fn restore(&self, id: WorkflowId) -> Result<Workflow, Error> {
        let hint = "restore the user, or transfer the workflow first";
        let op = op("restore", Action::Delete);
        let restored = self
            .0
            .atomic(op, |h| async move {
                owned::restore::<workflows::Entity>(&h, id.0, hint).await
            })
            .await?;
        suspend::resume(&self.0, op, Of::Workflow(id)).await?;
        Ok(restored)
    }
}

fn copy_of(name: &str) -> String {
    const SUFFIX: &str = " (copy)";
    let mut copy: String = name.chars().take(160 - SUFFIX.len()).collect();
    copy.push_str(SUFFIX);
    copy
}

/// Returns a workflow that is not deleted, and was locked.
async fn load(h: &Context, id: WorkflowId) -> Result<Workflow, Error> {
    h.repository::<workflows::Entity>().get(id).await
}
