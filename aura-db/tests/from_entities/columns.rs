//! Columns that are added to tables and dropped.

use aura_db::migration::{Catalog, Error, Plan};
use testdb::TestDb;

use crate::support::{
    app, changes, decisions, delete_users, first, lines, open, release, run, second, third,
};

testdb::both!(migrated:
    columns_are_added_and_reversed,
    a_column_that_rows_lack_needs_a_default,
    columns_are_dropped_when_asked_for,
);

async fn columns_are_added_and_reversed(test: TestDb) {
    let made = changes(&app(first::Entity, &[])).await;
    run(
        &app(first::Entity, &[(&made, false)]),
        &test,
        Plan::Up(None),
    )
    .await
    .expect("applied");
    let insert = "INSERT INTO tokens (name) VALUES ('x')";
    test.execute(insert).await;

    let added = changes(&app(second::Entity, &[(&made, false)])).await;
    assert_eq!(
        lines(&added),
        [
            "different tokens column title (is name)",
            "missing tokens column uses",
            "missing tokens column owner_id",
            "missing tokens index uq_tokens_title",
            "missing tokens index idx_tokens_owner_id",
        ]
    );
    assert_eq!(decisions(&added), [""; 0]);
    let app = app(second::Entity, &[(&made, false), (&added, false)]);
    assert_eq!(changes(&app).await, []);
    for plan in [Plan::Up(None), Plan::Down(1), Plan::Up(None)] {
        assert_eq!(
            run(&app, &test, plan).await.expect("it runs"),
            1,
            "{plan:?}"
        );
    }
    let rows = "SELECT title || ' ' || uses AS line FROM tokens WHERE owner_id IS NULL";
    assert_eq!(test.lines(rows).await, ["x 7"]);
    let (db, ada) = open(&test).await;
    test.execute(&format!("UPDATE tokens SET owner_id = {}", ada.id))
        .await;
    delete_users(&db).await;
    assert_eq!(test.lines(rows).await, ["x 7"], "the key was set to null");
    db.close().await;
}

async fn a_column_that_rows_lack_needs_a_default(test: TestDb) {
    let made = changes(&app(first::Entity, &[])).await;
    run(
        &app(first::Entity, &[(&made, false)]),
        &test,
        Plan::Up(None),
    )
    .await
    .expect("applied");
    test.execute("INSERT INTO tokens (name) VALUES ('x')").await;
    release!(strict {
        #[sea_orm(column_type = "String(StringLen::N(40))")]
        pub(crate) name: String,
        #[sea_orm(indexed)]
        pub(crate) legacy: Option<String>,
        pub(crate) secret: String,
    });
    let added = changes(&app(strict::Entity, &[(&made, false)])).await;
    assert_eq!(
        decisions(&added),
        ["tokens.secret is NOT NULL: rows that exist need a DEFAULT here, or the step fails"]
    );
    let app = app(strict::Entity, &[(&made, false), (&added, false)]);
    let error = run(&app, &test, Plan::Up(None))
        .await
        .expect_err("there is a row");
    assert!(matches!(error, Error::Step { .. }), "{error:?}");
    test.execute("DELETE FROM tokens").await;
    assert_eq!(
        run(&app, &test, Plan::Up(None)).await.expect("it is empty"),
        1
    );
}

async fn columns_are_dropped_when_asked_for(test: TestDb) {
    let made = changes(&app(first::Entity, &[])).await;
    let less = changes(&app(third::Entity, &[(&made, false)])).await;
    assert_eq!(
        lines(&less),
        [
            "missing tokens column created_at",
            "extra tokens column legacy"
        ]
    );
    assert!(less[1].drops);
    assert_eq!(
        less[1].decide.as_deref(),
        Some("tokens.legacy isn't in the entity; to drop it, with what it holds")
    );
    let kept = app(third::Entity, &[(&made, false), (&less, false)]);
    assert_eq!(lines(&changes(&kept).await), ["extra tokens column legacy"]);
    let app = app(third::Entity, &[(&made, false), (&less, true)]);
    assert_eq!(changes(&app).await, []);
    run(&app, &test, Plan::Up(None)).await.expect("applied");
    let outside = test.outside().await;
    let catalog = Catalog::read(&outside, &["tokens"], &[]).await;
    let tables = catalog.expect("a catalog").tables;
    let columns: Vec<&String> = tables["tokens"].columns.keys().collect();
    assert_eq!(columns, ["created_at", "id", "name"]);
    outside.close().await.expect("it closes");
    // The time is filled in.
    test.execute("INSERT INTO tokens (name) VALUES ('x')").await;
}
