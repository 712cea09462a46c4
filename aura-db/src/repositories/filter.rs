//! What the filters of several tables have in common.

use sea_orm::{ColumnTrait, QueryFilter, Select};

/// Whether deleted rows are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deleted {
    /// Only rows that are not deleted.
    #[default]
    Hidden,
    /// All rows.
    Included,
    /// Only deleted rows.
    Only,
}

impl Deleted {
    pub(super) fn filter<E: entity::Live>(self, select: Select<E>) -> Select<E> {
        match self {
            Self::Hidden => select.filter(E::DELETED_AT.is_null()),
            Self::Included => select,
            Self::Only => select.filter(E::DELETED_AT.is_not_null()),
        }
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
