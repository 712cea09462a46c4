//! SQLite's schema, through its pragma functions and, for conditions, the text
//! of `CREATE TABLE`.

use sea_orm::{ConnectionTrait, DbErr, QueryResult};

use super::{Catalog, Column, ForeignKey, Index, Table, rows};
use crate::migration::error::{Context, Error};

pub(super) async fn read<C: ConnectionTrait>(
    connection: &C,
    tables: &[&str],
) -> Result<Catalog, Error> {
    let mut catalog = Catalog::default();
    let found = rows(
        connection,
        "SELECT name, sql FROM sqlite_schema WHERE type = 'table'".to_owned(),
    )
    .await?;
    for row in found {
        let name: String = row.try_get("", "name").context("reading the schema")?;
        if !tables.contains(&name.as_str()) {
            continue;
        }
        let sql: String = row.try_get("", "sql").context("reading the schema")?;
        let table = table(connection, &name, &sql).await?;
        catalog.tables.insert(name, table);
    }
    Ok(catalog)
}

async fn table<C: ConnectionTrait>(connection: &C, name: &str, sql: &str) -> Result<Table, Error> {
    let mut table = Table {
        checks: checks(sql),
        ..Table::default()
    };
    let mut key = Vec::new();
    let query =
        format!("SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_xinfo('{name}')");
    for row in rows(connection, query).await? {
        let (position, name, column) = column(&row, sql).context("reading a column")?;
        if position > 0 {
            key.push((position, name.clone()));
        }
        table.columns.insert(name, column);
    }
    key.sort();
    table.primary_key = key.into_iter().map(|(_, name)| name).collect();

    // Made by hand, not by PRIMARY KEY or UNIQUE: `origin` is c.
    let query = format!(
        "SELECT l.name, l.\"unique\", l.partial, s.sql FROM pragma_index_list('{name}') l \
         LEFT JOIN sqlite_schema s ON s.type = 'index' AND s.name = l.name WHERE l.origin <> 'pk'"
    );
    for row in rows(connection, query).await? {
        let index: String = row.try_get("", "name").context("reading an index")?;
        let unique: i64 = row.try_get("", "unique").context("reading an index")?;
        let sql: Option<String> = row.try_get("", "sql").context("reading an index")?;
        let query = format!(
            "SELECT coalesce(name, '(expression)') || CASE \"desc\" WHEN 1 THEN ' DESC' ELSE '' END \
               || CASE coll WHEN 'BINARY' THEN '' ELSE ' COLLATE ' || coll END AS name \
             FROM pragma_index_xinfo('{index}') WHERE key = 1 ORDER BY seqno"
        );
        let columns = names(&rows(connection, query).await?).context("reading an index")?;
        let partial: i64 = row.try_get("", "partial").context("reading an index")?;
        let predicate = (partial == 1).then(|| sql.as_deref().map_or("", condition).to_owned());
        table.indexes.insert(
            index,
            Index {
                columns,
                unique: unique == 1,
                predicate,
                extra: None,
            },
        );
    }

    let query =
        format!("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = '{name}'");
    let triggers = names(&rows(connection, query).await?).context("reading the triggers")?;
    table.triggers.extend(triggers);

    let query = format!(
        "SELECT id, \"table\", group_concat(\"from\", ', ') AS columns, group_concat(coalesce(\"to\", 'id'), ', ') AS parents, \
         on_delete, on_update FROM (SELECT id, seq, \"table\", \"from\", \"to\", on_delete, on_update FROM pragma_foreign_key_list('{name}') ORDER BY id, seq) GROUP BY id"
    );
    let found = rows(connection, query).await?;
    let keys: Result<Vec<_>, DbErr> = found.iter().map(foreign_key).collect();
    let mut keys = keys.context("reading a foreign key")?;
    // The last one of the table has the first number.
    keys.sort_by_key(|(number, _, _)| std::cmp::Reverse(*number));
    for (_, columns, key) in keys {
        table.add_foreign_key(&columns, key);
    }
    Ok(table)
}

