//! Pages, claims and looks end with their bytes, and what follows comes later. Four MiB is a
//! document of an automation with files in it; 64 MiB are what is read at once.

use aura_db::entity::{users, workflows};
use aura_db::logs::TailFrom;
use aura_db::page::MAX_PAGE_BYTES;
use aura_db::testing::QueryCount;
use aura_db::{
    Database, Document, Error, ExecutionFilter, ExecutionMode, ExecutionStatus, LogFilter,
    NewExecution, NewWorkflow, Page, PageRequest, Role, Worker, Workflow, WorkflowFilter,
    WorkflowId,
};
use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt};
use testdb::{Backend, TestDb};

use crate::executions::{LEASE, flow, queue};
use crate::logs_follow::{info, writing};
use crate::support::{open, open_at, refused, user};

testdb::both!(migrated:
    a_page_ends_with_its_bytes, pages_of_a_transaction, a_row_is_read_however_large,
    a_stream_has_every_row_once, what_has_no_pages_is_refused, claims_end_with_their_bytes,
    claims_of_many_sizes, claims_of_two_queues_end_with_their_bytes,
    an_execution_with_its_newest_entries, a_follower_gets_every_entry,
);
testdb::postgres!(migrated: late_entries_come_in_parts, appends_go_in_parts);

/// Rows with a document of four MiB.
const ALL: usize = 20;
/// The number of them that fits into a page, beside their other columns.
const FITTING: usize = 15;
/// The number that is claimed at once: only their documents count.
const CLAIMED: usize = 16;

/// A document of this many MiB.
fn large(mib: usize) -> Document {
    let text = "x".repeat((mib << 20) - 4);
    format!("[\"{text}\"]").parse().expect("a document")
}

/// Inserts rows with a document of this many MiB each, which needn't be checked: `values`
/// has `{n}`, from 0, and `{json}`.
async fn fill(test: &TestDb, rows: usize, mib: usize, into: &str, values: &str) {
    let length = (mib << 20) - 4;
    let (numbers, json) = match test.backend() {
        Backend::Sqlite => (
            format!(
                "WITH RECURSIVE t (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM t WHERE n + 1 < {rows})"
            ),
            format!("'[\"' || hex(zeroblob({})) || '\"]'", length / 2),
        ),
        Backend::Postgres => (
            format!("WITH t AS (SELECT n - 1 AS n FROM generate_series(1, {rows}) AS n)"),
            format!("CAST('[\"' || repeat('0', {length}) || '\"]' AS json)"),
        ),
    };
    let values = values.replace("{json}", &json);
    let values = values.replace("{n}", "CAST(n AS text)");
    test.execute(&format!(
        "{numbers} INSERT INTO {into} SELECT {values} FROM t"
    ))
    .await;
}

/// Creates workflows with a document of four MiB each, and returns their ids.
async fn flows(test: &TestDb, db: &Database) -> Vec<WorkflowId> {
    let values = "'w', (SELECT min(id) FROM users), {json}";
    fill(test, ALL, 4, "workflows (name, owner_id, nodes)", values).await;
    let page = PageRequest::first(50);
    let workflows = db.workflows();
    let created = workflows.list(WorkflowFilter::new(), page).await;
    let created = created.expect("a page");
    assert_eq!((created.items.len(), created.cut), (ALL, false));
    created.items.iter().map(|flow| flow.id).collect()
}

/// Queues executions with a document of four MiB each.
async fn queue_large(test: &TestDb) {
    let values = "(SELECT min(id) FROM workflows), (SELECT min(owner_id) FROM workflows), \
         1, 'manual', 'queued', {json}";
    let columns = "executions (workflow_id, owner_id, workflow_version, mode, status, data)";
    fill(test, ALL, 4, columns, values).await;
}

/// Appends ten entries, with a document of eight MiB each, to the execution there is.
async fn append_large(test: &TestDb) {
    let values = "'info', {n}, (SELECT min(id) FROM workflows), \
         (SELECT min(id) FROM executions), {json}";
    let columns = "logs (level, message, workflow_id, execution_id, metadata)";
    fill(test, 10, 8, columns, values).await;
}

async fn full(db: &Database, page: PageRequest) -> Page<Workflow> {
    let page = db.workflows().list_full(WorkflowFilter::new(), page).await;
    page.expect("a page")
}

