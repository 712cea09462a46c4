//! The application's own table as an entity, for the two peers that have entities.

use sea_orm::entity::prelude::*;
use sea_orm::{Condition, NotSet, QueryOrder, QuerySelect, Set, Unchanged};

use crate::data::PAGE;
use crate::deliveries::NewDelivery;
use crate::rows::{Delivery, Time};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "deliveries")]
pub(crate) struct Model {
    #[sea_orm(primary_key)]
    pub(crate) id: i64,
    pub(crate) workflow_id: i64,
    #[sea_orm(column_type = "Text")]
    pub(crate) url: String,
    #[sea_orm(column_type = "Text")]
    pub(crate) event: String,
    #[sea_orm(column_type = "Text")]
    pub(crate) status: String,
    pub(crate) attempts: i64,
    pub(crate) response_code: Option<i64>,
    #[sea_orm(column_type = "Text", nullable)]
    pub(crate) error: Option<String>,
    #[sea_orm(column_type = "Text")]
    pub(crate) payload: String,
    pub(crate) created_at: Time,
    pub(crate) delivered_at: Option<Time>,
    #[sea_orm(has_many)]
    pub(crate) tries: HasMany<super::attempts::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}

/// Returns the query for the workflow's deliveries that follow an id.
pub(super) fn page(workflow: i64, after: i64) -> Select<Entity> {
    Entity::find()
        .filter(self::after(workflow, after))
        .order_by_asc(Column::Id)
        .limit(PAGE)
}

/// Returns the condition of the workflow's deliveries that follow an id.
pub(super) fn after(workflow: i64, after: i64) -> Condition {
    Condition::all()
        .add(Column::WorkflowId.eq(workflow))
        .add(Column::Id.gt(after))
}

/// Returns the change of a delivery that arrived after this number of attempts.
pub(super) fn change(id: i64, attempts: i64) -> ActiveModel {
    ActiveModel {
        id: Unchanged(id),
        status: Set("delivered".to_owned()),
        attempts: Set(attempts),
        ..Default::default()
    }
}

impl From<NewDelivery> for ActiveModel {
    fn from(new: NewDelivery) -> Self {
        Self {
            id: NotSet,
            workflow_id: Set(new.workflow),
            url: Set(new.url),
            event: Set(new.event.to_owned()),
            status: Set(new.status.to_owned()),
            attempts: Set(new.attempts),
            response_code: Set(new.response_code),
            error: Set(new.error.map(str::to_owned)),
            payload: Set(new.payload),
            created_at: Set(new.created_at),
            delivered_at: Set(new.delivered_at),
        }
    }
}

impl From<Model> for Delivery {
    fn from(delivery: Model) -> Self {
        Self {
            id: delivery.id,
            workflow_id: delivery.workflow_id,
            url: delivery.url,
            event: delivery.event,
            status: delivery.status,
            attempts: delivery.attempts,
            response_code: delivery.response_code,
            error: delivery.error,
            payload: delivery.payload,
            created_at: delivery.created_at,
            delivered_at: delivery.delivered_at,
        }
    }
}
