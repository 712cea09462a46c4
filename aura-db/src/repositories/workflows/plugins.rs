//! Which plugins a workflow uses.

use entity::{
    Action, PluginId, RepositoryEntity, WorkflowId, plugins, workflow_plugins, workflows,
};
use sea_orm::sea_query::{LockType, OnConflict, Query};
use sea_orm::{ColumnTrait, DbBackend, QueryFilter, QuerySelect};

use super::{Workflows, op};
use crate::context::Context;
use crate::error::Error;
use crate::repositories::owned::lock;

impl Workflows {
    /// Lets the workflow use a plugin. `false` when it did already.
    ///
    /// Fails with [`Error::NotFound`] when one of them is not there.
    pub async fn attach(&self, id: WorkflowId, plugin: PluginId) -> Result<bool, Error> {
        self.0
            .atomic(op("attach", Action::Update), |h| async move {
                lock::<workflows::Entity>(&h, id.0).await?;
                let mut known = plugins::Entity::not_deleted()
                    .select_only()
                    .column(plugins::Column::Id)
                    .filter(plugins::COLUMN.id.eq(plugin));
                if h.backend() == DbBackend::Postgres {
                    known = known.lock(LockType::Share);
                }
                if h.scalar::<PluginId, _>(known).await?.is_none() {
                    return Err(Error::not_found("plugin", plugin));
                }
                let attach = Query::insert()
                    .into_table(workflow_plugins::Entity)
                    .columns([
                        workflow_plugins::Column::WorkflowId,
                        workflow_plugins::Column::PluginId,
                    ])
                    .values_panic([id.0.into(), plugin.0.into()])
                    .on_conflict(OnConflict::new().do_nothing().to_owned())
                    .take();
                let attached = h.insert_rows(&attach).await? > 0;
                if attached {
                    note(&h, id).await?;
                }
                Ok(attached)
            })
            .await
    }

    /// Takes a plugin from the workflow. `false` when it had none.
    ///
    /// Fails with [`Error::NotFound`] when the workflow is not there.
    pub async fn detach(&self, id: WorkflowId, plugin: PluginId) -> Result<bool, Error> {
        self.0
            .atomic(op("detach", Action::Update), |h| async move {
                lock::<workflows::Entity>(&h, id.0).await?;
                let detach = Query::delete()
                    .from_table(workflow_plugins::Entity)
                    .and_where(workflow_plugins::COLUMN.workflow_id.eq(id))
                    .and_where(workflow_plugins::COLUMN.plugin_id.eq(plugin))
                    .take();
                let detached = h.delete(&detach).await? > 0;
                if detached {
                    note(&h, id).await?;
                }
                Ok(detached)
            })
            .await
    }
}

/// Notes who changed something that belongs to the workflow.
async fn note(h: &Context, id: WorkflowId) -> Result<(), Error> {
    let mut update = h.audited_update::<workflows::Entity>(h.now());
    update.and_where(workflows::COLUMN.id.eq(id));
    h.update(&update).await.map(|_| ())
}
