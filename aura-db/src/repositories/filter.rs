//! What the repositories of AURA's tables have in common: filters, builders and reads.

use aura_orm::page::{Page, PageRequest, Sort, contains_ci};
use aura_orm::repository::{Deleted, Projection, RepositoryEntity};
use sea_orm::sea_query::{IntoCondition, SimpleExpr};
use sea_orm::{Condition, DbBackend, EntityTrait, ExprTrait};

use crate::context::Context;
use crate::error::{Error, FieldError};
use crate::validate::Check;

/// The longest text to search for, in characters.
pub(super) const MAX_SEARCH: usize = 200;

/// Which rows a list has, and in which order. Conditions are combined by AND.
#[derive(Debug, Clone)]
pub(crate) struct ListFilter<E: EntityTrait> {
    pub(super) rows: Condition,
    pub(super) deleted: Deleted,
    pub(super) sort: Sort<E>,
    pub(super) descending: bool,
    /// A condition that each database has in its own words.
    by_backend: Option<fn(DbBackend) -> SimpleExpr>,
    wrong: Vec<FieldError>,
}

impl<E: EntityTrait> Default for ListFilter<E> {
    fn default() -> Self {
        Self::sorted(Sort::default())
    }
}

impl<E: EntityTrait> ListFilter<E> {
    pub(super) fn sorted(sort: Sort<E>) -> Self {
        Self {
            rows: Condition::all(),
            deleted: Deleted::Hidden,
            sort,
            descending: false,
            by_backend: None,
            wrong: Vec::new(),
        }
    }

    /// Lists the newest first, by id.
    pub(super) fn newest_first() -> Self {
        Self {
            descending: true,
            ..Self::default()
        }
    }

    /// Adds a condition.
    #[must_use]
    pub(super) fn and(mut self, condition: impl IntoCondition) -> Self {
        self.rows = self.rows.add(condition.into_condition());
        self
    }

    /// Adds a condition about a text, which may have at most `max` characters.
    #[must_use]
    pub(super) fn and_text(
        mut self,
        field: &'static str,
        text: &str,
        max: usize,
        condition: impl FnOnce(&str) -> SimpleExpr,
    ) -> Self {
        let mut check = Check::default();
        check.text(field, text, max);
        match check.done() {
            Err(Error::Validation(wrong)) => {
                self.wrong.extend(wrong);
                self
            }
            _ => self.and(condition(text)),
        }
    }

    /// Adds the condition that one of these columns holds a text.
    #[must_use]
    pub(super) fn and_contains<const N: usize>(self, columns: [E::Column; N], text: &str) -> Self {
        self.and_text("text", text, MAX_SEARCH, |text| {
            let any = columns.map(|column| contains_ci(column, text));
            any.into_iter()
                .reduce(SimpleExpr::or)
                .unwrap_or(false.into())
        })
    }

    /// Adds a condition that each database has in its own words.
    #[must_use]
    pub(super) fn and_by_backend(self, condition: fn(DbBackend) -> SimpleExpr) -> Self {
        Self {
            by_backend: Some(condition),
            ..self
        }
    }

    /// Returns the condition of the rows.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] for what was refused of the filter.
    pub(super) fn condition(&self, backend: DbBackend) -> Result<Condition, Error> {
        if self.wrong.is_empty() {
            let by_backend = self.by_backend.map(|condition| condition(backend));
            Ok(self.rows.clone().add_option(by_backend))
        } else {
            Err(Error::Validation(self.wrong.clone()))
        }
    }

    /// Returns the order of the list.
    pub(super) fn order(&self) -> Sort<E> {
        let sort = self.sort.clone();
        if self.descending {
            sort.reverse()
        } else {
            sort
        }
    }
}

impl<E: RepositoryEntity> ListFilter<E> {
    /// Returns a page of whole rows.
    pub(super) async fn page(
        self,
        h: &Context,
        name: &'static str,
        page: PageRequest,
    ) -> Result<Page<E::Model>, Error> {
        let rows = h.rows::<E>().deleted(self.deleted).named(name);
        rows.list(self.condition(h.backend())?, &self.order(), page)
            .await
    }

    /// Returns a page of the columns of a type.
    pub(super) async fn page_as<T>(self, h: &Context, page: PageRequest) -> Result<Page<T>, Error>
    where
        T: Projection<E> + Send,
    {
        let rows = h.rows::<E>().deleted(self.deleted);
        rows.list_as(self.condition(h.backend())?, &self.order(), page)
            .await
    }
}