fn ids(page: &Page<Workflow>) -> Vec<WorkflowId> {
    let documents = page.items.iter().filter_map(|flow| flow.nodes.as_ref());
    let bytes: usize = documents.map(|document| document.as_str().len()).sum();
    assert!(bytes <= MAX_PAGE_BYTES, "{bytes} bytes");
    page.items.iter().map(|flow| flow.id).collect()
}

async fn a_page_ends_with_its_bytes(test: TestDb) {
    let db = open(&test).await;
    user(&db, "ada").await;
    let all = flows(&test, &db).await;

    let first = full(&db, PageRequest::first(50)).await;
    assert_eq!((ids(&first), first.cut), (all[..FITTING].to_vec(), true));
    let json = serde_json::to_value(&first).expect("JSON");
    assert_eq!(json["cut"], true);
    let next = PageRequest::after(first.next.clone().expect("more"), 50);
    let rest = full(&db, next).await;
    assert_eq!((ids(&rest), rest.cut), (all[FITTING..].to_vec(), false));
    assert_eq!(rest.next, None);
    let json = serde_json::to_value(&rest).expect("JSON");
    assert_eq!(json.get("cut"), None);

    // As many as were asked for.
    let whole = full(&db, PageRequest::first(15)).await;
    assert_eq!((ids(&whole), whole.cut), (all[..FITTING].to_vec(), false));
    assert_eq!(whole.next, first.next);

    // By number: there are no rows between the end of a page and its `next`.
    let numbered = full(&db, PageRequest::number(1, 50)).await;
    assert_eq!((ids(&numbered), numbered.cut), (ids(&first), true));
    assert_eq!((numbered.total, numbered.next), (Some(20), first.next));

    // Backwards it is the rows that are nearest.
    let last = full(&db, PageRequest::number(20, 1)).await;
    let before = PageRequest::before(last.previous.expect("more"), 50);
    let before = full(&db, before).await;
    assert_eq!((ids(&before), before.cut), (all[4..19].to_vec(), true));
    let start = PageRequest::before(before.previous.expect("more"), 50);
    let start = full(&db, start).await;
    assert_eq!((ids(&start), start.cut), (all[..4].to_vec(), false));
    assert_eq!(start.previous, None);
}

/// What is left of a result is read to its end, where a cancelled statement would undo the
/// transaction.
async fn pages_of_a_transaction(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await;
    let ada = db.users().set_role(ada.id, Role::Admin).await.expect("set");
    let all = &flows(&test, &db).await;
    let name = db.transaction(|tx| async move {
        let list = async |page| tx.workflows().list_full(WorkflowFilter::new(), page).await;
        let first = list(PageRequest::first(50)).await?;
        assert_eq!((ids(&first), first.cut), (all[..FITTING].to_vec(), true));
        let rest = list(PageRequest::after(first.next.expect("more"), 50)).await?;
        assert_eq!((ids(&rest), rest.cut), (all[FITTING..].to_vec(), false));
        let new = NewWorkflow::new("another").owner(first.items[0].owner_id);
        Ok::<_, Error>(tx.workflows().create(new).await?.name)
    });
    assert_eq!(name.await.expect("committed"), "another");
    let hers = db.restricted_to(&ada).workflows();
    let list = async |page| hers.list_full(WorkflowFilter::new(), page).await;
    let first = list(PageRequest::first(50)).await.expect("a page");
    assert_eq!((ids(&first), first.cut), (all[..FITTING].to_vec(), true));
}

async fn a_row_is_read_however_large(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await;
    let (new, largest) = (NewWorkflow::new("w").owner(ada.id), large(16));
    let new = new.nodes(largest.clone()).connections(largest.clone());
    let new = new.settings(largest.clone()).metadata(largest);
    let big = db.workflows().create(new).await.expect("created").id;
    let small = flow(&db, "eve").await;
    let first = full(&db, PageRequest::first(2)).await;
    assert_eq!((ids(&first), first.cut), (vec![big], true));
    let next = PageRequest::after(first.next.expect("more"), 2);
    let next = full(&db, next).await;
    assert_eq!((ids(&next), next.cut), (vec![small], false));
    let alone = full(&db, PageRequest::before(next.previous.expect("more"), 2)).await;
    assert_eq!((ids(&alone), alone.cut), (vec![big], false));
}

