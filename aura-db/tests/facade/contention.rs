//! Many at once: tasks of one process, and processes on one database.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aura_db::{
    Database, Error, NewWorkflow, PageRequest, SessionRequest, WorkflowChange, WorkflowFilter,
    WorkflowId,
};
use testdb::TestDb;
use testdb::process::{Running, asked, command};

use crate::support::{open, user};

testdb::both!(migrated: versions_equal_acknowledged_updates, four_processes_share_a_database);

const TASKS: usize = 32;

/// Reads a workflow, changes what was read, and writes it with its version,
/// until the write is acknowledged or stale.
async fn rename(db: &Database, id: WorkflowId) -> Result<bool, Error> {
    let flow = db.workflows().get(id).await?;
    let next = flow.name.parse::<u64>().map_or(0, |name| name + 1);
    let change = WorkflowChange::new().name(next.to_string());
    match db.workflows().update(id, flow.version, change).await {
        Ok(_) => Ok(true),
        Err(Error::Stale { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// 32 tasks on four workflows: nobody is told "database is locked", and each
/// acknowledged update is a version. `AURA_SECONDS=60` runs as long, and
/// prints the rate.
async fn versions_equal_acknowledged_updates(test: TestDb) {
    let backend = test.backend();
    let db = open(&test).await;
    let ada = user(&db, "ada").await;
    let mut flows = Vec::new();
    for _ in 0..4 {
        let new = NewWorkflow::new("0").owner(ada.id);
        flows.push(db.workflows().create(new).await.expect("created").id);
    }
    let limit = asked("AURA_SECONDS").and_then(|seconds| seconds.parse().ok());
    let limit = limit.map(Duration::from_secs);
    let started = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (db, flow) = (db.clone(), flows[task % flows.len()]);
            tokio::spawn(async move {
                let (mut acknowledged, mut rounds) = (0_i64, 0);
                while limit.map_or(rounds < 15, |limit| started.elapsed() < limit) {
                    let done = rename(&db, flow).await;
                    acknowledged += i64::from(done.expect("never locked, never lost"));
                    rounds += 1;
                }
                (flow, acknowledged)
            })
        })
        .collect();
    let mut acknowledged: BTreeMap<WorkflowId, i64> = BTreeMap::new();
    for task in tasks {
        let (flow, count) = task.await.expect("no panic");
        *acknowledged.entry(flow).or_default() += count;
    }
    let total: i64 = acknowledged.values().sum();
    println!(
        "{backend:?}: {total} commits in {:.1} s, {:.0} a second",
        started.elapsed().as_secs_f64(),
        f64::from(i32::try_from(total).unwrap_or(i32::MAX)) / started.elapsed().as_secs_f64()
    );
    for (flow, count) in acknowledged {
        let flow = db.workflows().get(flow).await.expect("there");
        assert_eq!(flow.version, 1 + count);
        assert_eq!(flow.name, count.to_string());
        assert!(count > 0);
    }
    db.close().await;
}

/// Tells a process of this test's which database and user are its own.
const OWNER: &str = "AURA_TEST_OWNER";
const OPERATIONS: u32 = 300;

async fn four_processes_share_a_database(test: TestDb) {
    let db = open(&test).await;
    let ada = user(&db, "ada").await;
    let this = std::env::current_exe().expect("a path");
    let processes: Vec<_> = (0..4)
        .map(|_| {
            let mut variables = test.variables();
            variables.push((OWNER, ada.id.to_string()));
            let arguments = ["--exact", "contention::process", "--nocapture"];
            Running::start(command(&this, &test.work(), &variables).args(arguments))
        })
        .collect();
    for process in processes {
        let ended = process.end();
        assert!(ended.status.success(), "{ended:?}");
        let rate = ended.stdout.lines().find(|line| line.contains("a second"));
        println!("{}", rate.expect("it says how fast it was"));
    }
    let list = db
        .workflows()
        .list(WorkflowFilter::owner(ada.id), PageRequest::number(1, 1))
        .await
        .expect("a list");
    assert_eq!(list.total, Some(u64::from(4 * OPERATIONS / 5)));
    let sessions = db.sessions().list(ada.id).await.expect("a list");
    assert_eq!(sessions.len(), (4 * OPERATIONS / 5) as usize);
    db.close().await;
}

/// One of the processes; without its variable there is nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn process() {
    let Some(owner) = asked(OWNER).and_then(|id| id.parse::<i64>().ok()) else {
        return;
    };
    let db = Database::from_env().await.expect("it connects");
    let started = Instant::now();
    for round in 0..OPERATIONS / 5 {
        let new = NewWorkflow::new(format!("{round}")).owner(owner.into());
        let flow = db.workflows().create(new).await.expect("created");
        let change = WorkflowChange::new().description(Some("changed".to_owned()));
        db.workflows()
            .update(flow.id, flow.version, change)
            .await
            .expect("changed");
        let issued = db
            .sessions()
            .issue(owner.into(), SessionRequest::default())
            .await
            .expect("issued");
        let who = db.sessions().authenticate(&issued.token).await;
        assert_eq!(who.expect("an answer").expect("somebody").user.id.0, owner);
        let list = db
            .workflows()
            .list(WorkflowFilter::new(), PageRequest::first(10))
            .await;
        assert!(!list.expect("a list").items.is_empty());
    }
    let took = started.elapsed().as_secs_f64();
    println!("{:.0} operations a second", f64::from(OPERATIONS) / took);
    db.close().await;
}
