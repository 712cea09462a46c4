//! The SQL of the queue.
//!
//! The present moment is a parameter; on PostgreSQL it is the server's where that is NULL.

use std::borrow::Cow;
use std::sync::{LazyLock, OnceLock};

use sea_orm::DbBackend;

use super::front::front;
use super::lease::LONGEST_LEASE;
use super::worker::MOST_QUEUES;

/// The most executions whose lease ran out that one look puts back.
pub(super) const MOST_LATE: u64 = 100;

/// The most executions that one look queues because their waiting is over, and the most that it
/// puts aside because their workflow was deleted.
pub(super) const MOST_DUE: u64 = 1_000;

/// What has waited long enough. The status is no search: SQLite takes equality for the narrower
/// one, and so does PostgreSQL with statistics of before a burst; they would read all that wait.
const DUE: &str = "{status} = 'waiting' AND wait_until <= {now} AND is_suspended = FALSE{scope}";

/// Whose lease ran out. See [`DUE`].
const LATE: &str = "{status} = 'running' AND lease_until <= {now}{scope}";

/// As [`LATE`], and those whose end is too far away to wait for: a lease that ends later than
/// any may was written by a clock that was wrong. Workers don't look for these, which no index
/// has.
const STRAY: &str = "status = 'running' \
     AND (lease_until <= {now} OR lease_until > {longest} OR lease_until IS NULL)";

/// Of each queue of a worker what is behind the turn, and the rest.
const MOST_RANGES: usize = 2 * MOST_QUEUES;

/// Rows are locked where they are found, and those that another worker has locked are passed
/// over.
const LOCK: &str = "FOR UPDATE OF e SKIP LOCKED";

/// Of those that are found the first whose documents have at most `{bytes}` together, and the
/// first `{first}` however large they are. `octet_length` of a `json` decompresses it; of what
/// is stored compressed PostgreSQL knows no other size in text.
pub(super) const FITTING: &str = "
    SELECT id FROM (
        SELECT e.id, row_number() OVER found AS nth, sum(
            coalesce(octet_length({data}), 0)
            + coalesce(octet_length({error}), 0)) OVER found AS bytes
        FROM {found} WINDOW found AS (ORDER BY {order})) AS sized
    WHERE bytes <= {bytes} OR nth <= {first}";

/// What a claim writes.
const CLAIM: &str = "
UPDATE executions SET status = 'running', worker_id = {worker}, lease_until = {until},
    wait_until = NULL, started_at = COALESCE(started_at, {now}),
    attempts = attempts + 1, claim_no = claim_no + 1
WHERE id ";

/// What is written where a lease ran out.
const RECOVER: &str = r#"
UPDATE executions SET
    status = CASE WHEN attempts < max_attempts THEN 'queued' ELSE 'dead' END,
    worker_id = CASE WHEN attempts < max_attempts THEN NULL ELSE worker_id END,
    finished_at = CASE WHEN attempts < max_attempts THEN NULL ELSE {ended} END,
    error = CASE WHEN attempts < max_attempts THEN error
        ELSE {json}('{"code":"lease_expired","attempts":' || attempts || '}'{as_json}) END,
    lease_until = NULL, limit_id = NULL
WHERE id "#;

/// Keeps the attempts of those in `late`. Workers of the version before count no claims, so two
/// attempts can have the same number; the first is kept.
const NOTE: &str = "
INSERT INTO execution_attempts (execution_id, claim_no, attempt, worker_id, ended_at, reason)
SELECT id, claim_no, attempts, worker_id, {now}, {reason} FROM late WHERE TRUE
ON CONFLICT (execution_id, claim_no) DO NOTHING";

/// Makes room for another attempt of those in `late`.
const TRIM: &str = "
DELETE FROM execution_attempts WHERE id {in}
    SELECT a.id FROM execution_attempts AS a WHERE a.execution_id IN (SELECT id FROM late)
        AND (SELECT count(*) FROM execution_attempts AS b
            WHERE b.execution_id = a.execution_id AND b.claim_no > a.claim_no) >= {kept}{end}";

/// The reason of an attempt that lost its worker.
const LOST: &str = r#"'{"code":"lease_expired"}'"#;

/// How many attempts are kept.
const KEPT_ATTEMPTS: u64 = 20;

