//! The application's other table as an entity.

use sea_orm::entity::prelude::*;

use super::deliveries;
use crate::rows::{Attempt, Attempted};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "delivery_attempts")]
pub(crate) struct Model {
    #[sea_orm(primary_key)]
    pub(crate) id: i64,
    pub(crate) delivery_id: i64,
    pub(crate) response_code: i64,
    pub(crate) ms: i64,
    #[sea_orm(belongs_to, from = "delivery_id", to = "id")]
    pub(crate) delivery: BelongsTo<deliveries::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}

impl From<Model> for Attempt {
    fn from(attempt: Model) -> Self {
        Self {
            id: attempt.id,
            delivery_id: attempt.delivery_id,
            response_code: attempt.response_code,
            ms: attempt.ms,
        }
    }
}

/// Puts deliveries and their attempts together.
pub(super) fn with(rows: Vec<deliveries::Model>, attempts: Vec<Vec<Model>>) -> Vec<Attempted> {
    let pair = |(row, attempts): (deliveries::Model, Vec<Model>)| Attempted {
        delivery: row.into(),
        attempts: crate::rows::all(attempts),
    };
    rows.into_iter().zip(attempts).map(pair).collect()
}
