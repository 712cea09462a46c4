//! What the filters of several tables have in common.

use aura_orm::repository::Deleted;
use sea_orm::{ColumnTrait, QueryFilter, Select};

/// Returns the rows of a select that are listed.
pub(super) fn listed<E: entity::Live>(deleted: Deleted, select: Select<E>) -> Select<E> {
    match deleted {
        Deleted::Hidden => select.filter(E::DELETED_AT.is_null()),
        Deleted::Included => select,
        Deleted::Only => select.filter(E::DELETED_AT.is_not_null()),
    }
}

/// The longest text to search for, in characters.
pub(super) const MAX_SEARCH: usize = 200;

/// The methods that the filters of all managed tables have, for their `text`,
/// `deleted`, `sort` and `descending`.
macro_rules! managed_filter {
    ($sort:ty, $searched:literal) => {
        #[doc = concat!("Those whose ", $searched, " holds this text, without ASCII case.")]
        #[must_use]
        pub fn text(mut self, text: impl Into<String>) -> Self {
            self.text = Some(text.into());
            self
        }

        /// Deleted ones too, or only those.
        #[must_use]
        pub fn deleted(mut self, deleted: Deleted) -> Self {
            self.deleted = deleted;
            self
        }

        /// In this order.
        #[must_use]
        pub fn sort(mut self, sort: $sort) -> Self {
            self.sort = sort;
            self
        }

        /// In the opposite order.
        #[must_use]
        pub fn descending(mut self) -> Self {
            self.descending = true;
            self
        }
    };
}
pub(super) use managed_filter;
