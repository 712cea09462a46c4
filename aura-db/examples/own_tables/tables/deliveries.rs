//! Deliveries of webhooks, which are tried three times.

use aura_db::migration::CreateTable;
use aura_db::sea_orm::{self, IntoActiveModel, Set, entity::prelude::*};
use aura_db::{Database, Error, RepositoryEntity, WorkflowId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "deliveries")]
pub(crate) struct Model {
    #[sea_orm(primary_key)]
    pub(crate) id: i64,
    pub(crate) workflow_id: WorkflowId,
    pub(crate) url: String,
    pub(crate) status: Status,
    pub(crate) attempts: i64,
}

impl ActiveModelBehavior for ActiveModel {}
impl RepositoryEntity for Entity {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub(crate) enum Status {
    Pending,
    Failed,
}

pub(crate) const CREATE: CreateTable =
    CreateTable::new("m20261203_deliveries", &["deliveries"], |columns| {
        let mut table = columns.table("deliveries");
        table
            .col(columns.integer("workflow_id").not_null())
            .col(columns.text("url").not_null())
            .col(columns.one_of("status", &["pending", "failed"]))
            .col(columns.integer("attempts").not_null().default(0))
            .foreign_key(&mut columns.cascade("deliveries", "workflow_id", "workflows"));
        let index = columns.index("deliveries", &["workflow_id", "status"]);
        columns.sql(&table, &[index])
    });

pub(crate) fn new(workflow: WorkflowId, url: &str) -> ActiveModel {
    ActiveModel {
        workflow_id: Set(workflow),
        url: Set(url.to_owned()),
        status: Set(Status::Pending),
        ..Default::default()
    }
}

/// Counts an attempt that failed.
pub(crate) async fn failed(db: &Database, id: i64) -> Result<Model, Error> {
    let deliveries = db.repository::<Entity>();
    let tried = deliveries.increment(id, Column::Attempts, 1).await?;
    if tried.attempts < 3 {
        return Ok(tried);
    }
    let mut given_up = tried.into_active_model();
    given_up.status = Set(Status::Failed);
    deliveries.update(given_up).await
}