/// Puts the words and conditions of a backend in the place of their names.
pub(super) fn of(backend: DbBackend, sql: &str, now: &str) -> String {
    let is_postgres = backend == DbBackend::Postgres;
    let (now, longest) = if is_postgres {
        let micros = LONGEST_LEASE.as_micros();
        (
            format!("COALESCE({now}, statement_timestamp())"),
            format!("{{now}} + {micros} * interval '1 microsecond'"),
        )
    } else {
        (now.to_owned(), "?3".to_owned())
    };
    // An `IN` may be run anew for each row on PostgreSQL, and would lock others.
    let [status, within, end, ended, cast, as_json, data, error] = if is_postgres {
        [
            "status || ''",
            "= ANY (ARRAY (",
            "))",
            "GREATEST({now}, started_at)",
            "CAST",
            " AS json",
            "CAST(e.data AS text)",
            "CAST(e.error AS text)",
        ]
    } else {
        // `octet_length` reads the head of the row only.
        let ended = "max({now}, coalesce(started_at, {now}))";
        ["+status", "IN (", ")", ended, "", "", "e.data", "e.error"]
    };
    let sql = sql
        .replace("{reason}", LOST)
        .replace("{due}", DUE)
        .replace("{late}", LATE)
        .replace("{stray}", STRAY)
        .replace("{status}", status)
        .replace("{scope}", "")
        .replace("{in}", within)
        .replace("{end}", end)
        .replace("{ended}", ended)
        .replace("{json}", cast)
        .replace("{as_json}", as_json)
        .replace("{data}", data)
        .replace("{error}", error)
        .replace("{longest}", &longest)
        .replace("{now}", &now)
        .replace("{most_late}", &MOST_LATE.to_string())
        .replace("{most_due}", &MOST_DUE.to_string())
        .replace("{kept}", &(KEPT_ATTEMPTS - 1).to_string());
    sql.replace("{lock}", if is_postgres { LOCK } else { "" })
}

/// Whose workflow isn't deleted, and which no limit counts. What a deleted workflow has stands
/// there only until it is put aside; what has a limit is claimed otherwise (see `limits_claim`).
const FREE: &str = "(SELECT w.deleted_at IS NULL FROM workflows AS w WHERE w.id = f.workflow_id) \
     AND (SELECT l.id FROM execution_limits AS l WHERE l.workflow_id = f.workflow_id) IS NULL \
     AND (SELECT l.id FROM execution_limits AS l WHERE l.owner_id = f.owner_id) IS NULL";

/// Claims what a query returns. Of one PostgreSQL knows that it is one: a list it takes for ten,
/// and while the table is short, as on its first day, it would plan to read all of it for them,
/// and keep to that while it grows.
pub(super) fn claim_of(several: bool, query: &str) -> String {
    if several {
        format!("{CLAIM}{{in}}{query}{{end}}")
    } else {
        format!("{CLAIM}= ({query})")
    }
}

/// Returns SQL that claims one, or at most `{limit}`, of this many ranges. The parameters are the
/// worker, on PostgreSQL the length of the lease and on SQLite its end, and the moment; of
/// several how many bytes, and how many however large they are; and the ranges.
///
/// On PostgreSQL the limit is a literal: for one that it doesn't know it finds a plan anew at each
/// claim. On SQLite of several it is the parameter before the ranges.
pub(super) fn claim(backend: DbBackend, several: bool, ranges: usize) -> Cow<'static, str> {
    static BUILT: [[[OnceLock<String>; MOST_RANGES]; 2]; 2] =
        [const { [const { [const { OnceLock::new() }; MOST_RANGES] }; 2] }; 2];
    let is_postgres = backend == DbBackend::Postgres;
    let built = &BUILT[usize::from(is_postgres)][usize::from(several)];
    match ranges.checked_sub(1).and_then(|nth| built.get(nth)) {
        Some(built) => Cow::Borrowed(built.get_or_init(|| build(backend, several, ranges))),
        None => Cow::Owned(build(backend, several, ranges)),
    }
}

fn build(backend: DbBackend, several: bool, ranges: usize) -> String {
    let is_postgres = backend == DbBackend::Postgres;
    let first = match (several, is_postgres) {
        (false, _) => 4,
        (true, true) => 6,
        (true, false) => 7,
    };
    let front = front(backend, ranges, first, true);
    let sql = if several {
        let fitting = FITTING
            .replace(
                "{found}",
                "found AS f JOIN executions AS e ON e.id = f.id WHERE {free}",
            )
            .replace("{order}", "f.nth, e.owner_id, e.priority DESC, e.id")
            .replace("{free}", FREE)
            .replace("{bytes}", "$4")
            .replace("{first}", "$5");
        let claim = claim_of(true, &fitting);
        format!("WITH found AS MATERIALIZED ({front}){claim}")
    } else {
        let claim = claim_of(
            false,
            &format!("SELECT f.id FROM ({front}) AS f WHERE {FREE}"),
        );
        claim.replace("{limit}", "1")
    };
    let sql = sql.replace("{worker}", "$1");
    if is_postgres {
        let sql = sql.replace("{until}", "{now} + $2 * interval '1 microsecond'");
        return of(backend, &sql, "$3");
    }
    let sql = sql.replace("{until}", "$2").replace("{limit}", "?6");
    of(backend, &sql, "$3").replace('$', "?")
}

