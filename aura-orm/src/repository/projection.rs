//! Parts of a row.

use sea_orm::EntityTrait;

use crate::page::SortableRow;

/// Some columns of an entity in a type of its own, for
/// [`Repository::list_as`](super::Repository::list_as): without the documents, say, that a list
/// doesn't show. [`projection!`](crate::projection) implements it.
pub trait Projection<E: EntityTrait>: SortableRow<E::Column> {
    /// Returns the columns, in the order in which they are read.
    fn columns() -> Vec<E::Column>;
}

/// Declares a struct of some columns of an entity's module, which
/// [`Repository::list_as`](crate::Repository::list_as) reads and sorts by. Behind each field is
/// the column's name; a list that is sorted by another column has no cursors.
///
/// ```
/// # mod notes {
/// #     use sea_orm::entity::prelude::*;
/// #     #[sea_orm::model]
/// #     #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
/// #     #[sea_orm(table_name = "notes")]
/// #     pub struct Model {
/// #         #[sea_orm(primary_key)]
/// #         pub id: i64,
/// #         pub title: String,
/// #         pub text: String,
/// #     }
/// #     impl ActiveModelBehavior for ActiveModel {}
/// #     impl aura_orm::RepositoryEntity for Entity {}
/// # }
/// # use aura_orm::{Executor, Page, PageRequest, Sort};
/// aura_orm::projection! {
///     /// A note without its text.
///     #[derive(Debug, Clone, PartialEq, Eq)]
///     pub struct Title of notes {
///         /// The key.
///         pub id: i64 = Id,
///         /// What it is about.
///         pub title: String = Title,
///     }
/// }
///
/// # async fn example(db: Executor) -> Result<(), aura_orm::Error> {
/// let notes = db.repository::<notes::Entity>();
/// let page: Page<Title> = notes.list_as((), &Sort::default(), PageRequest::first(50)).await?;
/// # Ok(()) }
/// ```
#[macro_export]
macro_rules! projection {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $type:ident of $table:ident {
            $($(#[$about:meta])* $shown:vis $field:ident: $kind:ty = $column:ident),+ $(,)?
        }
    ) => {
        $(#[$attribute])*
        $visibility struct $type {
            $($(#[$about])* $shown $field: $kind,)+
        }

        impl $crate::repository::Projection<$table::Entity> for $type {
            fn columns() -> Vec<$table::Column> {
                vec![$($table::Column::$column),+]
            }
        }

        impl $crate::RowDecoder for $type {
            type Row = Self;

            fn decode(cells: &mut $crate::RowReader<'_>) -> Result<Self, $crate::sea_orm::DbErr> {
                cells.begin_table($crate::sea_orm::EntityName::table_name(&$table::Entity));
                Ok(Self { $($field: cells.next_value()?,)+ })
            }
        }

        impl $crate::page::SortableRow<$table::Column> for $type {
            type Decoder = Self;

            fn cell(&self, column: $table::Column) -> $crate::sea_orm::Value {
                match column {
                    $($table::Column::$column => self.$field.clone().into(),)+
                    #[allow(unreachable_patterns, reason = "a projection of all columns")]
                    _ => $crate::sea_orm::Value::Bool(None),
                }
            }
        }
    };
}
