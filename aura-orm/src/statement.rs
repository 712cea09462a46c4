//! SQL with its values.

use std::borrow::Cow;

use sea_orm::Value;

/// SQL with the values of its placeholders.
#[derive(Debug, Clone)]
pub struct Statement {
    pub(crate) kind: StatementKind,
    pub(crate) sql: Cow<'static, str>,
    pub(crate) values: Vec<Value>,
    /// It writes, or calls a function that may.
    pub(crate) may_write: bool,
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
            may_write: kind != StatementKind::Read,
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
    /// whether it writes. One that reads and calls a function that isn't known runs as a
    /// read, and its outcome is unknown when its answer is lost.
    #[must_use]
    pub fn classify(statement: sea_orm::Statement) -> Self {
        let mut statement = Self::of(StatementKind::BulkWrite, statement);
        statement.kind = kind_of(&statement.sql, statement.values.len());
        statement.may_write = statement.writes() || may_write(&statement.sql);
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

/// What stands before a parenthesis in a statement that reads and does nothing else: words of
/// SQL, types with a length, and functions that are often called.
const HARMLESS: &str = "\
    ABS ALL AND ANY ARRAY ARRAY_AGG AS AVG BETWEEN BY CASE CAST CEIL CHAR COALESCE COLLATE \
    CONCAT COUNT CURRENT_DATABASE CURRENT_SCHEMA CURRENT_SETTING DATE DATE_PART DATE_TRUNC \
    DECIMAL DENSE_RANK DISTINCT ELSE EXCEPT EXISTS EXTRACT FILTER FLOOR FROM GENERATE_SERIES \
    GREATEST GROUP HAVING ILIKE IN INTERSECT JOIN JSONB_AGG JSONB_BUILD_OBJECT JSON_AGG \
    JSON_BUILD_OBJECT LAG LATERAL LEAD LEAST LENGTH LIKE LIMIT LOWER MATERIALIZED MAX MIN \
    NOT NOW NULLIF NUMERIC OFFSET ON OR OVER PG_SLEEP QUOTE_IDENT RANK REPLACE ROUND ROW \
    ROW_NUMBER SELECT SOME STRING_AGG SUBSTR SUBSTRING SUM THEN TO_CHAR TO_REGCLASS TRIM UNION \
    UNNEST UPPER USING VALUES VARCHAR VERSION WHERE";

/// Returns whether SQL that reads by its first word may write all the same: it calls a
/// function that isn't known, or explains a statement by running it.
fn may_write(sql: &str) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let words = sql.split(|character| !is_word(character));
    let mut words = words.filter(|word| !word.is_empty());
    let is = |word: &str, known: &str| word.eq_ignore_ascii_case(known);
    if words.next().is_some_and(|first| is(first, "EXPLAIN")) {
        return words.any(|word| is(word, "ANALYZE") || is(word, "ANALYSE"));
    }
    sql.match_indices('(').any(|(at, _)| {
        let before = sql.get(..at).unwrap_or_default().trim_end();
        let word = before.rsplit(|character| !is_word(character)).next();
        let word = word.unwrap_or_default();
        before.ends_with('"')
            || !word.is_empty() && !HARMLESS.split(' ').any(|harmless| is(word, harmless))
    })
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
    fn a_read_that_calls_a_function_may_write() {
        for sql in [
            "SELECT 1",
            "SELECT count(*), coalesce(max(a), 0) FROM b WHERE c IN (1, 2) AND (d OR NOT (e))",
            "WITH a AS MATERIALIZED (SELECT ROW_NUMBER() OVER (ORDER BY \"b\") FROM c) \
             SELECT * FROM a",
            "VALUES (1), (2)",
            "SELECT CAST(a AS varchar(3)) FROM b JOIN c USING (d)",
            "EXPLAIN SELECT f()",
            "SELECT 1 FROM (SELECT pg_sleep(1)) AS s",
        ] {
            assert!(!may_write(sql), "{sql}");
        }
        for sql in [
            "SELECT f()",
            "SELECT public.f (1)",
            "SELECT \"f\"(1)",
            "SELECT * FROM größe(1)",
            "SELECT nextval('a')",
            "EXPLAIN ANALYZE DELETE FROM a",
            "EXPLAIN (VERBOSE, ANALYZE) SELECT 1",
        ] {
            assert!(may_write(sql), "{sql}");
        }
        let classified = |sql: &str| {
            let statement =
                sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, sql.to_owned());
            let statement = Statement::classify(statement);
            (statement.kind, statement.may_write)
        };
        assert_eq!(classified("SELECT f()"), (StatementKind::Read, true));
        assert_eq!(classified("SELECT 1"), (StatementKind::Read, false));
        assert_eq!(
            classified("DELETE FROM a"),
            (StatementKind::BulkWrite, true)
        );
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
