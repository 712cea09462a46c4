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

/// The same from the last page to the first.
async fn pages_backwards(own: &Restricted, filter: &LogFilter, size: u64) -> Vec<Log> {
    let entries = own.logs();
    let everything = entries.list(filter.clone(), PageRequest::first(1_000));
    let end = everything.await.expect("a page").items.pop();
    let mut all: Vec<_> = end.into_iter().collect();
    // The cursor of the last entry is in front of it.
    let number = PageRequest::number(all_of(own, filter).await, 1);
    let list = entries.list(filter.clone(), number).await;
    let mut previous = list.expect("a page").previous;
    while let Some(cursor) = previous {
        let page = PageRequest::before(cursor, size);
        let list = entries.list(filter.clone(), page).await.expect("a page");
        previous = list.previous;
        all.splice(0..0, list.items);
    }
    all
}

/// The same by numbers.
async fn pages_by_number(own: &Restricted, filter: &LogFilter, size: u64) -> Vec<Log> {
    let mut all = Vec::new();
    for number in 1.. {
        let page = PageRequest::number(number, size);
        let list = own.logs().list(filter.clone(), page).await.expect("a page");
        all.extend(list.items);
        if list.next.is_none() {
            assert_eq!(list.total, Some(all.len() as u64));
            break;
        }
    }
    all
}

/// The number of entries that the user may see.
async fn all_of(own: &Restricted, filter: &LogFilter) -> u64 {
    let entries = own.logs();
    let list = entries.list(filter.clone(), PageRequest::number(1, 1));
    let total = list.await.expect("a page").total.expect("a number");
    total.max(1)
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
        for size in [7, 1_000] {
            let backwards = pages_backwards(&own, &LogFilter::new(), size).await;
            assert_eq!(backwards, expected, "{size} of {}", owner.name);
            let numbered = pages_by_number(&own, &LogFilter::new(), size).await;
            assert_eq!(numbered, expected, "{size} of {}", owner.name);
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
            let filter = LogFilter::new().oldest_first();
            let oldest_first = pages(&own, &filter, size).await;
            assert_eq!(oldest_first, expected, "{size} of {}", owner.name);
            if size > 1 {
                let backwards = pages_backwards(&own, &filter, size).await;
                assert_eq!(backwards, expected, "{size} of {}", owner.name);
                let numbered = pages_by_number(&own, &filter, size).await;
                assert_eq!(numbered, expected, "{size} of {}", owner.name);
            }
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