fn column(row: &QueryResult, sql: &str) -> Result<(i64, String, Column), DbErr> {
    let position: i64 = row.try_get("", "pk")?;
    let mut kind: String = row.try_get("", "type")?;
    // AUTOINCREMENT stands nowhere but in the text.
    if position == 1 && sql.to_ascii_uppercase().contains("AUTOINCREMENT") {
        kind.push_str(" autoincrement");
    }
    let not_null: i64 = row.try_get("", "notnull")?;
    let column = Column {
        kind,
        nullable: not_null == 0,
        default: row.try_get("", "dflt_value")?,
    };
    Ok((position, row.try_get("", "name")?, column))
}

fn foreign_key(row: &QueryResult) -> Result<(i64, String, ForeignKey), DbErr> {
    let parents: String = row.try_get("", "parents")?;
    let key = ForeignKey {
        table: row.try_get("", "table")?,
        columns: parents.split(", ").map(str::to_owned).collect(),
        on_delete: row.try_get("", "on_delete")?,
        on_update: row.try_get("", "on_update")?,
        extra: None,
    };
    Ok((row.try_get("", "id")?, row.try_get("", "columns")?, key))
}

fn names(rows: &[QueryResult]) -> Result<Vec<String>, DbErr> {
    rows.iter().map(|row| row.try_get("", "name")).collect()
}

/// The conditions in the text of a `CREATE TABLE`.
fn checks(sql: &str) -> std::collections::BTreeSet<String> {
    let mut found = std::collections::BTreeSet::new();
    let mut rest = sql;
    while let Some(start) = next_check(rest) {
        rest = &rest[start..];
        let Some(length) = balanced(rest) else { break };
        found.insert(
            rest[..length]
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
        );
        rest = &rest[length..];
    }
    found
}

/// Where the parenthesis after the next `CHECK` stands, outside of quotes.
fn next_check(sql: &str) -> Option<usize> {
    let mut quote = None;
    for (at, character) in sql.char_indices() {
        match (quote, character) {
            (None, '\'' | '"' | '`') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            (None, '(') if sql[..at].trim_end().to_ascii_uppercase().ends_with("CHECK") => {
                return Some(at);
            }
            _ => {}
        }
    }
    None
}

/// Returns the condition in the text of a `CREATE INDEX`: what follows the parenthesis of its
/// columns and the `WHERE` behind it, in whatever case.
fn condition(sql: &str) -> &str {
    let mut characters = sql.char_indices().scan(None, |quote, (at, character)| {
        match (*quote, character) {
            (None, '\'' | '"' | '`') => *quote = Some(character),
            (Some(open), close) if open == close => *quote = None,
            _ => {}
        }
        Some((at, character, quote.is_none()))
    });
    let opening = characters.find(|(_, character, is_outside)| *is_outside && *character == '(');
    let Some((opening, _, _)) = opening else {
        return "";
    };
    let Some(length) = balanced(&sql[opening..]) else {
        return "";
    };
    let behind = sql[opening + length..].trim_start();
    match behind.get(..5) {
        Some(word) if word.eq_ignore_ascii_case("WHERE") => behind[5..].trim(),
        _ => "",
    }
}

/// The length of the parenthesis that `sql` begins with.
fn balanced(sql: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote = None;
    for (at, character) in sql.char_indices() {
        match (quote, character) {
            (None, '\'' | '"' | '`') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            (None, '(') => depth += 1,
            (None, ')') if depth == 1 => return Some(at + 1),
            (None, ')') => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{checks, condition};

    #[test]
    fn a_condition_is_found_in_whatever_case() {
        for sql in [
            "CREATE INDEX \"a (\" ON t (x) WHERE y > 0",
            "CREATE INDEX a ON t (lower(x), ')') where y > 0",
            "create unique index a on t(x)\nWhere\ty > 0 ",
            "CREATE INDEX a ON t (x)WHERE y > 0",
        ] {
            assert_eq!(condition(sql), "y > 0", "{sql}");
        }
        assert_eq!(condition("CREATE INDEX a ON t (x)"), "");
    }

    #[test]
    fn conditions_are_found_outside_of_quotes() {
        let sql = r#"CREATE TABLE "t" ("check (" text DEFAULT 'CHECK (1)' CHECK ( length("check (") <= 3 ),
            "b" integer check(b IN (0, ')')))"#;
        let found: Vec<String> = checks(sql).into_iter().collect();
        assert_eq!(found, [r#"( length("check (") <= 3 )"#, "(b IN (0, ')'))"]);
    }
}
