//! The SQL of the queue.

use std::sync::LazyLock;

use entity::ExecutionMode;
use sea_orm::{DbBackend, Iterable};

use super::lease::LONGEST_LEASE;

/// Those that a claim has found.
const FOUND: &str = "SELECT id FROM due UNION ALL SELECT id FROM expired \
     UNION ALL SELECT id FROM queued";

/// The most executions that one claim buries.
const BURIED: u64 = 100;

/// What a worker of this build may take, in place of `{runnable}`. What was queued with another
/// mode is left to the workers of a newer build. The workflow is looked up by row and not
/// joined, because a join would read the whole queue.
const RUNNABLE: &str = "is_suspended = FALSE AND mode IN ({known}) \
     AND (SELECT w.deleted_at IS NULL FROM workflows AS w WHERE w.id = e.workflow_id)";

/// Of those that were found the first whose documents have at most `{bytes}` together, and the
/// first `{first}` however large they are. `octet_length` of a `json` decompresses it; of what
/// is stored compressed PostgreSQL knows no other size in text.
const FITTING_POSTGRES: &str = r"
    SELECT id FROM (
        SELECT id, row_number() OVER queue AS nth, sum(
            coalesce(octet_length(CAST(data AS text)), 0)
            + coalesce(octet_length(CAST(error AS text)), 0)) OVER queue AS bytes
        FROM executions WHERE id = ANY (ARRAY ({found}))
        WINDOW queue AS (ORDER BY wait_until, id)) AS sized
    WHERE bytes <= {bytes} OR nth <= {first}";

/// As [`FITTING_POSTGRES`]. `octet_length` reads the head of the row only.
const FITTING_SQLITE: &str = r"
    SELECT id FROM (
        SELECT id, row_number() OVER queue AS nth, sum(
            coalesce(octet_length(data), 0)
            + coalesce(octet_length(error), 0)) OVER queue AS bytes
        FROM executions WHERE id IN ({found})
        WINDOW queue AS (ORDER BY wait_until, id)) AS sized
    WHERE bytes <= {bytes} OR nth <= {first}";

fn fitting(sql: &str, found: &str, [bytes, first]: [&str; 2]) -> String {
    sql.replace("{found}", found)
        .replace("{bytes}", bytes)
        .replace("{first}", first)
}

/// Whose lease ran out, in place of `{late}`. See [`CLAIM`] for the `+`.
const LATE: &str = "{+}status = 'running' AND lease_until <= {now}";

/// As [`LATE`], and those whose end is too far away to wait for: a lease that ends later than
/// any may was written by a clock that was wrong. Workers don't look for these, which no index
/// has.
const STRAY: &str = "status = 'running' \
     AND (lease_until <= {now} OR lease_until > {longest} OR lease_until IS NULL)";

/// What is set where an attempt was the last, in place of `{bury}`.
const BURY: &str = r#"status = 'dead', lease_until = NULL, finished_at = {ended},
    error = {json}('{"code":"lease_expired","attempts":' || attempts || '}'{as_json})"#;

/// Takes the first of a kind, and of the next kind only when there is none. (A limit that is
/// computed, to take from all, is planned as a tenth of the queue.) None is locked that is not
/// taken, because it would be passed over by others, and none would have it; of several, what
/// doesn't fit is, until the end of the statement. The `+` is for SQLite: it takes equality for
/// the narrower search, and would read all that wait.
const CLAIM: &str = r"
due AS MATERIALIZED (
    SELECT id FROM executions AS e
    WHERE {+}status = 'waiting' AND wait_until <= {now} AND {runnable}
    ORDER BY wait_until, id LIMIT {limit}
), expired AS MATERIALIZED (
    SELECT id FROM executions AS e
    WHERE {late} AND attempts < max_attempts AND {runnable}
        AND (SELECT count(*) FROM due) = 0
    ORDER BY lease_until, id LIMIT {limit}
), queued AS MATERIALIZED (
    SELECT id FROM executions AS e
    WHERE status = 'queued' AND {runnable}
        AND (SELECT count(*) FROM due) = 0 AND (SELECT count(*) FROM expired) = 0
    ORDER BY id LIMIT {limit}
)
UPDATE executions SET status = 'running', worker_id = {worker}, lease_until = {until},
    wait_until = NULL, started_at = COALESCE(started_at, {now}),
    attempts = attempts + 1, claim_no = claim_no + 1
WHERE id ";

