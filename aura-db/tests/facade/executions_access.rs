//! Executions through restricted handles.

use std::time::Duration;

use aura_db::users::NewOwner;
use aura_db::{
    Database, Error, Execution, ExecutionFilter, ExecutionMode, ExecutionStatus, NewExecution,
    NewWorkflow, Outcome, PageRequest, Restricted, Role, User, WorkflowId,
};
use testdb::TestDb;

use crate::support::{assert_error, claim_of, open, user};

testdb::both!(migrated:
    pages_of_own_executions,
    users_see_and_run_their_own, editors_run_and_do_not_read, viewers_read_everything,
    only_admins_work, a_transfer_moves_the_executions,
);

const LEASE: Duration = Duration::from_mins(1);

async fn owner(db: &Database, name: &str, role: Role) -> (User, WorkflowId) {
    let id = user(db, name).await.id;
    let user = db.users().set_role(id, role).await.expect("a role");
    let new = NewWorkflow::new(name).owner(id);
    let flow = db.workflows().create(new).await.expect("created");
    (user, flow.id)
}

fn new(flow: WorkflowId) -> NewExecution {
    NewExecution::new(flow, ExecutionMode::Manual)
}

async fn seen(db: &Restricted, filter: ExecutionFilter) -> Vec<Execution> {
    let executions = db.executions();
    let full = executions.list_full(filter.clone(), PageRequest::first(9));
    let full = full.await.expect("a list").items;
    let list = executions.list(filter.clone(), PageRequest::number(1, 9));
    let list = list.await.expect("a list");
    assert_eq!(list.total, Some(full.len() as u64));
    assert!(
        list.items
            .iter()
            .map(|execution| execution.id)
            .eq(full.iter().map(|execution| execution.id))
    );
    let stats = executions.stats(filter).await.expect("numbers");
    assert_eq!(stats.total, full.len() as u64);
    full
}

async fn users_see_and_run_their_own(db: TestDb) {
    let db = open(&db).await;
    let (ada, mine) = owner(&db, "ada", Role::User).await;
    let (_, other) = owner(&db, "bob", Role::User).await;
    let theirs = db.executions().enqueue(new(other)).await.expect("queued");
    let handle = db.restricted_to(&ada);
    let executions = handle.executions();
    let own = executions.enqueue(new(mine)).await.expect("queued");

    let all = ExecutionFilter::new();
    assert_eq!(seen(&handle, all).await, std::slice::from_ref(&own));
    assert!(
        seen(&handle, ExecutionFilter::workflow(other))
            .await
            .is_empty()
    );
    assert_eq!(executions.get(own.id).await.expect("own"), own);
    let with_logs = executions.get_with_logs(own.id, 5).await.expect("own");
    assert_eq!(with_logs.0, own);

    // Those of others are hidden, as if they weren't there.
    let no = executions.enqueue(new(other)).await;
    assert_error!(
        no,
        Error::NotFound {
            what: "workflow",
            ..
        }
    );
    assert_eq!(executions.find(theirs.id).await.expect("an answer"), None);
    let no = executions.get_with_logs(theirs.id, 5).await;
    assert_error!(
        no,
        Error::NotFound {
            what: "execution",
            ..
        }
    );
    assert_error!(executions.cancel(theirs.id).await, Error::NotFound { .. });
    let left = db.executions().get(theirs.id).await.expect("there");
    assert_eq!(left, theirs, "untouched");

    for _ in 0..2 {
        let claimed = db.executions().claim("w", LEASE).await;
        assert!(claimed.expect("an answer").is_some());
    }
    let wait = db
        .executions()
        .wait(claim_of(&db, theirs.id, "w").await, None, None)
        .await;
    wait.expect("waiting");
    assert_error!(executions.resume(theirs.id).await, Error::NotFound { .. });
    let canceled = executions.cancel(own.id).await.expect("canceled");
    assert_eq!(canceled.status, ExecutionStatus::Canceled);
    assert_error!(executions.cancel(own.id).await, Error::State { .. });
    let nothing = executions.cancel(4711.into()).await;
    assert_error!(nothing, Error::NotFound { .. });
}

