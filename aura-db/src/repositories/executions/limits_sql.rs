//! The SQL of the limits. Parameters are `$n`, on SQLite too, where they become `?n`, but those of
//! ranges, which are `?n` at once.

use std::borrow::Cow;
use std::sync::LazyLock;

use sea_orm::DbBackend;

use super::front::front;
use super::limits::MOST_LIMITS;
use super::sql::{FITTING, MOST_DUE, claim_of, of};

/// Sets a limit: key and how many.
pub(super) const SET: &str = "
INSERT INTO execution_limits ({column}, max_running) VALUES ($1, $2)
ON CONFLICT ({column}) DO UPDATE SET max_running = excluded.max_running RETURNING id";

/// Removes a limit.
pub(super) const REMOVE: &str = "DELETE FROM execution_limits WHERE {column} = $1 RETURNING id";

/// Limits, and how many executions run under each.
pub(super) const LIMITS: &str = "
SELECT l.id, l.workflow_id, l.owner_id, l.max_running, CASE WHEN l.workflow_id IS NULL
    THEN (SELECT count(*) FROM executions AS e
        WHERE e.status = 'running' AND e.owner_id > 0 AND e.owner_id = l.owner_id)
    ELSE (SELECT count(*) FROM executions AS e
        WHERE e.status = 'running' AND e.workflow_id > 0 AND e.workflow_id = l.workflow_id) END
FROM execution_limits AS l WHERE {which}";

pub(super) const LIMITS_BY_ID: &str = "l.id {in}{list 1}{end}";

pub(super) const LIMITS_BY_KEY: &str =
    "l.workflow_id {in}{list 1}{end} OR l.owner_id {in}{list 2}{end}";

/// Lets some go of a queue that wait for a limit: its id, queue, and how many.
pub(super) const UNPARK: &str = "
UPDATE executions SET limit_id = NULL WHERE id {in}
    SELECT e.id FROM executions AS e
    WHERE e.status = 'queued' AND e.limit_id = $1 AND e.queue = $2
    ORDER BY e.priority DESC, e.id LIMIT $3 {lock}{end}
RETURNING queue";

/// Has those that wait for one limit wait for another that they are under too: the other, its
/// key, the one.
pub(super) const MOVE: &str = "
UPDATE executions SET limit_id = $1 WHERE id {in}
    SELECT e.id FROM executions AS e
    WHERE e.{column} = $2 AND e.status = 'queued' AND e.limit_id = $3
    LIMIT {most_parked} {lock}{end}";

/// As [`UNPARK`], of all queues: none is left behind with a limit that is gone.
pub(super) const RELEASE: &str = "
UPDATE executions SET limit_id = NULL WHERE id {in}
    SELECT e.id FROM executions AS e WHERE e.status = 'queued' AND e.limit_id = $1
    LIMIT $2 {lock}{end}
RETURNING queue";

/// Notes that nothing waits for a limit, if nothing does. It is locked.
pub(super) const EMPTIED: &str = "
UPDATE execution_limits SET has_parked = FALSE WHERE id = $1 AND NOT EXISTS (
    SELECT 1 FROM executions AS e WHERE e.status = 'queued' AND e.limit_id = $1)";

/// Notes that something waits for limits.
pub(super) const MARK: &str = "UPDATE execution_limits SET has_parked = TRUE WHERE has_parked = FALSE AND id {in}{list 1}{end}";

/// Locks limits that something waits for, others at each look when there are many. A change
/// locks them better than `FOR UPDATE`: at REPEATABLE READ it fails where another has changed them,
/// instead of counting what ran before.
pub(super) const HELD: &str = "
UPDATE execution_limits SET has_parked = TRUE WHERE id {in}
    SELECT e.id FROM execution_limits AS e WHERE e.has_parked
    ORDER BY random() LIMIT {most_limits} {lock}{end}
RETURNING id";

/// Limits that something waits for without their knowing, and whether they are there. Each is
/// found with one step in the index, however many wait for the one before.
pub(super) const LOST: &str = "
WITH RECURSIVE found (id) AS (
    SELECT min(e.limit_id) FROM executions AS e
    WHERE e.status = 'queued' AND e.limit_id IS NOT NULL
    UNION ALL
    SELECT (SELECT min(e.limit_id) FROM executions AS e
        WHERE e.status = 'queued' AND e.limit_id > found.id)
    FROM found WHERE found.id IS NOT NULL)
SELECT found.id, l.id IS NOT NULL FROM found LEFT JOIN execution_limits AS l ON l.id = found.id
WHERE found.id IS NOT NULL AND (l.id IS NULL OR l.has_parked = FALSE) ORDER BY found.id";

