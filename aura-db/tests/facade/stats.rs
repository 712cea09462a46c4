use aura_db::entity::users;
use aura_db::sea_orm::sea_query::Query;
use aura_db::sea_orm::{ColumnTrait, ConnectionTrait};
use aura_db::{DatabaseStats, Error, NewUser, OperationStats};
use testdb::TestDb;

use crate::people::{login, session};
use crate::support::{assert_error, open, user};

testdb::both!(migrated: operations_are_counted, transactions_are_counted, given_up_counts);

fn of(stats: &DatabaseStats, table: &str, operation: &str) -> OperationStats {
    let mut all = stats.operations.iter();
    all.find(|one| (one.table, one.operation) == (table, operation))
        .cloned()
        .unwrap_or_else(|| panic!("{table}.{operation} is not in {stats:?}"))
}

async fn operations_are_counted(db: TestDb) {
    let db = open(&db).await;
    assert_eq!(db.stats(), DatabaseStats::default());
    let ada = user(&db, "ada").await.id;
    let issued = session(&db, "ada").await;
    assert_error!(login(&db, "ada", "wrong").await, Error::Credentials);
    // All clones count together.
    let clone = db.acting_as(ada);
    clone.users().get(ada).await.expect("there");
    clone.users().get(4711.into()).await.expect_err("nobody");
    let who = db.sessions().authenticate(&issued.token).await;
    assert!(who.expect("an answer").is_some());
    let taken = NewUser::new("Ada", "ada@example.org", "x");
    db.users().create(taken).await.expect_err("taken");

    let stats = db.stats();
    let counts = |table, operation| {
        let one = of(&stats, table, operation);
        assert!(one.max_micros <= one.total_micros);
        (one.count, one.errors)
    };
    assert_eq!(counts("users", "create"), (2, 1));
    assert_eq!(counts("users", "login_lookup"), (2, 0));
    assert_eq!(counts("users", "login"), (1, 0));
    assert_eq!(
        counts("users", "get"),
        (2, 1),
        "a missing one counts as an error"
    );
    assert_eq!(counts("sessions", "authenticate"), (1, 0));
    assert!(of(&stats, "users", "create").total_micros > 0);
    assert!(
        stats
            .operations
            .is_sorted_by_key(|one| (one.table, one.operation))
    );
    let json = serde_json::to_value(&stats).expect("it serializes");
    assert_eq!(json["operations"][0]["table"], "sessions");
}

async fn transactions_are_counted(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let before = db.stats();
    db.users().deactivate(ada.id).await.expect("deactivated");
    let undone: Result<(), Error> = db.transaction(|_| async { Err(Error::Credentials) }).await;
    assert_error!(undone, Error::Credentials);
    let refused = db.restricted_to(&ada).users().activate(ada.id).await;
    assert_error!(refused, Error::Forbidden { .. });
    let stats = db.stats();
    assert_eq!(stats.commits - before.commits, 1);
    assert_eq!(stats.rollbacks - before.rollbacks, 2);
    assert_eq!((stats.retries, stats.pool_waits), (0, 0));
    assert_eq!(of(&stats, "users", "activate").errors, 1);
}

/// A caller who hangs up before the answer, which can't come while somebody
/// else holds the user.
async fn given_up_counts(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await.id;
    let transaction = db.seaorm().begin().await.expect("begun");
    let hold = Query::update()
        .table(users::Entity)
        .value(users::Column::Name, "held")
        .and_where(users::COLUMN.id.eq(ada))
        .take();
    transaction.execute(&hold).await.expect("held");
    let repository = db.users();
    let mut deactivate = Box::pin(repository.deactivate(ada));
    let first = futures_util::poll!(deactivate.as_mut());
    drop(deactivate);
    assert!(first.is_pending());
    transaction.rollback().await.expect("rolled back");
    let deactivate = of(&db.stats(), "users", "deactivate");
    assert_eq!((deactivate.count, deactivate.errors), (1, 1));
    assert!(db.users().get(ada).await.expect("there").is_active);
}