/// The methods that the filters of all tables with soft deletes have, and what they are
/// sorted by: columns with an index.
macro_rules! managed_filter {
    (
        $filter:ident of $table:ident by $sort:ident {
            $($(#[doc = $doc:literal])+ $column:ident),+ $(,)?
        }, text in $columns:expr, $searched:literal
    ) => {
        #[doc = concat!("What a [`", stringify!($filter), "`] sorts by; the id decides between rows that are the same.")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $sort {
            $($(#[doc = $doc])+ $column,)+
        }

        impl $filter {
            /// Creates a filter of all rows that are not deleted.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            #[doc = concat!("Filters those whose ", $searched, " holds this text, without ASCII case; at most 200 characters.")]
            #[must_use]
            pub fn text(self, text: impl AsRef<str>) -> Self {
                Self(self.0.and_contains($columns, text.as_ref()))
            }

            /// Includes deleted rows, or filters those only.
            #[must_use]
            pub fn deleted(mut self, deleted: aura_orm::repository::Deleted) -> Self {
                self.0.deleted = deleted;
                self
            }

            /// Sorts by a column, ascending.
            #[must_use]
            pub fn sort(mut self, sort: $sort) -> Self {
                self.0.sort = aura_orm::page::Sort::asc(match sort {
                    $($sort::$column => $table::Column::$column,)+
                });
                self
            }

            /// Reverses the order.
            #[must_use]
            pub fn descending(mut self) -> Self {
                self.0.descending = true;
                self
            }
        }
    };
}
pub(super) use managed_filter;

/// Methods of a builder, each of which sets a field; and where it is a row of a table, the
/// row.
macro_rules! setters {
    ($type:ident of $table:ident { $($setters:tt)+ }) => {
        setters!($type { $($setters)+ });

        /// The row, as far as it is set.
        impl AsRef<$table::ActiveModel> for $type {
            fn as_ref(&self) -> &$table::ActiveModel {
                &self.0
            }
        }
    };
    ($type:ident { $($(#[doc = $doc:literal])+ $method:ident($value:ident: $argument:ty) => $($field:tt).+ = $set:expr),+ $(,)? }) => {
        impl $type {
            $(
                $(#[doc = $doc])+
                #[must_use]
                pub fn $method(mut self, $value: $argument) -> Self {
                    self.$($field).+ = $set;
                    self
                }
            )+
        }
    };
}
pub(super) use setters;

/// The reads that every table has.
macro_rules! reads {
    ($repository:ident of $table:ident: $id:ty, $model:ty) => {
        impl $repository {
            /// Returns the row with this id; `None` when it is not there, is deleted, or may
            /// not be seen.
            ///
            /// # Errors
            ///
            /// Those of the database.
            pub async fn find(&self, id: $id) -> Result<Option<$model>, Error> {
                self.0.rows::<$table::Entity>().find(id).await
            }

            /// Returns the row with this id.
            ///
            /// # Errors
            ///
            /// [`Error::NotFound`] where [`find`](Self::find) returns `None`.
            pub async fn get(&self, id: $id) -> Result<$model, Error> {
                self.0.rows::<$table::Entity>().get(id).await
            }
        }
    };
    ($repository:ident of $table:ident: $id:ty, $model:ty, $filter:ty, $summary:ty) => {
        reads!($repository of $table: $id, $model);

        impl $repository {
            /// Returns a page of the rows of a filter, without their documents.
            ///
            /// # Errors
            ///
            /// [`Error::Validation`] when the page or the filter can't be used.
            pub async fn list(
                &self,
                filter: $filter,
                page: aura_orm::page::PageRequest,
            ) -> Result<aura_orm::page::Page<$summary>, Error> {
                filter.0.page_as(&self.0, page).await
            }

            /// Returns a page of the rows of a filter, with their documents.
            ///
            /// # Errors
            ///
            /// As [`list`](Self::list).
            pub async fn list_full(
                &self,
                filter: $filter,
                page: aura_orm::page::PageRequest,
            ) -> Result<aura_orm::page::Page<$model>, Error> {
                filter.0.page(&self.0, "list_full", page).await
            }
        }
    };
}
pub(super) use reads;

/// The delete of a table with soft deletes.
macro_rules! deletes {
    ($repository:ident of $table:ident: $id:ty, $delete:literal) => {
        impl $repository {
            #[doc = $delete]
            ///
            /// # Errors
            ///
            /// [`Error::NotFound`].
            pub async fn delete(&self, id: $id) -> Result<(), Error> {
                self.0.rows::<$table::Entity>().delete(id).await
            }
        }
    };
}
pub(super) use deletes;

/// The end of a soft-deleted row.
macro_rules! purges {
    ($repository:ident of $table:ident: $id:ty, $purge:literal) => {
        impl $repository {
            #[doc = $purge]
            ///
            /// # Errors
            ///
            /// [`Error::NotFound`]; [`Error::State`] when it isn't deleted.
            pub async fn purge(&self, id: $id) -> Result<(), Error> {
                self.0.rows::<$table::Entity>().purge(id).await
            }
        }
    };
}
pub(super) use purges;

/// The switch of the tables whose rows workflows use.
macro_rules! switches {
    ($repository:ident of $table:ident: $id:ty, $model:ty) => {
        impl $repository {
            /// Lets workflows use it.
            ///
            /// # Errors
            ///
            /// [`Error::NotFound`].
            pub async fn enable(&self, id: $id) -> Result<$model, Error> {
                self.switch("enable", id, true).await
            }

            /// Keeps workflows from using it; a plugin stays attached to them.
            ///
            /// # Errors
            ///
            /// [`Error::NotFound`].
            pub async fn disable(&self, id: $id) -> Result<$model, Error> {
                self.switch("disable", id, false).await
            }

            async fn switch(&self, name: &'static str, id: $id, on: bool) -> Result<$model, Error> {
                let row = $table::ActiveModel {
                    id: sea_orm::ActiveValue::Unchanged(id),
                    is_enabled: sea_orm::ActiveValue::Set(on),
                    ..Default::default()
                };
                self.0
                    .rows::<$table::Entity>()
                    .named(name)
                    .update(row)
                    .await
            }
        }
    };
}
pub(super) use switches;
