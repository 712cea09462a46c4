//! What stands between a schema and the entities, and the statements that mend it.

use std::collections::BTreeSet;

use sea_orm::DbBackend;
use sea_orm::sea_query::{
    ColumnDef, ColumnType, PostgresQueryBuilder, SqliteQueryBuilder, StringLen, Table as Sql,
};

use super::declared::{Declared, enumeration, lacked_by_sqlite};
use super::{EntityChange, Statements, declared};
use crate::migration::catalog::{Kind, Table};
use crate::migration::{Catalog, Difference, create_index, create_table, drop_index};

/// Lists what of `schema` is not as the entities declare it. `wanted` is the schema that
/// they would make.
pub(super) fn changes(
    declared: &[Declared],
    schema: &Catalog,
    wanted: &Catalog,
) -> Vec<EntityChange> {
    let mut found = Vec::new();
    let mut made: Vec<&str> = Vec::new();
    for table in declared {
        match (
            schema.tables.get(&table.name),
            wanted.tables.get(&table.name),
        ) {
            (Some(is), Some(wanted)) => {
                let mut comparison = Comparison {
                    table,
                    is,
                    wanted,
                    found: &mut found,
                };
                comparison.columns();
                comparison.keys();
                comparison.indexes();
            }
            _ => create(table, declared, &made, &mut found),
        }
        made.push(&table.name);
    }
    found
}

fn change(kind: Kind, table: &str, what: String) -> EntityChange {
    EntityChange {
        difference: Difference {
            kind,
            table: table.to_owned(),
            what,
            detail: String::new(),
        },
        up: Statements::default(),
        down: Statements::default(),
        decide: None,
        drops: false,
    }
}

/// Adds a table with its indexes.
fn create(table: &Declared, all: &[Declared], made: &[&str], found: &mut Vec<EntityChange>) {
    let name = &table.name;
    let mut up =
        Statements::both(|backend| on_lines(&create_table(backend, &table.table(backend))));
    let mut down = Statements::same(&format!("DROP TABLE \"{name}\""));
    for (position, enumeration) in table.types().into_iter().enumerate() {
        up.postgres.insert(position, enumeration.create);
        down.postgres.push(enumeration.drop);
    }
    let notes: Vec<String> = table
        .columns
        .iter()
        .filter_map(|column| note_of_type(name, column))
        .chain(circle(table, all, made))
        .collect();
    found.push(EntityChange {
        up,
        down,
        decide: (!notes.is_empty()).then(|| notes.join("; ")),
        ..change(Kind::Missing, name, String::new())
    });
    let uniques = table.uniques.iter().map(|columns| (columns, true));
    for (columns, unique) in uniques.chain(table.indexes.iter().map(|columns| (columns, false))) {
        let index = table.index(columns, unique);
        found.push(EntityChange {
            up: Statements::both(|backend| create_index(backend, &index)),
            ..change(Kind::Missing, name, named(&index))
        });
    }
}

fn named(index: &sea_orm::sea_query::IndexCreateStatement) -> String {
    format!(
        "index {}",
        index.get_index_spec().get_name().unwrap_or_default()
    )
}

/// Says of a table that it refers to one that is made after it.
fn circle(table: &Declared, all: &[Declared], made: &[&str]) -> Option<String> {
    let mut references = table.references.iter().map(|key| key.table.as_str());
    let later = references.find(|parent| {
        *parent != table.name
            && !made.contains(parent)
            && all.iter().any(|other| other.name == *parent)
    })?;
    Some(format!(
        "{} and {later} refer to each other: on PostgreSQL add one of the foreign keys after both tables",
        table.name
    ))
}

/// Says what a type of a column asks for beside the column.
fn note_of_type(table: &str, column: &ColumnDef) -> Option<String> {
    let name = column.get_column_name();
    let kind = column.get_column_type()?;
    if let Some(lacked) = lacked_by_sqlite(kind) {
        return Some(format!(
            "{table}.{name} is {lacked}, which SQLite has no type for; it is text there, and can't be read"
        ));
    }
    if let ColumnType::Enum { name: words, .. } = kind {
        let words = words.to_string();
        return Some(format!(
            "{table}.{name} is of the type {words}; leave its CREATE TYPE and DROP TYPE out when an earlier step made it"
        ));
    }
    None
}

/// One table in both forms.
struct Comparison<'a> {
    table: &'a Declared,
    is: &'a Table,
    wanted: &'a Table,
    found: &'a mut Vec<EntityChange>,
}