/// From the first page to the last, in either order.
async fn pages_of_own_executions(db: TestDb) {
    let db = open(&db).await;
    let (ada, first) = owner(&db, "ada", Role::User).await;
    let (_, other) = owner(&db, "bob", Role::User).await;
    let second = NewWorkflow::new("w").owner(ada.id);
    let second = db.workflows().create(second).await.expect("created").id;
    let mut expected = Vec::new();
    for nth in 0..24 {
        let flow = [first, other, second, other][nth % 4];
        let execution = db.executions().enqueue(new(flow)).await.expect("queued");
        if flow != other {
            expected.push(execution.id);
        }
    }
    let executions = db.restricted_to(&ada).executions();
    for (filter, newest_first) in [
        (ExecutionFilter::new(), true),
        (ExecutionFilter::new().oldest_first(), false),
    ] {
        let mut found = Vec::new();
        let mut page = PageRequest::first(5);
        loop {
            let list = executions.list(filter.clone(), page).await.expect("a page");
            found.extend(list.items.iter().map(|execution| execution.id));
            let Some(next) = list.next else { break };
            page = PageRequest::after(next, 5);
        }
        if newest_first {
            found.reverse();
        }
        assert_eq!(found, expected);
    }
}

async fn editors_run_and_do_not_read(db: TestDb) {
    let db = open(&db).await;
    let (ada, mine) = owner(&db, "ada", Role::Editor).await;
    let handle = db.restricted_to(&ada);
    let executions = handle.executions();
    let own = executions.enqueue(new(mine)).await.expect("queued");
    assert_error!(executions.get(own.id).await, Error::Forbidden { .. });
    let list = executions.list(ExecutionFilter::new(), PageRequest::first(1));
    assert_error!(list.await, Error::Forbidden { .. });
    executions.cancel(own.id).await.expect("canceled");
}

async fn viewers_read_everything(db: TestDb) {
    let db = open(&db).await;
    let (ada, mine) = owner(&db, "ada", Role::Viewer).await;
    let (_, other) = owner(&db, "bob", Role::User).await;
    let theirs = db.executions().enqueue(new(other)).await.expect("queued");
    let handle = db.restricted_to(&ada);
    let executions = handle.executions();
    let all = seen(&handle, ExecutionFilter::new()).await;
    assert_eq!(all, std::slice::from_ref(&theirs));
    assert_eq!(executions.get(theirs.id).await.expect("any"), theirs);
    let no = executions.enqueue(new(mine)).await;
    assert_error!(no, Error::Forbidden { .. });
    assert_error!(executions.cancel(theirs.id).await, Error::Forbidden { .. });
}

/// What services do: nobody takes work, or another's result, by hand.
async fn only_admins_work(db: TestDb) {
    let db = open(&db).await;
    for (role, may) in [
        (Role::Admin, true),
        (Role::Editor, false),
        (Role::Viewer, false),
        (Role::User, false),
    ] {
        let (user, flow) = owner(&db, role.as_str(), role).await;
        let id = db.executions().enqueue(new(flow)).await.expect("queued").id;
        let executions = db.restricted_to(&user).executions();
        let outcome = Outcome::success(None);
        let all = [
            executions.claim("w", LEASE).await.map(|_| ()),
            executions
                .extend(claim_of(&db, id, "w").await, LEASE)
                .await
                .map(|_| ()),
            executions
                .finish(claim_of(&db, id, "w").await, outcome)
                .await
                .map(|_| ()),
            executions.claim_many("w", LEASE, 1).await.map(|_| ()),
            executions.requeue_expired(1).await.map(|_| ()),
            executions.prune(db.now(), 1).await.map(|_| ()),
        ];
        for result in all {
            match result {
                Ok(()) => assert!(may, "{role}"),
                Err(Error::Forbidden { .. }) => assert!(!may, "{role}"),
                Err(other) => panic!("{role}: {other:?}"),
            }
        }
        let wait = executions
            .wait(claim_of(&db, id, "w").await, None, None)
            .await;
        match wait {
            Err(Error::LeaseLost { .. } | Error::NotFound { .. }) => assert!(may, "{role}"),
            Err(Error::Forbidden { .. }) => assert!(!may, "{role}"),
            other => panic!("{role}: {other:?}"),
        }
        let left = db.executions().find(id).await.expect("an answer");
        let untouched = left.is_some_and(|e| e.status == ExecutionStatus::Queued);
        assert_eq!(untouched, !may, "{role}");
    }
}

async fn a_transfer_moves_the_executions(db: TestDb) {
    let db = open(&db).await;
    let (ada, flow) = owner(&db, "ada", Role::User).await;
    let (bob, _) = owner(&db, "bob", Role::User).await;
    let id = db.executions().enqueue(new(flow)).await.expect("queued").id;
    db.users()
        .transfer(ada.id, NewOwner(bob.id))
        .await
        .expect("given");
    let (ada, bob) = (db.restricted_to(&ada), db.restricted_to(&bob));
    assert!(seen(&ada, ExecutionFilter::new()).await.is_empty());
    assert_error!(ada.executions().cancel(id).await, Error::NotFound { .. });
    bob.executions().cancel(id).await.expect("canceled");
}