const LATE_ROWS: &str = "late AS MATERIALIZED (
    SELECT id, claim_no, attempts, worker_id FROM executions AS e WHERE {late}
    ORDER BY lease_until, id LIMIT {most_late} {lock})";

const PROMOTE: &str = "
UPDATE executions SET status = 'queued', wait_until = NULL, limit_id = NULL WHERE id {in}
    SELECT id FROM executions AS e WHERE {due}
    ORDER BY wait_until, id LIMIT {most_due} {lock}{end}";

/// Of the first that a worker looks at those whose workflow is deleted. It is locked, so that it
/// isn't restored between the look and the mark.
const PARK_POSTGRES: &str = "
UPDATE executions SET is_suspended = TRUE WHERE id {in}
    SELECT e.id FROM executions AS e WHERE e.{status} = 'queued' AND e.id {in}
        SELECT f.id FROM front AS f WHERE f.workflow_id IN (SELECT id FROM gone){end}
    {lock}{end}";

const GONE_POSTGRES: &str = "gone AS MATERIALIZED (
    SELECT w.id FROM workflows AS w WHERE w.deleted_at IS NOT NULL AND w.id {in}
        SELECT workflow_id FROM front{end}
    FOR SHARE SKIP LOCKED)";

/// As [`PARK_POSTGRES`], for the one writer that SQLite has.
const PARK: &str = "
UPDATE executions SET is_suspended = TRUE WHERE id IN (
    SELECT f.id FROM ({front}) AS f JOIN workflows AS w ON w.id = f.workflow_id
    WHERE w.deleted_at IS NOT NULL)";

/// How much a look after the queues does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// What there is, of all queues.
    All,
    /// At most this many, of the worker's own queues: in a transaction, others wait for its end.
    Own(u64),
}

impl Scope {
    /// Puts what it covers in its place. The parameter is an array of queues.
    fn apply(self, backend: DbBackend, sql: &str, queues: &str) -> String {
        let Self::Own(most) = self else {
            return sql.to_owned();
        };
        let own = match backend {
            DbBackend::Postgres => {
                format!(" AND queue IN (SELECT json_array_elements_text(CAST({queues} AS json)))")
            }
            _ => format!(" AND queue IN (SELECT value FROM json_each({queues}))"),
        };
        let most = most.clamp(1, MOST_LATE).to_string();
        sql.replace("{due}", DUE)
            .replace("{late}", LATE)
            .replace("{scope}", &own)
            .replace("{most_late}", &most)
            .replace("{most_due}", &most)
    }
}

/// Returns SQL that puts back what lost its worker, queues what is due, and puts aside what
/// stands in the way; its rows are what was done, in which queue, and how often. The parameters
/// are the moment, for [`Scope::Own`] the queues, and the ranges.
pub(super) fn maintain_postgres(scope: Scope, ranges: usize) -> String {
    let first = if scope == Scope::All { 2 } else { 3 };
    let front = front(DbBackend::Postgres, ranges, first, false);
    let sql = format!(
        "WITH {LATE_ROWS}, trimmed AS ({TRIM}), noted AS ({NOTE}),
recovered AS ({RECOVER}{{in}}SELECT id FROM late{{end}} RETURNING status, queue),
promoted AS ({PROMOTE} RETURNING queue),
front AS MATERIALIZED ({front}), {GONE_POSTGRES}, parked AS ({PARK_POSTGRES} RETURNING queue)
SELECT CAST(done AS text), CAST(queue AS text), count(*) FROM (
    SELECT status AS done, queue FROM recovered
    UNION ALL SELECT 'due', queue FROM promoted
    UNION ALL SELECT 'parked', queue FROM parked
    UNION ALL SELECT 'limited', '' WHERE EXISTS (SELECT 1 FROM execution_limits)
    UNION ALL SELECT 'held', '' WHERE EXISTS (SELECT 1 FROM execution_limits WHERE has_parked)
) AS done GROUP BY 1, 2"
    );
    let sql = sql.replace("{limit}", &MOST_DUE.to_string());
    of(
        DbBackend::Postgres,
        &scope.apply(DbBackend::Postgres, &sql, "$2"),
        "$1",
    )
}

/// Whether something lost its worker or is due. The parameter is the moment.
pub(super) static LOOK_SQLITE: LazyLock<String> = LazyLock::new(|| {
    let sql = "SELECT EXISTS (SELECT 1 FROM executions WHERE {late}) \
         OR EXISTS (SELECT 1 FROM executions WHERE {due})";
    of(DbBackend::Sqlite, sql, "?1")
});

/// Whether there are limits, and whether something waits for one.
pub(super) const LIMITED_SQLITE: &str = "SELECT EXISTS (SELECT 1 FROM execution_limits), \
     EXISTS (SELECT 1 FROM execution_limits WHERE has_parked)";

