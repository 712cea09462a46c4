//! Which users, and in which order.

use entity::{Role, users};
use sea_orm::ColumnTrait;

use crate::repositories::filter::{ListFilter, managed_filter};

/// Which users, and in which order: by id, unless it is set.
#[derive(Debug, Clone, Default)]
pub struct UserFilter(pub(super) ListFilter<users::Entity>);

managed_filter! {
    UserFilter of users by UserSort {
        /// The id: the order in which they were created.
        Id,
        /// The name, by code point.
        Name,
        /// The address.
        Email,
        /// When they were created.
        CreatedAt,
        /// When they were last changed.
        UpdatedAt,
    }, text in [users::Column::Name, users::Column::Email], "name or address"
}

impl UserFilter {
    /// Filters those with this role.
    #[must_use]
    pub fn role(self, role: Role) -> Self {
        Self(self.0.and(users::COLUMN.role.eq(role)))
    }

    /// Filters those that are active, or that are not.
    #[must_use]
    pub fn active(self, active: bool) -> Self {
        Self(self.0.and(users::COLUMN.is_active.eq(active)))
    }
}
