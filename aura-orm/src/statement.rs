//! SQL with its values.

use std::borrow::Cow;

use sea_orm::Value;

/// SQL with the values of its placeholders.
#[derive(Debug, Clone)]
pub struct Statement {
    pub(crate) kind: StatementKind,
    pub(crate) sql: Cow<'static, str>,
    pub(crate) values: Vec<Value>,
    /// A read that is known to be short.
    pub(crate) short: bool,
    /// It isn't worth to be kept prepared, because none like it follows.
    pub(crate) once: bool,
}

/// What a statement does, which decides where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// Reads only.
    Read,
    /// Writes a few rows.
    Write,
    /// May write many rows: on SQLite it runs where it may block, unless it is the first
    /// of its transaction, alone, and quick.
    BulkWrite,
}

/// The most values of an insert that writes a few rows.
const FEW_VALUES: usize = 256;

impl Statement {
    /// Creates a statement. Each connection prepares it once.
    pub fn new(kind: StatementKind, sql: impl Into<Cow<'static, str>>, values: Vec<Value>) -> Self {
        Self {
            kind,
            sql: sql.into(),
            values,
            short: false,
            once: false,
        }
    }

    /// Converts a statement of `SeaORM`'s.
    #[must_use]
    pub fn of(kind: StatementKind, statement: sea_orm::Statement) -> Self {
        let values = statement.values.map(|values| values.0).unwrap_or_default();
        Self::new(kind, statement.sql, values)
    }

    /// Converts a statement of `SeaORM`'s that may do anything: its first word says
    /// whether it writes.
    #[must_use]
    pub fn classify(statement: sea_orm::Statement) -> Self {
        let mut statement = Self::of(StatementKind::BulkWrite, statement);
        statement.kind = kind_of(&statement.sql, statement.values.len());
        statement
    }

    /// Returns the SQL.
    #[must_use]
    pub fn sql(&self) -> &Cow<'static, str> {
        &self.sql
    }

    /// Returns what the statement does.
    #[must_use]
    pub fn kind(&self) -> StatementKind {
        self.kind
    }

    /// Returns whether the statement writes.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.kind != StatementKind::Read
    }

    /// Returns the table that it writes to, by its SQL.
    pub(crate) fn written_table(&self) -> Option<String> {
        written_table(&self.sql)
    }

    /// Returns the SQL and the values of its placeholders.
    #[must_use]
    pub fn into_parts(self) -> (Cow<'static, str>, Vec<Value>) {
        (self.sql, self.values)
    }
}

/// Returns the table that an INSERT, UPDATE or DELETE names first, without its schema.
pub(crate) fn written_table(sql: &str) -> Option<String> {
    let (mut rest, mut before) = (sql.trim_start(), "");
    loop {
        let (word, next) = rest.split_once(char::is_whitespace)?;
        rest = next.trim_start();
        let is = |one: &str, other: &str| one.eq_ignore_ascii_case(other);
        if is(word, "INTO")
            || is(word, "UPDATE") && !is(before, "FOR")
            || is(word, "FROM") && is(before, "DELETE")
        {
            break;
        }
        before = word;
    }
    let (name, rest) = identifier(rest)?;
    match rest.strip_prefix('.') {
        Some(rest) => identifier(rest).map(|(name, _)| name),
        None => Some(name),
    }
}

/// Splits an identifier, quoted or not, from what follows it.
fn identifier(sql: &str) -> Option<(String, &str)> {
    let Some(quoted) = sql.strip_prefix('"') else {
        let end = sql.find(|character: char| !character.is_alphanumeric() && character != '_');
        let (name, rest) = sql.split_at(end.unwrap_or(sql.len()));
        return (!name.is_empty()).then(|| (name.to_owned(), rest));
    };
    let end = quoted.find('"')?;
    Some((quoted.get(..end)?.to_owned(), quoted.get(end + 1..)?))
}

fn kind_of(sql: &str, values: usize) -> StatementKind {
    const READING: [&str; 7] = [
        "SELECT", "VALUES", "TABLE", "SHOW", "EXPLAIN", "PRAGMA", "WITH",
    ];
    const WRITING: [&str; 4] = ["INSERT", "UPDATE", "DELETE", "MERGE"];
    let mut words = sql
        .split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .filter(|word| !word.is_empty());
    let first = words.next().unwrap_or("");
    let is = |word: &str, list: &[&str]| list.iter().any(|known| word.eq_ignore_ascii_case(known));
    if is(first, &READING) {
        // `WITH` may have a statement in it that writes.
        let reads = !first.eq_ignore_ascii_case("WITH") || !words.any(|word| is(word, &WRITING));
        return if reads {
            StatementKind::Read
        } else {
            StatementKind::BulkWrite
        };
    }
    // As sea-query writes an insert of rows, and not of what a query returns.
    if first == "INSERT" && sql.contains(") VALUES (") && values <= FEW_VALUES {
        StatementKind::Write
    } else {
        StatementKind::BulkWrite
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_says_whether_a_statement_writes() {
        for sql in [
            "SELECT 'INSERT'",
            " (select 1) UNION (select 2)",
            "WITH a AS (SELECT updated_at FROM b) SELECT * FROM a",
            "EXPLAIN SELECT 1",
        ] {
            assert_eq!(kind_of(sql, 0), StatementKind::Read, "{sql}");
        }
        for sql in [
            "insert into a select 1",
            "WITH a AS (DELETE FROM b RETURNING id) SELECT id FROM a",
            "UPDATE a SET b = 1",
            "DELETE FROM a",
            "CREATE TABLE a (b)",
            "",
        ] {
            assert_eq!(kind_of(sql, 0), StatementKind::BulkWrite, "{sql}");
        }
        let insert = r#"INSERT INTO "a" ("b") VALUES (?)"#;
        assert_eq!(kind_of(insert, 1), StatementKind::Write);
        assert_eq!(kind_of(insert, 1_000), StatementKind::BulkWrite);
    }

    #[test]
    fn a_write_names_its_table() {
        for sql in [
            r#"INSERT INTO "notes" ("a") VALUES (?)"#,
            "insert or replace into main.notes(a) values (1)",
            "\n  UPDATE notes SET a = 1",
            r#"UPDATE "app"."notes" SET "a" = 1"#,
            "DELETE FROM notes",
            "WITH a AS (SELECT 1 FROM b FOR UPDATE OF b ) UPDATE notes SET b = 1",
        ] {
            assert_eq!(written_table(sql).as_deref(), Some("notes"), "{sql}");
        }
        for sql in ["", "UPDATE", "UPDATE ", "VACUUM"] {
            assert_eq!(written_table(sql), None, "{sql}");
        }
    }
}