/// As [`maintain_postgres`], in the order in which they are run. The parameters are the moment
/// and for [`Scope::Own`] the queues; the last two return the status and the queue of each.
pub(super) fn maintain_sqlite(scope: Scope) -> [String; 4] {
    let recover = format!("{RECOVER}{{in}}SELECT id FROM late{{end}} RETURNING status, queue");
    let late = [TRIM, NOTE, &recover].map(|sql| format!("WITH {LATE_ROWS}{sql}"));
    let promote = format!("{PROMOTE} RETURNING status, queue");
    let [trim, note, recover] = late;
    [trim, note, recover, promote].map(|sql| {
        let sql = scope.apply(DbBackend::Sqlite, &sql, "?2");
        of(DbBackend::Sqlite, &sql, "?1")
    })
}

pub(super) static MAINTAIN_SQLITE: LazyLock<[String; 4]> =
    LazyLock::new(|| maintain_sqlite(Scope::All));

/// Returns SQL that puts aside what stands in the way. The parameters are the ranges.
pub(super) fn park_sqlite(ranges: usize) -> String {
    let front = front(DbBackend::Sqlite, ranges, 1, false);
    PARK.replace("{front}", &front)
        .replace("{limit}", &MOST_DUE.to_string())
}

/// The attempt that has ended.
const ENDED: &str = "WITH late AS (
    SELECT CAST({id} AS bigint) AS id, CAST({claim} AS bigint) AS claim_no,
        CAST({attempt} AS bigint) AS attempts, CAST({worker} AS text) AS worker_id)";

fn ended(sql: &str, [id, claim, attempt, worker, reason]: [&str; 5]) -> String {
    let sql = sql.replace("{id}", id).replace("{claim}", claim);
    let sql = sql
        .replace("{attempt}", attempt)
        .replace("{worker}", worker);
    sql.replace("{reason}", reason)
}

/// Keeps how an attempt has ended: moment, execution, claim, attempt, worker, reason.
pub(super) static NOTE_POSTGRES: LazyLock<String> = LazyLock::new(|| {
    let sql = format!("{ENDED}, trimmed AS ({TRIM}){NOTE}");
    of(
        DbBackend::Postgres,
        &ended(&sql, ["$2", "$3", "$4", "$5", "$6"]),
        "$1",
    )
});

/// Makes room for another attempt. The parameter is the execution.
pub(super) static TRIM_SQLITE: LazyLock<String> = LazyLock::new(|| {
    let sql = format!("WITH late AS (SELECT ?1 AS id){TRIM}");
    of(DbBackend::Sqlite, &sql, "")
});

/// As [`NOTE_POSTGRES`], after [`TRIM_SQLITE`].
pub(super) static NOTE_SQLITE: LazyLock<String> = LazyLock::new(|| {
    let sql = format!("{ENDED}{NOTE}");
    of(
        DbBackend::Sqlite,
        &ended(&sql, ["?2", "?3", "?4", "?5", "?6"]),
        "?1",
    )
});

/// Those of the late whose documents a page may have.
fn late_fitting([limit, bytes, first]: [&str; 3]) -> String {
    let found = format!(
        "executions AS e WHERE e.id {{in}}
            SELECT id FROM executions AS e WHERE {{stray}} ORDER BY id LIMIT {limit}
            {{lock}}{{end}}"
    );
    let fitting = FITTING
        .replace("{found}", &found)
        .replace("{order}", "e.id")
        .replace("{bytes}", bytes)
        .replace("{first}", first);
    format!(
        "late AS MATERIALIZED (SELECT id, claim_no, attempts, worker_id FROM executions
            WHERE id {{in}}{fitting}{{end}})"
    )
}

/// Puts back what lost its worker: moment, limit, bytes, how many however large they are.
pub(super) static RECOVER_POSTGRES: LazyLock<String> = LazyLock::new(|| {
    let late = late_fitting(["$2", "$3", "$4"]);
    let sql = format!(
        "WITH {late}, trimmed AS ({TRIM}), noted AS ({NOTE}){RECOVER}{{in}}SELECT id FROM late{{end}}"
    );
    of(DbBackend::Postgres, &sql, "$1")
});

/// As [`RECOVER_POSTGRES`], in the order in which they are run: moment, limit, end of the
/// longest lease, bytes, how many however large they are.
pub(super) static RECOVER_SQLITE: LazyLock<[String; 3]> = LazyLock::new(|| {
    let late = late_fitting(["?2", "?4", "?5"]);
    let recover = format!("{RECOVER}{{in}}SELECT id FROM late{{end}}");
    [TRIM, NOTE, &recover].map(|sql| of(DbBackend::Sqlite, &format!("WITH {late}{sql}"), "?1"))
});
