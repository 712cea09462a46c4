//! Selects whose rows are merged, left out or cut.

use std::borrow::Cow;

use sea_orm::{ColumnTrait, ColumnType, DbBackend, EntityTrait, IdenStatic, Iterable};

use crate::Statement;

const DISTINCT: &str = "SELECT DISTINCT ";

/// Returns whether a select may return other rows than its tables and conditions have: it, or
/// one in it, merges or cuts them. Values are not in the SQL, so that a word of them is none.
pub(crate) fn is_of_returned_rows(sql: &str) -> bool {
    const WORDS: [&str; 6] = [
        " DISTINCT ",
        " GROUP BY ",
        " HAVING ",
        " UNION ",
        " INTERSECT ",
        " EXCEPT ",
    ];
    is_limited(sql) || WORDS.iter().any(|word| sql.contains(word))
}

/// Returns whether a select, or one in it, has a LIMIT or an OFFSET.
pub(crate) fn is_limited(sql: &str) -> bool {
    sql.contains(" LIMIT ") || sql.contains(" OFFSET ")
}

/// Returns whether a select, or one in it, is DISTINCT.
pub(crate) fn is_distinct(sql: &str) -> bool {
    sql.contains(" DISTINCT ")
}

/// Has PostgreSQL compare documents of a select that is DISTINCT by their text, as SQLite
/// does: its type `json` has no equality.
pub(crate) fn compare_json<E: EntityTrait>(statement: &mut Statement, backend: DbBackend) {
    if backend != DbBackend::Postgres {
        return;
    }
    let Some(start) = statement.sql.find(DISTINCT) else {
        return;
    };
    // Until the end of what is selected.
    let start = start + DISTINCT.len();
    let Some(length) = statement.sql[start..].find(" FROM ") else {
        return;
    };
    let list = &statement.sql[start..start + length];
    if list.starts_with("ON ") {
        return;
    }
    let table = E::default();
    let table = table.table_name();
    let mut compared = Cow::Borrowed(list);
    for column in E::Column::iter() {
        if matches!(column.def().get_column_type(), ColumnType::Json) {
            let name = column.as_str();
            let cell = format!("\"{table}\".\"{name}\"");
            let text = format!("CAST({cell} AS text)");
            let selected = compared.split(", ").map(|selected| {
                if selected == cell {
                    format!("{text} AS \"{name}\"")
                } else if let Some(alias) = selected.strip_prefix(&*cell)
                    && alias.starts_with(" AS ")
                {
                    format!("{text}{alias}")
                } else {
                    selected.to_owned()
                }
            });
            compared = Cow::Owned(selected.collect::<Vec<_>>().join(", "));
        }
    }
    if let Cow::Owned(list) = compared {
        let sql = statement.sql.to_mut();
        sql.replace_range(start..start + length, &list);
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::entity::prelude::*;
    use sea_orm::{QuerySelect, QueryTrait};

    use super::*;

    #[allow(unreachable_pub, reason = "the macro makes others")]
    mod note {
        use super::*;

        #[sea_orm::model]
        #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
        #[sea_orm(table_name = "note")]
        pub struct Model {
            #[sea_orm(primary_key)]
            pub id: i64,
            pub json: Json,
            #[sea_orm(column_type = "JsonBinary")]
            pub binary: Json,
        }

        impl ActiveModelBehavior for ActiveModel {}
    }

    fn compared(select: sea_orm::Select<note::Entity>, backend: DbBackend) -> String {
        let mut statement = crate::select(&select.into_query(), backend);
        compare_json::<note::Entity>(&mut statement, backend);
        statement.sql.into_owned()
    }

    #[test]
    fn documents_are_compared_by_their_text() {
        let select = || note::Entity::find().distinct();
        assert_eq!(
            compared(select(), DbBackend::Postgres),
            r#"SELECT DISTINCT "note"."id", CAST("note"."json" AS text) AS "json", "note"."binary" FROM "note""#
        );
        let plain = r#"SELECT DISTINCT "note"."id", "note"."json", "note"."binary" FROM "note""#;
        assert_eq!(compared(select(), DbBackend::Sqlite), plain);
        let renamed = note::Entity::find().select_only().distinct();
        assert_eq!(
            compared(
                renamed.column_as(note::Column::Json, "j"),
                DbBackend::Postgres
            ),
            r#"SELECT DISTINCT CAST("note"."json" AS text) AS "j" FROM "note""#
        );
        let on = note::Entity::find().distinct_on([note::Column::Id]);
        assert!(!compared(on, DbBackend::Postgres).contains("CAST"));
        assert!(!compared(note::Entity::find(), DbBackend::Postgres).contains("CAST"));
    }
}