async fn a_stream_has_every_row_once(test: TestDb) {
    let db = open(&test).await;
    user(&db, "ada").await;
    let all = flows(&test, &db).await;
    let workflows = db.repository::<workflows::Entity>();
    let count = QueryCount::start(&db);
    let stream = workflows.stream(()).map_ok(|flow| flow.id);
    let found: Vec<_> = stream.try_collect().await.expect("rows");
    assert_eq!(found, all);
    count.assert_exactly(2);
    let first = workflows.stream(()).boxed().next().await;
    assert_eq!(first.expect("a row").expect("read").id, all[0]);
}

async fn what_has_no_pages_is_refused(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await;
    let all = flows(&test, &db).await;
    let rows = db.repository::<workflows::Entity>();
    let users = db.repository::<users::Entity>();
    assert_eq!(refused(rows.find_by(()).await), ["filter"]);
    assert_eq!(refused(rows.find_many(all.clone()).await), ["keys"]);
    let error = rows.find_by(()).await.expect_err("too much");
    assert_eq!(
        error.to_string(),
        "not valid: filter: must lead to at most 64 MiB of rows of workflows; use `list` or `stream`"
    );
    let found = rows.find_many(all[..FITTING].to_vec()).await;
    assert_eq!(found.expect("found").len(), FITTING);
    let owners = users.load_many::<workflows::Entity>(std::slice::from_ref(&ada));
    assert_eq!(refused(owners.await), ["rows"]);
    for id in &all[FITTING..] {
        db.workflows().delete(*id).await.expect("deleted");
    }
    assert_eq!(rows.find_by(()).await.expect("found").len(), FITTING);
    let owners = users.load_many::<workflows::Entity>(std::slice::from_ref(&ada));
    assert_eq!(owners.await.expect("loaded")[0].len(), FITTING);
}

/// How many are in this state.
async fn count(db: &Database, status: ExecutionStatus) -> usize {
    let filter = ExecutionFilter::new().status(status);
    let executions = db.executions();
    let page = executions.list(filter, PageRequest::first(100)).await;
    page.expect("a page").items.len()
}

async fn claims_end_with_their_bytes(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    flow(&db, "ada").await;
    queue_large(&test).await;
    let executions = db.executions();
    let claim = async || {
        executions
            .claim_many("w", LEASE, 50)
            .await
            .expect("claimed")
    };
    let first = claim().await;
    assert_eq!(first.len(), CLAIMED);
    assert!(first.is_sorted_by_key(|execution| execution.id));
    // None is taken that isn't returned.
    let open = (ExecutionStatus::Running, ExecutionStatus::Queued);
    let state = async || (count(&db, open.0).await, count(&db, open.1).await);
    assert_eq!(state().await, (CLAIMED, ALL - CLAIMED));
    assert_eq!(claim().await.len(), ALL - CLAIMED);
    assert_eq!(claim().await.len(), 0);

    clock.advance(LEASE * 2);
    let requeue = async || executions.requeue_expired(50).await.expect("queued");
    let back = requeue().await;
    assert_eq!(back, {
        let mut queued = first;
        for execution in &mut queued {
            execution.status = ExecutionStatus::Queued;
            (execution.worker_id, execution.lease_until) = (None, None);
        }
        queued
    });
    assert_eq!(state().await, (ALL - CLAIMED, CLAIMED));
    assert_eq!(requeue().await.len(), ALL - CLAIMED);
    assert_eq!(requeue().await.len(), 0);
    // One is taken however large it is; and in a transaction as outside of one.
    let claimed = db.transaction(|tx| async move {
        let one = tx.executions().claim("w", LEASE).await?;
        let many = tx.executions().claim_many("w", LEASE, 50).await?;
        Ok::<_, Error>((one.is_some(), many.len()))
    });
    assert_eq!(claimed.await.expect("committed"), (true, CLAIMED));
    assert_eq!(state().await, (CLAIMED + 1, ALL - CLAIMED - 1));
}

