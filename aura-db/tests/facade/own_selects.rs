//! Selects of an application's own that merge, order or cut their rows.

use aura_db::entity::{logs, users, workflows};
use aura_db::sea_orm::sea_query::Expr;
use aura_db::sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QueryOrder, QuerySelect, QueryTrait};
use aura_db::{Database, LogLevel, NewLog, NewWorkflow, PageRequest, Sort};
use serde_json::json;
use testdb::TestDb;

use crate::support::{open, refused, user};

testdb::both!(migrated:
    what_a_select_returns_is_counted,
    documents_are_compared_by_their_text,
);

/// Two workflows with documents and three log entries each.
async fn with_logs(test: &TestDb) -> Database {
    let db = open(test).await;
    let owner = user(&db, "ada").await.id;
    for name in ["one", "two"] {
        let new = NewWorkflow::new(name)
            .owner(owner)
            .settings(json!({"b": 1, "a": 2}));
        let flow = db.workflows().create(new).await.expect("created").id;
        for _ in 0..3 {
            let new = NewLog::new(flow, LogLevel::Info, "m");
            db.logs().append(new).await.expect("appended");
        }
    }
    db
}

/// DISTINCT, GROUP BY, LIMIT and OFFSET count in numbers as they do in rows.
async fn what_a_select_returns_is_counted(test: TestDb) {
    use workflows::Column::{Id, Name, Version};
    let db = with_logs(&test).await;
    let flows = db.repository::<workflows::Entity>();
    let by_id = Sort::asc(Id);
    let joined = || workflows::Entity::find().inner_join(logs::Entity);
    let ordered = || joined().order_by_desc(Name).order_by_asc(Id);
    for (select, count) in [
        (joined(), 6),
        (ordered(), 6),
        (joined().distinct(), 2),
        (ordered().distinct(), 2),
        (joined().distinct().offset(1).limit(9), 1),
        (joined().limit(4), 4),
        (ordered().limit(4).offset(4), 2),
        (joined().select_only().column(Id).group_by(Id), 2),
        (
            joined()
                .select_only()
                .column(Id)
                .group_by(Id)
                .having(Expr::expr(logs::COLUMN.id.max()).gt(3_i64)),
            1,
        ),
    ] {
        let sql = select.build(db.backend()).to_string();
        assert_eq!(
            flows.count(select.clone()).await.expect("counted"),
            count,
            "{sql}"
        );
        if sql.contains("GROUP BY") {
            continue;
        }
        let sum: Option<i64> = flows.sum(Version, select).await.expect("added");
        assert_eq!(
            sum.and_then(|sum| u64::try_from(sum).ok()),
            Some(count),
            "{sql}"
        );
    }
    let page = flows.list(joined().distinct(), &by_id, PageRequest::number(1, 1));
    let page = page.await.expect("a page");
    assert_eq!((page.items.len(), page.total), (1, Some(2)));
    // A page has its own limit.
    let limited = joined().distinct().limit(1);
    let page = flows.list(limited, &by_id, PageRequest::number(1, 5));
    let page = page.await.expect("a page");
    assert_eq!((page.items.len(), page.total), (2, Some(2)));
    db.close().await;
}

async fn documents_are_compared_by_their_text(test: TestDb) {
    use workflows::Column::{Id, Settings};
    let db = with_logs(&test).await;
    let flows = db.repository::<workflows::Entity>();
    let (by_id, by_settings) = (Sort::asc(Id), Sort::asc(workflows::Column::Settings));
    let all = flows.find_by(()).await.expect("read");
    assert_eq!(all.len(), 2);
    let joined = || {
        let joined = workflows::Entity::find().inner_join(logs::Entity);
        joined.distinct().order_by_asc(Id)
    };
    assert_eq!(db.fetch_all(joined()).await.expect("read"), all);
    assert_eq!(
        db.fetch_optional(joined()).await.expect("read").as_ref(),
        all.first()
    );
    assert_eq!(flows.find_by(joined()).await.expect("read"), all);
    assert_eq!(
        flows.first(joined()).await.expect("read").as_ref(),
        all.first()
    );
    let page = flows.list(joined(), &by_id, PageRequest::first(5));
    assert_eq!(page.await.expect("a page").items, all);
    let with_owner = workflows::Entity::find().inner_join(logs::Entity);
    let with_owner = with_owner.find_also_related(users::Entity).distinct();
    let with_owner = db.fetch_all(with_owner).await.expect("read");
    let mut flows_of: Vec<_> = with_owner.into_iter().map(|(flow, _)| flow).collect();
    flows_of.sort_by_key(|flow| flow.id);
    assert_eq!(flows_of, all);
    // They have no order.
    assert_eq!(refused(flows.min::<String>(Settings, ()).await), ["column"]);
    assert_eq!(refused(flows.max::<String>(Settings, ()).await), ["column"]);
    let sorted = flows.list((), &by_settings, PageRequest::first(5));
    assert_eq!(refused(sorted.await), ["sort"]);
    db.close().await;
}