/// Buries what ran out with its last attempt.
const BURY_THESE: &str = r"
UPDATE executions SET {bury} WHERE id {in} (
    SELECT id FROM executions AS e WHERE {late} AND attempts >= max_attempts
    ORDER BY lease_until, id LIMIT {most}";

/// Rows are locked where they are found, and those that another worker has locked are passed
/// over.
const LOCK: &str = " FOR UPDATE OF e SKIP LOCKED";

/// Puts the conditions of a statement in the place of their names. The present moment is the
/// parameter `now`; on PostgreSQL it is the server's where that is NULL. The end of the longest
/// lease is on SQLite the parameter `longest`.
fn with_moments(backend: DbBackend, sql: &str, now: &str, longest: &str) -> String {
    let is_postgres = backend == DbBackend::Postgres;
    let (now, longest) = if is_postgres {
        let micros = LONGEST_LEASE.as_micros();
        (
            format!("COALESCE({now}, statement_timestamp())"),
            format!("{{now}} + {micros} * interval '1 microsecond'"),
        )
    } else {
        (now.to_owned(), longest.to_owned())
    };
    let [plus, ended, cast, as_json] = if is_postgres {
        ["", "GREATEST({now}, started_at)", "CAST", " AS json"]
    } else {
        ["+", "max({now}, coalesce(started_at, {now}))", "", ""]
    };
    let known: Vec<_> = ExecutionMode::iter()
        .map(|mode| format!("'{mode}'"))
        .collect();
    sql.replace("{runnable}", RUNNABLE)
        .replace("{late}", LATE)
        .replace("{stray}", STRAY)
        .replace("{bury}", BURY)
        .replace("{+}", plus)
        .replace("{ended}", ended)
        .replace("{json}", cast)
        .replace("{as_json}", as_json)
        .replace("{longest}", &longest)
        .replace("{now}", &now)
        .replace("{most}", &BURIED.to_string())
        .replace("{known}", &known.join(", "))
}

/// Claims what `taken` selects of what was found. `ANY (ARRAY (…))`, because an `IN` may be run
/// anew for each row, and would lock others.
fn claim_sql(backend: DbBackend, taken: &str) -> String {
    let (sql, now) = if backend == DbBackend::Postgres {
        let bury = BURY_THESE.replace("{in}", "= ANY (ARRAY");
        let sql = format!("WITH buried AS ({bury}{LOCK}))), {CLAIM}= ANY (ARRAY ({taken}))")
            .replace("{limit}", &format!("$4{LOCK}"))
            .replace("{worker}", "$1")
            .replace("{until}", "{now} + $2 * interval '1 microsecond'");
        (sql, "$3")
    } else {
        let sql = format!("WITH {CLAIM}IN ({taken})")
            .replace("{limit}", "?4")
            .replace("{worker}", "?1")
            .replace("{until}", "?2");
        (sql, "?3")
    };
    with_moments(backend, &sql, now, "")
}

/// Claims one.
pub(super) static CLAIM_POSTGRES: LazyLock<String> =
    LazyLock::new(|| claim_sql(DbBackend::Postgres, FOUND));

pub(super) static CLAIM_SQLITE: LazyLock<String> =
    LazyLock::new(|| claim_sql(DbBackend::Sqlite, FOUND));

/// Claims several.
pub(super) static CLAIM_MANY_POSTGRES: LazyLock<String> = LazyLock::new(|| {
    let fitting = fitting(FITTING_POSTGRES, FOUND, ["$5", "$6"]);
    claim_sql(DbBackend::Postgres, &fitting)
});

pub(super) static CLAIM_MANY_SQLITE: LazyLock<String> = LazyLock::new(|| {
    let fitting = fitting(FITTING_SQLITE, FOUND, ["?5", "?6"]);
    claim_sql(DbBackend::Sqlite, &fitting)
});

/// Buries, on SQLite, which can't do this and claim in one statement. The parameter is the
/// present moment.
pub(super) static BURY_SQLITE: LazyLock<String> = LazyLock::new(|| {
    let sql = format!("{})", BURY_THESE.replace("{in}", "IN"));
    with_moments(DbBackend::Sqlite, &sql, "?1", "")
});

/// Whether there is something to bury.
pub(super) static LATE_SQLITE: LazyLock<String> = LazyLock::new(|| {
    let sql = "SELECT 1 FROM executions WHERE {late} AND attempts >= max_attempts LIMIT 1";
    with_moments(DbBackend::Sqlite, sql, "?1", "")
});

/// Puts what is late back into the queue, or buries it.
const RECOVER: &str = r#"
WITH late AS MATERIALIZED (
    SELECT id FROM executions AS e WHERE {stray} ORDER BY id LIMIT {limit}
)
UPDATE executions SET
    status = CASE WHEN attempts < max_attempts THEN 'queued' ELSE 'dead' END,
    worker_id = CASE WHEN attempts < max_attempts THEN NULL ELSE worker_id END,
    finished_at = CASE WHEN attempts < max_attempts THEN NULL ELSE {ended} END,
    error = CASE WHEN attempts < max_attempts THEN error
        ELSE {json}('{"code":"lease_expired","attempts":' || attempts || '}'{as_json}) END,
    lease_until = NULL
WHERE id "#;

pub(super) static RECOVER_POSTGRES: LazyLock<String> = LazyLock::new(|| {
    let fitting = fitting(FITTING_POSTGRES, "SELECT id FROM late", ["$3", "$4"]);
    let sql = format!("{RECOVER}= ANY (ARRAY ({fitting}))");
    let sql = sql.replace("{limit}", &format!("$2{LOCK}"));
    with_moments(DbBackend::Postgres, &sql, "$1", "")
});

pub(super) static RECOVER_SQLITE: LazyLock<String> = LazyLock::new(|| {
    let fitting = fitting(FITTING_SQLITE, "SELECT id FROM late", ["?4", "?5"]);
    let sql = format!("{RECOVER}IN ({fitting})").replace("{limit}", "?2");
    with_moments(DbBackend::Sqlite, &sql, "?1", "?3")
});
