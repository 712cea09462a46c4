//! The text of a new migration.

use std::collections::BTreeSet;
use std::fmt::Write;

use sea_orm::DbBackend;

use crate::migration::catalog::Kind;
use crate::migration::{EntityChange, Statements};

/// `AddTags` of `add_tags`.
pub(super) fn type_name(name: &str) -> String {
    let words = name.split('_').filter(|word| !word.is_empty());
    words
        .map(|word| word[..1].to_uppercase() + &word[1..])
        .collect()
}

/// Returns the text of a step: an empty one, or one of these changes.
pub(super) fn step(
    library: &str,
    name: &str,
    module: &str,
    changes: Option<&[EntityChange]>,
) -> String {
    let title = name.replace('_', " ");
    let step = type_name(name);
    let body = match changes {
        Some(changes) => filled(changes),
        None => empty(library),
    };
    format!(
        r#"//! To {title}: why?

use {library}::migration::{{DbBackend, Migration}};

pub(super) struct {step};

impl Migration for {step} {{
    fn name(&self) -> &'static str {{
        "{module}"
    }}
{body}}}
"#
    )
}

fn empty(library: &str) -> String {
    format!(
        r"
    // A step that creates tables lists them, so that `fresh` and `check` know them, and
    // that `down` asks before it drops their rows:
    //     fn tables(&self) -> &'static [&'static str]
    // and one whose `down` drops columns lists their tables in
    //     fn destroys(&self) -> &'static [&'static str]

    fn up(&self, backend: DbBackend) -> Vec<String> {{
        // `{library}::migration::columns::Columns::of(backend)` spells columns, indexes and
        // foreign keys the same on both backends.
        let _ = backend;
        Vec::new()
    }}

    fn down(&self, backend: DbBackend) -> Vec<String> {{
        let _ = backend;
        Vec::new()
    }}
"
    )
}

fn filled(changes: &[EntityChange]) -> String {
    let is_table = |change: &&EntityChange| {
        change.difference.kind == Kind::Missing && change.difference.what.is_empty()
    };
    let tables: Vec<&str> = changes
        .iter()
        .filter(is_table)
        .map(|change| &*change.difference.table)
        .collect();
    let mut text = String::new();
    if !tables.is_empty() {
        text += &list("tables", &tables);
    }
    let drops_column = |change: &&EntityChange| {
        let mut sql = change.down.sqlite.iter();
        sql.any(|sql| sql.contains("DROP COLUMN"))
    };
    let altered: BTreeSet<&str> = changes
        .iter()
        .filter(drops_column)
        .map(|change| &*change.difference.table)
        .collect();
    if !altered.is_empty() {
        let all: Vec<&str> = tables.iter().copied().chain(altered).collect();
        text += &list("destroys", &all);
    }
    let ups: Vec<Part<'_>> = changes
        .iter()
        .map(|change| Part {
            note: change.decide.as_deref(),
            statements: &change.up,
            is_comment: change.drops,
        })
        .collect();
    text += &function("up", &ups);

    // The default of `down` drops the tables, and nothing has to be reversed in them.
    let is_dropped = |change: &EntityChange| {
        tables.contains(&&*change.difference.table) && change.down.postgres.len() < 2
    };
    if changes.iter().all(is_dropped) {
        return text;
    }
    let downs: Vec<Part<'_>> = changes
        .iter()
        .rev()
        .map(|change| Part {
            note: None,
            statements: &change.down,
            is_comment: false,
        })
        .collect();
    text + &function("down", &downs)
}

/// A change in one direction.
struct Part<'a> {
    note: Option<&'a str>,
    statements: &'a Statements,
    is_comment: bool,
}

fn list(function: &str, tables: &[&str]) -> String {
    let tables = tables.join("\", \"");
    format!(
        "\n    fn {function}(&self) -> &'static [&'static str] {{\n        &[\"{tables}\"]\n    }}\n"
    )
}

fn function(name: &str, parts: &[Part<'_>]) -> String {
    let arm = |backend| {
        let mut text = String::new();
        for part in parts {
            write_part(&mut text, part, backend);
        }
        if text.is_empty() {
            "[]".to_owned()
        } else {
            format!("[\n{text}            ]")
        }
    };
    format!(
        "
    fn {name}(&self, backend: DbBackend) -> Vec<String> {{
        let statements: &[&str] = match backend {{
            DbBackend::Postgres => &{},
            _ => &{},
        }};
        statements.iter().map(|sql| (*sql).to_owned()).collect()
    }}
",
        arm(DbBackend::Postgres),
        arm(DbBackend::Sqlite)
    )
}

fn write_part(text: &mut String, part: &Part<'_>, backend: DbBackend) {
    const INDENT: &str = "                ";
    match part.note {
        Some(note) if part.is_comment => {
            let _ = writeln!(text, "{INDENT}// {note}:");
        }
        Some(note) => {
            let _ = writeln!(text, "{INDENT}// Decide: {note}.");
        }
        None => {}
    }
    for sql in part.statements.of(backend) {
        let literal = literal(sql);
        if part.is_comment {
            let _ = writeln!(text, "{INDENT}// {literal},");
        } else {
            let _ = writeln!(text, "{INDENT}{literal},");
        }
    }
}

/// Returns a raw string that holds the text, whatever stands in it.
fn literal(sql: &str) -> String {
    let mut hashes = "#".to_owned();
    while sql.contains(&format!("\"{hashes}")) {
        hashes.push('#');
    }
    format!("r{hashes}\"{sql}\"{hashes}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_string_holds_any_text() {
        assert_eq!(literal("DROP \"a\""), "r#\"DROP \"a\"\"#");
        assert_eq!(literal("a\"#b\"##"), "r###\"a\"#b\"##\"###");
    }
}
