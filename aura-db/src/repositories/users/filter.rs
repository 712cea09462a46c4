//! Which users, and in which order.

use entity::{Role, users};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, Select};

use crate::error::Error;
use crate::repositories::filter::{MAX_SEARCH, listed, managed_filter};
use crate::validate::Check;
use aura_orm::page::{Sort, contains_ci};
use aura_orm::repository::Deleted;

/// Which users, and in which order.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    role: Option<Role>,
    active: Option<bool>,
    text: Option<String>,
    deleted: Deleted,
    sort: UserSort,
    descending: bool,
}

/// What users are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UserSort {
    /// The id: the order in which they were created.
    #[default]
    Id,
    /// The name, by code point.
    Name,
    /// The address.
    Email,
    /// When they were created.
    CreatedAt,
    /// When they were last changed.
    UpdatedAt,
}

impl UserFilter {
    /// All users that are not deleted, by id.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Those with this role.
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.role = Some(role);
        self
    }

    /// Those that are active, or that are not.
    #[must_use]
    pub fn active(mut self, active: bool) -> Self {
        self.active = Some(active);
        self
    }

    managed_filter!(UserSort, "name or address");

    pub(super) fn select(&self) -> Result<Select<users::Entity>, Error> {
        let mut check = Check::default();
        check.optional("text", self.text.as_deref(), MAX_SEARCH);
        check.done()?;
        let select = users::Entity::find().filter(
            Condition::all()
                .add_option(self.role.map(|role| users::COLUMN.role.eq(role)))
                .add_option(self.active.map(|active| users::COLUMN.is_active.eq(active)))
                .add_option(self.text.as_deref().map(|text| {
                    Condition::any()
                        .add(contains_ci(users::Column::Name, text))
                        .add(contains_ci(users::Column::Email, text))
                })),
        );
        Ok(listed(self.deleted, select))
    }

    pub(super) fn sorted(&self) -> Sort<users::Entity> {
        let sort = Sort::asc(match self.sort {
            UserSort::Id => users::Column::Id,
            UserSort::Name => users::Column::Name,
            UserSort::Email => users::Column::Email,
            UserSort::CreatedAt => users::Column::CreatedAt,
            UserSort::UpdatedAt => users::Column::UpdatedAt,
        });
        if self.descending {
            sort.reverse()
        } else {
            sort
        }
    }
}
