//! Arguments at the edge of what can be stored or compared: the same on both
//! databases.

use std::time::Duration;

use aura_db::{
    Error, Execution, ExecutionFilter, ExecutionMode, LogFilter, LogLevel, MAX_DOCUMENT_DEPTH,
    NewExecution, NewLog, NewWorkflow, PageRequest, Role, SessionRequest, WorkflowId,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use testdb::TestDb;

use crate::support::{assert_error, open, open_at, refused, user};

/// Moments that PostgreSQL has no date for, or whose text SQLite would sort
/// wrongly.
const LONG_AGO: DateTime<Utc> = DateTime::<Utc>::MIN_UTC;
const FAR_AHEAD: DateTime<Utc> = DateTime::<Utc>::MAX_UTC;

async fn flow(db: &aura_db::Database, name: &str) -> WorkflowId {
    let owner = user(db, name).await.id;
    let new = NewWorkflow::new(name).owner(owner);
    db.workflows().create(new).await.expect("a workflow").id
}

async fn claimed(db: &aura_db::Database, flow: WorkflowId) -> Execution {
    let new = NewExecution::new(flow, ExecutionMode::Manual);
    db.executions().enqueue(new).await.expect("queued");
    let claimed = db.executions().claim("w", Duration::from_mins(1)).await;
    claimed.expect("an answer").expect("it is queued")
}

async fn filters_take_any_time(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let execution = claimed(&db, flow).await.id;
    let log = NewLog::new(flow, LogLevel::Info, "x");
    let at = db.logs().append(log).await.expect("appended").created_at;
    let nano = TimeDelta::nanoseconds(1);
    // From, until, and how many are in between.
    for (from, until, count) in [
        (LONG_AGO, FAR_AHEAD, 1),
        (FAR_AHEAD, FAR_AHEAD, 0),
        (LONG_AGO, LONG_AGO, 0),
        (at, at + nano, 1),
        (at - nano, at, 0),
        (at + nano, FAR_AHEAD, 0),
    ] {
        let filter = LogFilter::new().from(from).until(until);
        let logs = db
            .logs()
            .list(filter, PageRequest::first(9))
            .await
            .expect("a list");
        assert_eq!(logs.items.len(), count, "logs from {from} until {until}");
        let filter = ExecutionFilter::new().from(from).until(until);
        let stats = db.executions().stats(filter).await.expect("numbers");
        assert_eq!(
            stats.total, count as u64,
            "executions from {from} until {until}"
        );
    }
    db.executions().cancel(execution).await.expect("canceled");
    assert_eq!(
        db.executions().prune(LONG_AGO, 9).await.expect("an answer"),
        0
    );
    assert_eq!(db.logs().prune(LONG_AGO, 9).await.expect("an answer"), 0);
    assert_eq!(db.logs().prune(FAR_AHEAD, 9).await.expect("an answer"), 1);
    assert_eq!(
        db.executions()
            .prune(FAR_AHEAD, 9)
            .await
            .expect("an answer"),
        1
    );
}

async fn an_idle_limit_of_ages(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let issued = db.sessions().issue(ada.id, SessionRequest::default()).await;
    let token = issued.expect("a session").token;
    let ages = Duration::from_hours(24 * 366 * 200_000);
    let who = db.sessions().authenticate_within(&token, ages).await;
    assert_eq!(who.expect("an answer").expect("it is valid").user, ada);
}

async fn leases_and_waits_are_as_fine_as_rows(db: TestDb) {
    let (db, _clock) = open_at(&db).await;
    let flow = flow(&db, "ada").await;
    let claim = claimed(&db, flow).await;
    let executions = db.executions();
    let extended = executions.extend(&claim, Duration::from_nanos(1_999)).await;
    let until = db.now() + TimeDelta::microseconds(1);
    assert_eq!(extended.expect("held").lease_until, Some(until));
    for absurd in [LONG_AGO, FAR_AHEAD] {
        let waits = executions.wait(&claim, Some(absurd), None).await;
        assert_eq!(refused(waits), ["until"]);
    }
    let fine = Some(until + TimeDelta::nanoseconds(999));
    let waits = executions.wait(&claim, fine, None).await.expect("held");
    // Not before it was asked for.
    let next = until + TimeDelta::microseconds(1);
    assert_eq!(waits.wait_until, Some(next));
    assert_eq!(executions.get(claim.id).await.expect("there"), waits);
}

fn nested(depth: usize) -> Value {
    (1..depth).fold(json!([]), |inner, _| json!([inner]))
}

async fn the_deepest_document_can_be_read_again(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let new = |depth| NewExecution::new(flow, ExecutionMode::Manual).data(nested(depth));
    let deepest = db.executions().enqueue(new(MAX_DOCUMENT_DEPTH)).await;
    let deepest = deepest.expect("it can be stored");
    assert_eq!(
        db.executions().get(deepest.id).await.expect("and read"),
        deepest
    );
    let deeper = db.executions().enqueue(new(MAX_DOCUMENT_DEPTH + 1)).await;
    assert_eq!(refused(deeper), ["data"]);
}

async fn a_log_entry_of_anothers_is_hidden(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let log = db
        .logs()
        .append(NewLog::new(flow, LogLevel::Info, "x"))
        .await;
    let log = log.expect("appended");
    let eve = user(&db, "eve").await;
    assert_eq!(eve.role, Role::User);
    // As an execution of another's is.
    let hers = db.restricted_to(&eve);
    assert_eq!(hers.logs().find(log.id).await.expect("an answer"), None);
    assert_error!(hers.logs().get(log.id).await, Error::NotFound { .. });
    let owner = db
        .users()
        .get_by_email("ada@example.org")
        .await
        .expect("ada");
    let his = db.restricted_to(&owner);
    assert_eq!(his.logs().find(log.id).await.expect("his own"), Some(log));
}

testdb::both!(migrated:
    filters_take_any_time,
    an_idle_limit_of_ages,
    leases_and_waits_are_as_fine_as_rows,
    the_deepest_document_can_be_read_again,
    a_log_entry_of_anothers_is_hidden,
);