impl Comparison<'_> {
    fn push(&mut self, kind: Kind, what: String, of: impl FnOnce(&mut EntityChange)) {
        let mut change = change(kind, &self.table.name, what);
        of(&mut change);
        self.found.push(change);
    }

    fn columns(&mut self) {
        let table = self.table;
        let mut known: BTreeSet<String> = BTreeSet::new();
        for column in &table.columns {
            let name = column.get_column_name();
            let old = former(column).filter(|old| {
                self.is.columns.contains_key(*old)
                    && !table
                        .columns
                        .iter()
                        .any(|other| other.get_column_name() == *old)
            });
            if self.is.columns.contains_key(&name) {
                self.same_column(column, &name);
            } else if let Some(old) = old {
                known.insert(old.to_owned());
                self.rename(old, &name);
            } else {
                self.add(column, &name);
            }
            known.insert(name);
        }
        let extra: Vec<String> = self.is.columns.keys().cloned().collect();
        for name in extra.iter().filter(|name| !known.contains(*name)) {
            self.drop(name);
        }
    }

    fn same_column(&mut self, column: &ColumnDef, name: &str) {
        let (Some(is), Some(wanted)) = (self.is.columns.get(name), self.wanted.columns.get(name))
        else {
            return;
        };
        let mut differences = Vec::new();
        if is.kind != wanted.kind && !(says_no_length(column) && is_text(&is.kind)) {
            differences.push(format!(
                "is {} in the schema and {} in the entity",
                is.kind, wanted.kind
            ));
        }
        if is.nullable != wanted.nullable {
            let [schema, entity] = [is.nullable, wanted.nullable].map(|nullable| {
                if nullable {
                    "may be null"
                } else {
                    "is not null"
                }
            });
            differences.push(format!("{schema} in the schema and {entity} in the entity"));
        }
        if differences.is_empty() {
            return;
        }
        let detail = differences.join(", and ");
        let table = &self.table.name;
        let decide = format!(
            "{table}.{name} {detail}; change either. SQLite changes no column: make the table anew there, and copy its rows"
        );
        self.push(Kind::Different, format!("column {name}"), |change| {
            change.difference.detail = detail;
            change.decide = Some(decide);
        });
    }

    fn rename(&mut self, old: &str, name: &str) {
        let table = &self.table.name;
        let sql =
            |from, to| format!("ALTER TABLE \"{table}\" RENAME COLUMN \"{from}\" TO \"{to}\"");
        let (up, down) = (sql(old, name), sql(name, old));
        self.push(Kind::Different, format!("column {name}"), |change| {
            change.difference.detail = format!("is {old}");
            change.up = Statements::same(&up);
            change.down = Statements::same(&down);
        });
    }

    fn add(&mut self, column: &ColumnDef, name: &str) {
        let table = &self.table.name;
        let mut references = self.table.references.iter();
        let reference = references.find(|key| key.columns[..] == [name.to_owned()]);
        let mut up = Statements::both(|backend| {
            let inline = reference.map_or_else(String::new, |key| key.inline(table));
            add_column(backend, table, column) + &inline
        });
        let mut down = Statements::same(&format!("ALTER TABLE \"{table}\" DROP COLUMN \"{name}\""));
        if let Some(enumeration) = enumeration(column) {
            up.postgres.insert(0, enumeration.create);
            down.postgres.push(enumeration.drop);
        }
        let spec = column.get_column_spec();
        let mut notes: Vec<String> = note_of_type(table, column).into_iter().collect();
        if spec.nullable == Some(false) && spec.default.is_none() {
            notes.push(format!(
                "{table}.{name} is NOT NULL: rows that exist need a DEFAULT here, or the step fails"
            ));
        }
        self.push(Kind::Missing, format!("column {name}"), |change| {
            change.up = up;
            change.down = down;
            change.decide = (!notes.is_empty()).then(|| notes.join("; "));
        });
    }

    /// Drops a column, after the indexes that SQLite would refuse it for.
    fn drop(&mut self, name: &str) {
        let table = &self.table.name;
        let sql = format!("ALTER TABLE \"{table}\" DROP COLUMN \"{name}\"");
        let indexes = self.is.indexes.iter();
        let indexes =
            indexes.filter(|(_, index)| index.columns.iter().any(|column| column == name));
        let mut up = Statements::same(&sql);
        for (at, (index, _)) in indexes.enumerate() {
            up.sqlite.insert(at, drop_index(index));
        }
        let keys = self.is.foreign_keys.keys();
        let is_key = self.is.primary_key.iter().any(|column| column == name)
            || keys
                .flat_map(|key| key.split(", "))
                .any(|column| column == name);
        let mut decide =
            format!("{table}.{name} isn't in the entity; to drop it, with what it holds");
        if is_key {
            up = Statements::default();
            decide = format!(
                "{table}.{name} isn't in the entity; it is part of a key, for which SQLite makes the table anew"
            );
        }
        self.push(Kind::Extra, format!("column {name}"), |change| {
            change.drops = !is_key;
            change.up = up;
            change.decide = Some(decide);
        });
    }

    fn keys(&mut self) {
        let table = &self.table.name;
        if self.is.primary_key != self.wanted.primary_key {
            let [is, wanted] =
                [&self.is.primary_key, &self.wanted.primary_key].map(|columns| columns.join(", "));
            let detail = format!("is ({is}) in the schema and ({wanted}) in the entity");
            let decide = format!("the primary key of {table} {detail}; change either");
            self.push(Kind::Different, "primary key".to_owned(), |change| {
                change.difference.detail = detail;
                change.decide = Some(decide);
            });
        }
        let missing = |columns: &str| {
            let mut columns = columns.split(", ");
            columns.any(|column| !self.is.columns.contains_key(column))
        };
        let mut differences = Vec::new();
        for (columns, wanted) in &self.wanted.foreign_keys {
            match self.is.foreign_keys.get(columns) {
                Some(is) if is == wanted => {}
                Some(is) => {
                    differences.push((
                        Kind::Different,
                        columns,
                        format!("is {is}; declared {wanted}"),
                    ));
                }
                // It comes with its column.
                None if !columns.contains(", ") && missing(columns) => {}
                None => differences.push((Kind::Missing, columns, format!("{wanted}"))),
            }
        }
        for (kind, columns, detail) in differences {
            let decide = format!(
                "the foreign key {table} ({columns}) {}{detail}. SQLite adds none to a table: make it anew there, and copy its rows",
                if kind == Kind::Missing {
                    "is missing: "
                } else {
                    ""
                }
            );
            self.push(kind, format!("foreign key {columns}"), |change| {
                change.difference.detail = detail;
                change.decide = Some(decide);
            });
        }
    }

    fn indexes(&mut self) {
        let table = self.table;
        for (columns, unique) in table
            .uniques
            .iter()
            .map(|columns| (columns, true))
            .chain(table.indexes.iter().map(|columns| (columns, false)))
        {
            if self.is_indexed(columns, unique) {
                continue;
            }
            let index = table.index(columns, unique);
            let what = named(&index);
            let drop = drop_index(index.get_index_spec().get_name().unwrap_or_default());
            self.push(Kind::Missing, what, |change| {
                change.up = Statements::both(|backend| create_index(backend, &index));
                change.down = Statements::same(&drop);
            });
        }
    }

    /// Whether an index of the schema does what one on these columns would.
    fn is_indexed(&self, columns: &[String], unique: bool) -> bool {
        let wanted: BTreeSet<&String> = columns.iter().collect();
        let whole = || {
            self.is
                .indexes
                .values()
                .filter(|index| index.predicate.is_none())
        };
        if unique {
            let is_key = self.is.primary_key.iter().collect::<BTreeSet<_>>() == wanted;
            let is_same = |columns: &Vec<String>| columns.iter().collect::<BTreeSet<_>>() == wanted;
            return is_key || whole().any(|index| index.unique && is_same(&index.columns));
        }
        self.is.primary_key.starts_with(columns)
            || whole().any(|index| index.columns.starts_with(columns))
    }
}

