//! Parts of a table's columns.

/// A part of a table's columns, in a type of its own: how they are selected, and read.
macro_rules! summary {
    ($type:ident of $table:ident { $($field:ident: $column:ident),+ $(,)? }) => {
        impl $type {
            pub(super) fn columns(
                select: sea_orm::Select<$table::Entity>,
            ) -> sea_orm::Select<$table::Entity> {
                sea_orm::QuerySelect::columns(
                    sea_orm::QuerySelect::select_only(select),
                    [$($table::Column::$column),+],
                )
            }
        }

        impl aura_orm::RowDecoder for $type {
            type Row = Self;

            fn decode(cells: &mut aura_orm::RowReader<'_>) -> Result<Self, sea_orm::DbErr> {
                cells.begin_table(stringify!($table));
                Ok(Self { $($field: cells.next_value()?,)+ })
            }
        }

        impl aura_orm::page::SortableRow<$table::Column> for $type {
            type Decoder = Self;

            fn cell(&self, column: $table::Column) -> sea_orm::Value {
                match column {
                    $($table::Column::$column => self.$field.clone().into(),)+
                    _ => sea_orm::Value::Bool(None),
                }
            }
        }
    };
}
pub(super) use summary;
