//! Callers who hang up anywhere: while they wait for a connection, in the middle
//! of a statement, between two, in the commit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aura_db::{
    Database, Error, LogFilter, LogLevel, NewLog, NewWorkflow, PageRequest, WorkflowChange,
    WorkflowId,
};
use testdb::process::{asked, moment};
use testdb::{Backend, TestDb};

use crate::support::user;

testdb::both!(migrated: nothing_is_left_of_those_who_hang_up);

/// What one caller does, which is all done or none of it.
async fn operation(db: &Database, flow: WorkflowId, index: u32) -> Result<(), Error> {
    let new = || NewLog::new(flow, LogLevel::Info, format!("<{index}>"));
    match index % 4 {
        0 => db.logs().append_many(vec![new(), new()]).await.map(drop),
        1 => {
            db.transaction(|tx| async move {
                tx.logs().append(new()).await?;
                tx.logs().append(new()).await.map(drop)
            })
            .await
        }
        2 => {
            let read = db.workflows().get(flow).await?;
            let change = WorkflowChange::new().name(index.to_string());
            match db.workflows().update(flow, read.version, change).await {
                Ok(_) | Err(Error::Stale { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        }
        _ => {
            db.logs()
                .list(LogFilter::workflow(flow), PageRequest::first(20))
                .await?;
            let logs = db.logs();
            let [first, second] = [new(), new()].map(|new| logs.append(new));
            // Each by itself: two of them, or one, or none.
            futures_util::try_join!(first, second).map(drop)
        }
    }
}

/// Operations, eight at a time on a pool of four, four of five of them given up at
/// moments from the first poll to their end, until so many didn't get there:
/// `AURA_ABORTS=10000`.
async fn nothing_is_left_of_those_who_hang_up(test: TestDb) {
    let mut config = test.plain_config();
    config.pool.max = 4;
    let db = Database::connect(config).await.expect("it connects");
    let owner = user(&db, "ada").await.id;
    let new = NewWorkflow::new("0").owner(owner);
    let flow = db.workflows().create(new).await.expect("created").id;
    let aborts = asked("AURA_ABORTS").and_then(|aborts| aborts.parse().ok());
    let aborts: u32 = aborts.unwrap_or(120);
    let (mut finished, mut given_up) = (BTreeSet::new(), 0);
    let mut all = 0;
    while given_up < aborts {
        assert!(all < 100 * aborts, "hardly anybody is given up");
        let callers: Vec<_> = (all..all + 8)
            .map(|index| {
                let db = db.clone();
                let caller = tokio::spawn(async move { operation(&db, flow, index).await });
                (index, caller)
            })
            .collect();
        all += 8;
        for (index, caller) in callers {
            // Some are let go on, some go at once, and most somewhere between.
            if index % 5 < 4 {
                let most = Duration::from_micros(1_500);
                tokio::time::sleep(most.mul_f64(moment(index / 2))).await;
                caller.abort();
            }
            match caller.await {
                Ok(done) => {
                    done.expect("nobody is in the way");
                    finished.insert(index);
                }
                Err(error) => {
                    assert!(error.is_cancelled(), "{error}");
                    given_up += 1;
                }
            }
        }
    }
    println!("{:?}: {given_up} of {all} given up", test.backend());

    // All connections are there, and nothing is open in any.
    let more = (0..16).map(|index| operation(&db, flow, all + index));
    for done in futures_util::future::join_all(more).await {
        done.expect("there is room for it");
    }
    if test.backend() == Backend::Postgres {
        let open = "SELECT count(*)::text AS line FROM pg_stat_activity \
             WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
        // One that was closed may still be seen.
        let mut looks = 0;
        while test.lines(open).await != ["0"] {
            looks += 1;
            assert!(looks < 200, "a transaction was left open");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    db.close().await;

    let mut written = BTreeMap::new();
    for message in test.lines("SELECT message AS line FROM logs").await {
        *written.entry(message).or_insert(0) += 1;
    }
    let count = |index: u32| written.get(&format!("<{index}>")).copied().unwrap_or(0);
    for index in (0..all).filter(|index| index % 4 < 2) {
        let there = count(index);
        let whole = there == 2 || there == 0 && !finished.contains(&index);
        assert!(whole, "{there} of two entries of operation {index}");
    }
    for index in finished.iter().copied().filter(|index| index % 4 == 3) {
        assert_eq!(count(index), 2, "acknowledged, and not there");
    }
}