/// Returns the name that a column had, which `SeaORM` passes on in its comment.
fn former(column: &ColumnDef) -> Option<&str> {
    let comment = column.get_column_spec().comment.as_deref()?;
    let (_, name) = comment.rsplit_once("renamed_from \"")?;
    name.strip_suffix('"')
}

/// Whether the entity says no more than that it is text.
fn says_no_length(column: &ColumnDef) -> bool {
    matches!(
        column.get_column_type(),
        Some(ColumnType::String(StringLen::None | StringLen::Max))
    )
}

fn is_text(kind: &str) -> bool {
    kind == "text" || kind.starts_with("varchar") || kind.starts_with("char")
}

fn add_column(backend: DbBackend, table: &str, column: &ColumnDef) -> String {
    let mut alter = Sql::alter();
    alter
        .table(table.to_owned())
        .add_column(declared::column(backend, column));
    match backend {
        DbBackend::Postgres => alter.to_string(PostgresQueryBuilder),
        _ => alter.to_string(SqliteQueryBuilder),
    }
}

/// Puts each column of a `CREATE TABLE` on a line of its own.
fn on_lines(sql: &str) -> String {
    let mut lines = String::new();
    let mut depth = 0_u32;
    let mut quote = None;
    for character in sql.chars() {
        match (quote, character) {
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            (None, '(') => depth += 1,
            (None, ')') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    lines.truncate(lines.trim_end().len());
                    lines.push('\n');
                }
            }
            (None, ' ') if lines.ends_with("\n    ") => continue,
            _ => {}
        }
        lines.push(character);
        if quote.is_none() && depth == 1 && matches!(character, '(' | ',') {
            lines.push_str("\n    ");
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::on_lines;

    #[test]
    fn columns_stand_on_lines_of_their_own() {
        let sql =
            r#"CREATE TABLE "a" ( "b" real(1, 2) DEFAULT '(,', "c," text CHECK (x IN (1, 2)) )"#;
        assert_eq!(
            on_lines(sql),
            "CREATE TABLE \"a\" (\n    \"b\" real(1, 2) DEFAULT '(,',\n    \"c,\" text CHECK (x IN (1, 2))\n)"
        );
    }
}