/// Returns SQL that finds what is next, at most `{limit}`. PostgreSQL locks it and then the limits
/// that it is under, in one order for all, and returns their ids too. The parameters are the ranges.
pub(super) fn look(backend: DbBackend, ranges: usize) -> String {
    let front = front(backend, ranges, 1, true);
    let found = "SELECT f.id, f.workflow_id, f.owner_id, f.priority, f.nth
        FROM found AS f JOIN workflows AS w ON w.id = f.workflow_id WHERE w.deleted_at IS NULL";
    if backend != DbBackend::Postgres {
        return format!("WITH found AS MATERIALIZED ({front}) {found}");
    }
    let sql = format!(
        "WITH found AS MATERIALIZED ({front}), limits AS MATERIALIZED (
            SELECT l.id FROM execution_limits AS l
            WHERE l.workflow_id {{in}}SELECT workflow_id FROM found{{end}}
                OR l.owner_id {{in}}SELECT owner_id FROM found{{end}}
            ORDER BY l.id FOR UPDATE),
        locked AS (
            UPDATE execution_limits SET has_parked = has_parked
            WHERE id {{in}}SELECT id FROM limits{{end}} RETURNING id)
        {found} UNION ALL SELECT id, NULL, NULL, NULL, NULL FROM locked"
    );
    of(backend, &sql, "")
}

/// Returns SQL that parks what stands in front and has no room: the limit's id, its key, ranges.
pub(super) fn park(backend: DbBackend, column: &str, ranges: usize) -> String {
    let front = front(backend, ranges, 3, false);
    let sql = format!(
        "WITH front AS MATERIALIZED ({front})
        UPDATE executions SET limit_id = $1 WHERE id {{in}}
            SELECT e.id FROM executions AS e
            WHERE e.status || '' = 'queued' AND e.limit_id IS NULL
                AND e.id {{in}}SELECT f.id FROM front AS f WHERE f.{column} = $2{{end}}
            {{lock}}{{end}}"
    );
    by_backend(backend, &sql.replace("{limit}", &MOST_DUE.to_string())).into_owned()
}

static CLAIM_THESE: LazyLock<[String; 4]> = LazyLock::new(|| {
    let these = |backend, several| {
        let (given, until) = match backend {
            DbBackend::Postgres => (
                "(SELECT CAST(value AS bigint) AS id, nth
                    FROM json_array_elements_text(CAST($4 AS json)) WITH ORDINALITY
                        AS list (value, nth)) AS g",
                "{now} + $2 * interval '1 microsecond'",
            ),
            _ => (
                "(SELECT value AS id, key AS nth FROM json_each($4)) AS g",
                "$2",
            ),
        };
        let taken = if several {
            FITTING
                .replace(
                    "{found}",
                    &format!("{given} JOIN executions AS e ON e.id = g.id"),
                )
                .replace("{order}", "g.nth")
                .replace("{bytes}", "$5")
                .replace("{first}", "$6")
        } else {
            format!("SELECT g.id FROM {given}")
        };
        let sql = claim_of(several, &taken)
            .replace("{worker}", "$1")
            .replace("{until}", until);
        let sql = of(backend, &sql, "$3");
        match backend {
            DbBackend::Postgres => sql,
            _ => sql.replace('$', "?"),
        }
    };
    let (postgres, sqlite) = (DbBackend::Postgres, DbBackend::Sqlite);
    [
        these(postgres, false),
        these(postgres, true),
        these(sqlite, false),
        these(sqlite, true),
    ]
});

/// Claims these: worker, lease, moment, ids in their order; and of several how many bytes, and
/// how many however large they are.
pub(super) fn claim(backend: DbBackend, several: bool) -> &'static str {
    let of_backend = if backend == DbBackend::Postgres { 0 } else { 2 };
    &CLAIM_THESE[of_backend + usize::from(several)]
}

/// Puts the words of a backend in the place of their names.
pub(super) fn by_backend(backend: DbBackend, sql: &str) -> Cow<'static, str> {
    let list = |parameter: &str| match backend {
        DbBackend::Postgres => format!(
            "SELECT CAST(value AS bigint) FROM \
             json_array_elements_text(CAST({parameter} AS json)) AS list (value)"
        ),
        _ => format!("SELECT value FROM json_each({parameter})"),
    };
    let sql = sql
        .replace("{list 1}", &list("$1"))
        .replace("{list 2}", &list("$2"))
        .replace("{most_parked}", &MOST_DUE.to_string())
        .replace("{most_limits}", &MOST_LIMITS.to_string());
    let sql = of(backend, &sql, "");
    Cow::Owned(match backend {
        DbBackend::Postgres => sql,
        _ => sql.replace('$', "?"),
    })
}
