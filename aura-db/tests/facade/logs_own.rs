//! What a user sees of the log: the entries of own workflows, in pages.

use std::collections::BTreeSet;

use aura_db::{
    Database, Error, Log, LogFilter, LogLevel, NewWorkflow, PageRequest, Restricted, User,
};
use testdb::TestDb;

use crate::logs::info;
use crate::support::{assert_error, open, refused, user};

testdb::both!(migrated: pages_of_own_entries);

/// Every entry that the user may see, page by page.
async fn pages(own: &Restricted, filter: &LogFilter, size: u64) -> Vec<Log> {
    let mut all = Vec::new();
    let mut page = PageRequest::first(size);
    loop {
        let list = own.logs().list(filter.clone(), page).await.expect("a page");
        all.extend(list.items);
        let Some(next) = list.next else { break all };
        page = PageRequest::after(next, size);
    }
}

/// Entries of these workflows, in an order that looks random.
async fn fill(db: &Database, users: &[(User, usize)]) -> Vec<Vec<aura_db::WorkflowId>> {
    let mut flows = Vec::new();
    for (user, count) in users {
        let mut own = Vec::new();
        for _ in 0..*count {
            let new = NewWorkflow::new("w").owner(user.id);
            own.push(db.workflows().create(new).await.expect("created").id);
        }
        flows.push(own);
    }
    let all: Vec<_> = flows.iter().flatten().copied().collect();
    let entries = (0..300_usize).map(|nth| {
        // One workflow has most of them.
        let at = if nth % 3 == 0 {
            0
        } else {
            nth * 7_919 % all.len()
        };
        info(all[at], nth.to_string())
    });
    db.logs()
        .append_many(entries.collect())
        .await
        .expect("appended");
    flows
}

async fn pages_of_own_entries(test: TestDb) {
    let db = open(&test).await;
    let users = [("few", 3), ("many", 40), ("none", 0)];
    let mut owners = Vec::new();
    for (name, count) in users {
        owners.push((user(&db, name).await, count));
    }
    let flows = fill(&db, &owners).await;
    // Entries of a deleted workflow are still its owner's.
    db.workflows().delete(flows[0][1]).await.expect("deleted");
    for ((owner, _), flows) in owners.iter().zip(&flows) {
        let own = db.restricted_to(owner);
        let flows: BTreeSet<_> = flows.iter().copied().collect();
        let everything = PageRequest::first(1_000);
        let all = db
            .logs()
            .list(LogFilter::new(), everything)
            .await
            .expect("all");
        let mut expected = all.items;
        expected.retain(|log| flows.contains(&log.workflow_id));
        for size in [1, 7, 50, 1_000] {
            let newest_first = pages(&own, &LogFilter::new(), size).await;
            assert_eq!(newest_first, expected, "{size} of {}", owner.name);
        }
        let info = LogFilter::new().level(LogLevel::Info);
        assert_eq!(pages(&own, &info, 50).await, expected);
        let numbered = own
            .logs()
            .list(LogFilter::new(), PageRequest::number(1, 50))
            .await;
        let numbered = numbered.expect("a page");
        assert_eq!(numbered.total, Some(expected.len() as u64));
        assert_eq!(numbered.items, expected[..expected.len().min(50)]);
        expected.reverse();
        for size in [1, 7, 50, 1_000] {
            let oldest_first = pages(&own, &LogFilter::new().oldest_first(), size).await;
            assert_eq!(oldest_first, expected, "{size} of {}", owner.name);
        }
        // A cursor of another order is refused as ever.
        let all = db
            .logs()
            .list(LogFilter::new(), PageRequest::first(1))
            .await;
        let next = all.expect("a page").next.expect("another");
        let entries = own.logs();
        let oldest_first = LogFilter::new().oldest_first();
        let list = entries
            .list(oldest_first, PageRequest::after(next, 50))
            .await;
        assert_eq!(refused(list), ["page.after"]);
        let list = entries
            .list(LogFilter::new(), PageRequest::first(1_001))
            .await;
        assert_eq!(refused(list), ["page.size"]);
    }
    let (few, _) = &owners[0];
    db.users().deactivate(few.id).await.expect("deactivated");
    let entries = db.restricted_to(few).logs();
    let list = entries.list(LogFilter::new(), PageRequest::first(1)).await;
    assert_error!(list, Error::Forbidden { .. });
    db.close().await;
}
