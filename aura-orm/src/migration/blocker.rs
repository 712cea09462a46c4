//! The session of PostgreSQL's that a step waits for.

use std::fmt;
use std::time::Duration;

use connection::{Config, Target};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, QueryResult, Statement};

use super::Event;

/// How long a statement may take before this asks what it waits for, and between questions.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long an answer may take; without one there is no report.
const ANSWER: Duration = Duration::from_secs(5);

/// How much of the statement is shown.
const STATEMENT_LENGTH: usize = 200;

/// A lock that a step waits for, and the session that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The lock: `AccessExclusiveLock on notes`.
    pub lock: String,
    /// The process id of the session, for `pg_terminate_backend`.
    pub pid: i32,
    /// Its `application_name`.
    pub application: String,
    /// When its statement began, in UTC.
    pub query_start: String,
    /// Its statement, the last one if it is idle, without values.
    pub statement: String,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            lock,
            pid,
            application,
            query_start,
            statement,
        } = self;
        let application = match application.as_str() {
            "" => String::new(),
            name => format!(" of {name}"),
        };
        write!(
            f,
            "{lock}, held by server process {pid}{application} (since {query_start} UTC: {statement})"
        )
    }
}

/// Looks for blockers of one session, on a connection of its own.
pub(super) struct Watch<'a> {
    /// `None` where there is nothing to look for: on SQLite.
    config: Option<&'a Config>,
    interval: Duration,
    connection: Option<DatabaseConnection>,
    last: Option<Blocker>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(config: Option<&'a Config>, lock_timeout: Duration) -> Self {
        let is_postgres = |config: &&Config| matches!(config.target, Target::Postgres(_));
        Self {
            config: config.filter(is_postgres),
            interval: INTERVAL.min(lock_timeout / 4),
            connection: None,
            last: None,
        }
    }

    /// Runs a step, and reports what it waits for.
    pub(super) async fn run<T>(
        &mut self,
        pid: Option<i32>,
        step: impl Future<Output = T>,
        on_event: &mut (impl FnMut(Event<'_>) + Send),
    ) -> T {
        let (Some(pid), Some(config)) = (pid, self.config) else {
            return step.await;
        };
        tokio::pin!(step);
        loop {
            tokio::select! {
                biased;
                result = &mut step => return result,
                () = tokio::time::sleep(self.interval) => {}
            }
            let look = tokio::time::timeout(ANSWER, self.look(config, pid));
            tokio::select! {
                biased;
                result = &mut step => return result,
                found = look => {
                    if let Ok(Some(blocker)) = found {
                        self.report(blocker, on_event);
                    }
                }
            }
        }
    }

    fn report(&mut self, blocker: Blocker, on_event: &mut (impl FnMut(Event<'_>) + Send)) {
        let known = self
            .last
            .as_ref()
            .is_some_and(|last| last.pid == blocker.pid && last.lock == blocker.lock);
        let blocker = self.last.insert(blocker);
        if !known {
            on_event(Event::Blocked(blocker));
        }
    }

    /// Returns what was found last.
    pub(super) fn last(&self) -> Option<&Blocker> {
        self.last.as_ref()
    }

    async fn look(&mut self, config: &Config, pid: i32) -> Option<Blocker> {
        if self.connection.is_none() {
            self.connection = connection::connect_read_only(config).await.ok()?;
        }
        let connection = self.connection.as_ref()?;
        let sql = format!(
            "SELECT w.mode || coalesce(' on ' || w.relation::regclass::text, ' on ' || w.locktype) AS lock, \
             a.pid, coalesce(a.application_name::text, '') AS application, \
             coalesce(to_char(a.query_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), '?') AS query_start, \
             coalesce(a.query, '') AS statement \
             FROM pg_locks w CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS b (pid) \
             JOIN pg_stat_activity a ON a.pid = b.pid \
             WHERE w.pid = {pid} AND NOT w.granted ORDER BY a.query_start NULLS LAST LIMIT 1"
        );
        let row = connection
            .query_one_raw(Statement::from_string(DbBackend::Postgres, sql))
            .await;
        blocker(&row.ok()??).ok()
    }

    pub(super) async fn close(self) {
        if let Some(connection) = self.connection {
            let _ = connection.close().await;
        }
    }
}

fn blocker(row: &QueryResult) -> Result<Blocker, DbErr> {
    let statement: String = row.try_get("", "statement")?;
    Ok(Blocker {
        lock: row.try_get("", "lock")?,
        pid: row.try_get("", "pid")?,
        application: row.try_get("", "application")?,
        query_start: row.try_get("", "query_start")?,
        statement: without_values(&statement),
    })
}

/// Returns a statement with `?` for each text and number, which may be secrets, on one line
/// and not too long.
fn without_values(sql: &str) -> String {
    let mut text = String::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
        let length = if let Some(length) = quoted(rest) {
            text.push('?');
            length
        } else if first == '"' {
            let length = rest[1..].find('"').map_or(rest.len(), |end| end + 2);
            text.push_str(&rest[..length]);
            length
        } else if is_word(first) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            // `e'…'` and its like: the letter belongs to the text.
            if first.is_ascii_digit() {
                text.push('?');
            } else {
                text.push_str(&rest[..length]);
            }
            length
        } else {
            text.push(if first.is_control() { ' ' } else { first });
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(STATEMENT_LENGTH) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

/// Returns the length of the text constant or comment that this begins with.
fn quoted(sql: &str) -> Option<usize> {
    let until = |start: usize, end: &str| {
        let found = sql[start..].find(end);
        Some(found.map_or(sql.len(), |at| start + at + end.len()))
    };
    if sql.starts_with("--") {
        return until(2, "\n");
    }
    if sql.starts_with("/*") {
        return until(2, "*/");
    }
    if let Some(rest) = sql.strip_prefix('$') {
        let tag = rest.find('$').map(|end| &sql[..end + 2])?;
        let is_tag = tag[1..tag.len() - 1]
            .chars()
            .enumerate()
            .all(|(at, c)| c.is_alphabetic() || c == '_' || (at > 0 && c.is_ascii_digit()));
        return if is_tag { until(tag.len(), tag) } else { None };
    }
    let escaped = sql.starts_with("E'") || sql.starts_with("e'");
    let start = if escaped {
        2
    } else if sql.starts_with('\'') {
        1
    } else {
        return None;
    };
    let mut characters = sql[start..].char_indices();
    while let Some((at, character)) = characters.next() {
        if character == '\\' && escaped {
            characters.next();
        } else if character == '\'' {
            // A doubled quote begins the next piece of the same text, which is hidden as well.
            return Some(start + at + 1);
        }
    }
    Some(sql.len())
}

#[cfg(test)]
mod tests {
    use super::{STATEMENT_LENGTH, without_values};

    #[test]
    fn statements_are_shown_without_values() {
        for (sql, shown) in [
            (
                "SELECT * FROM \"t 1\" WHERE a = 'x''y' AND b=42.5 AND c = $1",
                "SELECT * FROM \"t 1\" WHERE a = ?? AND b=?.? AND c = $1",
            ),
            (
                "UPDATE t1 SET p = E'a\\'b', q = e'c'",
                "UPDATE t1 SET p = ?, q = ?",
            ),
            ("DO $$ secret $$;\n\tDO $tag$ a $$ b $tag$", "DO ?; DO ?"),
            (
                "SELECT 1 -- secret\n, 2 /* secret */, 'open",
                "SELECT ? ?, ? ?, ?",
            ),
            ("SELECT '李' WHERE é1 = 1e10", "SELECT ? WHERE é1 = ?"),
            ("", ""),
        ] {
            assert_eq!(without_values(sql), shown, "{sql}");
        }
        let long = format!("SELECT {}", "é, ".repeat(500));
        assert_eq!(without_values(&long).chars().count(), STATEMENT_LENGTH + 2);
    }
}
