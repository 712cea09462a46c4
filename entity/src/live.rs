//! Soft-deleted rows stay in their tables; [`Live::live`] leaves them out.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, Select};

use crate::{agents, plugins, users, workflows};

/// A table whose rows are soft-deleted.
///
/// `find()` hides nothing; [`Live::live`] is where queries of your own begin.
pub trait Live: EntityTrait {
    /// The column that holds when a row was deleted.
    const DELETED_AT: Self::Column;
    /// The column that holds when a row last changed.
    const UPDATED_AT: Self::Column;
    /// The column that holds who changed it.
    const UPDATED_BY: Self::Column;
    /// Its key.
    const ID: Self::Column;

    /// `find()` without the deleted rows.
    #[must_use]
    fn live() -> Select<Self> {
        Self::find().filter(Self::DELETED_AT.is_null())
    }
}

impl Live for users::Entity {
    const DELETED_AT: users::Column = users::Column::DeletedAt;
    const UPDATED_AT: users::Column = users::Column::UpdatedAt;
    const UPDATED_BY: users::Column = users::Column::UpdatedBy;
    const ID: users::Column = users::Column::Id;
}

impl Live for plugins::Entity {
    const DELETED_AT: plugins::Column = plugins::Column::DeletedAt;
    const UPDATED_AT: plugins::Column = plugins::Column::UpdatedAt;
    const UPDATED_BY: plugins::Column = plugins::Column::UpdatedBy;
    const ID: plugins::Column = plugins::Column::Id;
}

impl Live for workflows::Entity {
    const DELETED_AT: workflows::Column = workflows::Column::DeletedAt;
    const UPDATED_AT: workflows::Column = workflows::Column::UpdatedAt;
    const UPDATED_BY: workflows::Column = workflows::Column::UpdatedBy;
    const ID: workflows::Column = workflows::Column::Id;
}

impl Live for agents::Entity {
    const DELETED_AT: agents::Column = agents::Column::DeletedAt;
    const UPDATED_AT: agents::Column = agents::Column::UpdatedAt;
    const UPDATED_BY: agents::Column = agents::Column::UpdatedBy;
    const ID: agents::Column = agents::Column::Id;
}
