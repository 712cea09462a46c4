//! Soft-deleted rows stay in their tables; [`Live::live`] leaves them out.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, Select};

use crate::{agents, plugins, users, workflows};

/// A table whose rows are soft-deleted.
///
/// `find()` hides nothing; [`Live::live`] is where queries of your own begin.
pub trait Live: EntityTrait {
    /// The column that holds when a row was deleted.
    const DELETED_AT: Self::Column;

    /// `find()` without the deleted rows.
    #[must_use]
    fn live() -> Select<Self> {
        Self::find().filter(Self::DELETED_AT.is_null())
    }
}

impl Live for users::Entity {
    const DELETED_AT: users::Column = users::Column::DeletedAt;
}

impl Live for plugins::Entity {
    const DELETED_AT: plugins::Column = plugins::Column::DeletedAt;
}

impl Live for workflows::Entity {
    const DELETED_AT: workflows::Column = workflows::Column::DeletedAt;
}

impl Live for agents::Entity {
    const DELETED_AT: agents::Column = agents::Column::DeletedAt;
}