/// The first queue's go first, whoever owns them.
async fn claims_of_two_queues_end_with_their_bytes(test: TestDb) {
    let db = open(&test).await;
    flow(&db, "ada").await;
    queue_large(&test).await;
    let bob = flow(&db, "bob").await;
    let urgent = NewExecution::new(bob, ExecutionMode::Trigger).queue("urgent");
    let executions = db.executions();
    let urgent = executions.enqueue(urgent).await.expect("queued").id;
    let worker = Worker::new("w").queues(["urgent", "default"]);
    let taken = executions.claim_many(worker, LEASE, 50).await;
    let taken = taken.expect("claimed");
    assert!(taken.iter().any(|execution| execution.id == urgent));
    assert!(taken.len() < ALL);
}

/// Those after the first of several are claimed as if they were like these, and aren't.
async fn claims_of_many_sizes(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    for _ in 0..16 {
        queue(&db, flow).await;
    }
    queue_large(&test).await;
    for _ in 0..30 {
        queue(&db, flow).await;
    }
    let executions = db.executions();
    let claim = async |limit| {
        executions
            .claim_many("w", LEASE, limit)
            .await
            .expect("claimed")
    };
    assert_eq!(claim(100).await.len(), 16 + CLAIMED);
    assert_eq!(claim(100).await.len(), ALL - CLAIMED + 30);
    assert_eq!(claim(100).await.len(), 0);
}

async fn an_execution_with_its_newest_entries(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let run = queue(&db, flow).await.id;
    append_large(&test).await;
    let (_, entries) = db
        .executions()
        .get_with_logs(run, 100)
        .await
        .expect("there");
    let messages: Vec<_> = entries.iter().map(|log| log.message.as_str()).collect();
    assert_eq!(messages, ["9", "8", "7", "6", "5", "4", "3"]);
}

async fn a_follower_gets_every_entry(test: TestDb) {
    let db = open(&test).await;
    flow(&db, "ada").await;
    append_large(&test).await;
    let tail = db.logs().tail(LogFilter::new(), TailFrom::Start).await;
    let mut tail = tail.expect("it follows");
    let (mut looks, mut heard) = (Vec::new(), Vec::new());
    loop {
        let entries = tail.poll().await.expect("entries");
        if entries.is_empty() {
            break;
        }
        looks.push(entries.len());
        heard.extend(entries.into_iter().map(|log| log.message));
        // From its position another goes on.
        let after = TailFrom::After(tail.position());
        tail = db.logs().tail(LogFilter::new(), after).await.expect("on");
    }
    assert_eq!(looks, [7, 3]);
    assert!(heard.into_iter().eq((0..10).map(|n| n.to_string())));
}

async fn late_entries_come_in_parts(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let document = large(8);
    let entry = |n: usize| info(flow, n.to_string()).metadata(document.clone());
    let large_entries = (0..10).map(entry).collect();
    let (commit, task) = writing(&db, large_entries).await;
    db.logs()
        .append(info(flow, "last"))
        .await
        .expect("appended");
    let tail = db.logs().tail(LogFilter::new(), TailFrom::Start).await;
    let mut tail = tail.expect("it follows");
    let mut look = async || {
        let entries = tail.poll().await.expect("entries");
        let messages = entries.into_iter().map(|log| log.message);
        messages.collect::<Vec<_>>()
    };
    assert_eq!(look().await, ["last"]);
    commit.send(()).expect("it waits");
    task.await.expect("no panic");
    let mut late = Vec::new();
    for expected in [7, 3, 0] {
        let entries = look().await;
        assert_eq!(entries.len(), expected);
        late.extend(entries);
    }
    assert!(late.into_iter().eq((0..10).map(|n| n.to_string())));
}

/// Twenty of four MiB, of which no more than two go in one statement.
async fn appends_go_in_parts(test: TestDb) {
    let db = open(&test).await;
    let flow = flow(&db, "ada").await;
    let document = large(4);
    let count = QueryCount::start(&db);
    let append = |n: usize| {
        let entry = info(flow, n.to_string()).metadata(document.clone());
        let logs = db.logs();
        async move { logs.append(entry).await.expect("appended").message }
    };
    let appended = join_all((0..ALL).map(append)).await;
    assert!(appended.into_iter().eq((0..ALL).map(|n| n.to_string())));
    assert!(count.get() >= 10, "{} statements", count.get());
}
