//! `check`, and histories that are mended.

use migration::{Error, Plan, Resolution, Runner, State};
use sea_orm::DbBackend;
use testdb::{Backend, TestDb};

use crate::support::{APP, NOTES, TAGS, app, names, run, state, steps};

testdb::both!(migrated:
    the_schema_is_compared_with_its_snapshot,
    a_schema_that_exists_is_noted,
    a_table_that_is_missing_is_not_noted,
    one_step_is_noted_by_hand,
);

async fn the_schema_is_compared_with_its_snapshot(db: TestDb) {
    run(&app(), &db, Plan::Up(None)).await;
    let outside = db.outside().await;
    let error = app()
        .check(&outside)
        .await
        .expect_err("there is no snapshot");
    assert!(error.to_string().contains("`notes snapshot`"), "{error}");

    let catalog = app().catalog(&outside).await.expect("a catalog");
    let text = serde_json::to_string(&catalog).expect("text");
    let text: &'static str = Box::leak(text.into_boxed_str());
    let checked = Runner::builder()
        .history(APP)
        .steps(steps())
        .snapshots(text, text)
        .build();
    assert_eq!(checked.check(&outside).await.expect("a check"), []);
    // Ours are none of its business.
    db.execute("ALTER TABLE users ADD COLUMN nickname varchar(20)")
        .await;
    assert_eq!(checked.check(&outside).await.expect("a check"), []);
    db.execute("DROP INDEX idx_tags_note_id").await;
    let found = checked.check(&outside).await.expect("a check");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].table.as_str(), found[0].what.as_str()),
        ("tags", "index idx_tags_note_id")
    );
    let broken = Runner::builder().history(APP).snapshots("{", "{").build();
    let error = broken.check(&outside).await.expect_err("it is no JSON");
    assert!(matches!(error, Error::Snapshot { .. }), "{error:?}");
}

async fn a_schema_that_exists_is_noted(db: TestDb) {
    for step in steps() {
        let backend = match db.backend() {
            Backend::Sqlite => DbBackend::Sqlite,
            Backend::Postgres => DbBackend::Postgres,
        };
        for sql in step.up(backend) {
            db.execute(&sql).await;
        }
    }
    assert!(matches!(state(&app(), &db).await, State::Foreign { .. }));
    let error = app().baseline(&db.config(), Some("m1_typo"), |_| {}).await;
    let error = error.expect_err("there is no such step");
    assert!(matches!(error, Error::UnknownStep { .. }), "{error:?}");

    let noted = app().baseline(&db.config(), Some(NOTES), |_| {}).await;
    assert_eq!(noted.expect("noted"), [NOTES]);
    let pending = vec![TAGS.to_owned()];
    assert_eq!(state(&app(), &db).await, State::Behind { pending });
    let noted = app().baseline(&db.config(), None, |_| {}).await;
    assert_eq!(noted.expect("noted"), [TAGS]);
    assert_eq!(state(&app(), &db).await, State::Current);
    let noted = app().baseline(&db.config(), None, |_| {}).await;
    assert_eq!(noted.expect("nothing to do"), [""; 0]);
    assert_eq!(run(&app(), &db, Plan::Refresh).await.len(), 4);
}

async fn a_table_that_is_missing_is_not_noted(db: TestDb) {
    db.execute("CREATE TABLE notes (id bigint)").await;
    let error = app().baseline(&db.config(), None, |_| {}).await;
    let error = error.expect_err("tags is missing");
    assert!(
        matches!(&error, Error::NotThere { step, table } if step == TAGS && table == "tags"),
        "{error:?}"
    );
    assert_eq!(db.rows(&[APP]).await, "");
}

async fn one_step_is_noted_by_hand(db: TestDb) {
    run(&app(), &db, Plan::Up(None)).await;
    let resolve =
        async |name: &str, resolution| app().resolve(&db.config(), name, resolution, |_| {}).await;
    db.execute("DROP TABLE tags").await;
    assert!(resolve(TAGS, Resolution::NotApplied).await.expect("noted"));
    assert!(!resolve(TAGS, Resolution::NotApplied).await.expect("it was"));
    let pending = vec![TAGS.to_owned()];
    assert_eq!(state(&app(), &db).await, State::Behind { pending });
    assert_eq!(names(&run(&app(), &db, Plan::Up(None)).await), [TAGS]);
    assert!(!resolve(TAGS, Resolution::Applied).await.expect("it was"));

    // A step of another branch.
    let other = "m20261209_000001_other";
    for resolution in [Resolution::Applied, Resolution::NotApplied] {
        let error = resolve(other, resolution).await.expect_err("there is none");
        assert!(matches!(error, Error::UnknownStep { .. }), "{error:?}");
    }
    db.execute(&format!("INSERT INTO {APP} VALUES ('{other}', 0)"))
        .await;
    assert!(matches!(state(&app(), &db).await, State::Ahead { .. }));
    let error = app().baseline(&db.config(), None, |_| {}).await;
    assert!(matches!(error, Err(Error::Schema { .. })), "{error:?}");
    assert!(resolve(other, Resolution::NotApplied).await.expect("noted"));
    assert_eq!(state(&app(), &db).await, State::Current);
}
