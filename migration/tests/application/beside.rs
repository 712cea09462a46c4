//! Two schemas in one database.

use std::sync::{Arc, Mutex};

use migration::{DataMigration, Error, HISTORY, Loss, Migration, Plan, Runner, State};
use sea_orm::DbBackend;
use testdb::{Backend, TestDb};

use crate::data::FillSlugs;
use crate::support::{
    APP, CreateNotes, NOTES, Sql, TAGS, app, app_with, names, refused, run, state, steps,
};

testdb::both!(
    empty: the_steps_before_are_applied_first,
        two_schemas_migrate_at_once,
        a_base_of_another_program_is_refused,
        a_list_that_cant_be_run_is_refused;
    migrated: the_history_is_its_own,
        its_plans_leave_our_tables_alone,
        our_plans_are_refused_while_it_refers_to_our_tables,
        new_steps_of_ours_dont_disturb_it,
        tables_of_another_program_are_foreign,
        rows_that_its_step_leaves_dangling_take_the_run_back,
        losses_are_its_own,
);

/// A later release of ours.
fn newer() -> Runner {
    let mut steps = migration::steps();
    steps.push(Box::new(Sql(
        "m20990101_000001_newer",
        "CREATE INDEX newer ON workflows (created_by)",
    )));
    Runner::builder().history(HISTORY).steps(steps).build()
}

async fn the_steps_before_are_applied_first(db: TestDb) {
    let done = run(&app(), &db, Plan::Up(Some(1))).await;
    let names = names(&done);
    assert_eq!(names.len(), testdb::steps() + 1, "{names:?}");
    assert_eq!(names[0], "m20261122_000001_create_users");
    assert_eq!(names[testdb::steps()], NOTES);
    assert_eq!(db.state().await, State::Current);
    let pending = vec![TAGS.to_owned()];
    assert_eq!(state(&app(), &db).await, State::Behind { pending });
    assert_eq!(
        crate::support::names(&run(&app(), &db, Plan::Up(None)).await),
        [TAGS]
    );
    assert_eq!(run(&app(), &db, Plan::Up(None)).await, []);
}

async fn two_schemas_migrate_at_once(db: TestDb) {
    let run = |runner: Runner| {
        let config = db.config();
        tokio::spawn(async move { runner.run(&config, Plan::Up(None), |_| {}).await })
    };
    let runs: Vec<_> = (0..16)
        .map(|number| {
            run(if number % 2 == 0 {
                app()
            } else {
                migration::runner()
            })
        })
        .collect();
    let mut done = Vec::new();
    for run in runs {
        done.extend(run.await.expect("no panic").expect("applied, or waited"));
    }
    let mut names = names(&done);
    names.sort();
    let mut expected: Vec<String> = migration::steps()
        .iter()
        .chain(&steps())
        .map(|step| step.name().to_owned())
        .collect();
    expected.sort();
    assert_eq!(names, expected, "each once");
    assert_eq!(state(&app(), &db).await, State::Current);
    assert_eq!(db.state().await, State::Current);
    check_ours(&db).await;
}

async fn a_base_of_another_program_is_refused(db: TestDb) {
    db.execute("CREATE TABLE users (id bigint)").await;
    let error = refused(&app(), &db, Plan::Up(None)).await;
    assert!(
        error
            .to_string()
            .contains("there is no history in aura_migrations"),
        "{error}"
    );
    assert_eq!(db.tables().await, ["users"]);
}

async fn a_list_that_cant_be_run_is_refused(db: TestDb) {
    struct RustOutside;

    impl Migration for RustOutside {
        fn name(&self) -> &'static str {
            "m20261203_000001_rust"
        }

        fn up(&self, _: DbBackend) -> Vec<String> {
            Vec::new()
        }

        fn data(&self) -> Option<&dyn DataMigration> {
            Some(&FillSlugs)
        }

        fn transactional(&self) -> bool {
            false
        }
    }

    let of = |steps: Vec<Box<dyn Migration>>| Runner::builder().history(APP).steps(steps);
    for (runner, words) in [
        (
            of(vec![Box::new(CreateNotes), Box::new(CreateNotes)]),
            "two of them have the name",
        ),
        (of(vec![Box::new(RustOutside)]), "Rust code"),
        (of(steps()).history("Notes"), "lower-case"),
        (of(steps()).history(""), "lower-case"),
        (
            of(steps()).history(HISTORY).after(migration::runner()),
            "the same history",
        ),
        (
            of(migration::steps()).after(migration::runner()),
            "the table users is one of",
        ),
    ] {
        let error = refused(&runner.build(), &db, Plan::Up(None)).await;
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(db.tables().await, [""; 0]);
}

async fn the_history_is_its_own(db: TestDb) {
    let before = db.rows(&[HISTORY]).await;
    assert_eq!(
        names(&run(&app(), &db, Plan::Up(None)).await),
        [NOTES, TAGS]
    );
    assert_eq!(db.rows(&[HISTORY]).await, before);
    assert_eq!(state(&app(), &db).await, State::Current);
    assert_eq!(db.state().await, State::Current);
    assert_eq!(run(&migration::runner(), &db, Plan::Up(None)).await, []);
    check_ours(&db).await;
}

async fn its_plans_leave_our_tables_alone(db: TestDb) {
    db.fill().await;
    let ours: Vec<&str> = [migration::runner().tables(), vec![HISTORY]].concat();
    let before = db.dump(&ours).await;
    run(&app(), &db, Plan::Up(None)).await;
    for (plan, tables) in [
        (Plan::Down(1), ["notes"].as_slice()),
        (Plan::Refresh, &["notes", "tags"]),
        (Plan::Fresh, &["notes", "tags"]),
        (Plan::Reset, &[]),
        (Plan::Fresh, &["notes", "tags"]),
    ] {
        run(&app(), &db, plan).await;
        assert_eq!(db.dump(&ours).await, before, "{plan:?}");
        let made = db.tables().await.into_iter();
        let made: Vec<_> = made
            .filter(|table| ["notes", "tags"].contains(&table.as_str()))
            .collect();
        assert_eq!(made, tables, "{plan:?}");
    }
}

async fn our_plans_are_refused_while_it_refers_to_our_tables(db: TestDb) {
    run(&app(), &db, Plan::Up(None)).await;
    let before = db.dump(&["notes", "tags", APP]).await;
    for plan in [Plan::Reset, Plan::Refresh, Plan::Fresh] {
        let error = refused(&migration::runner(), &db, plan).await;
        assert!(matches!(error, Error::Referenced(_)), "{error:?}");
        assert!(error.to_string().contains("notes to workflows"), "{error}");
    }
    // What drops none of those tables may go on.
    run(&migration::runner(), &db, Plan::Down(1)).await;
    run(&migration::runner(), &db, Plan::Up(None)).await;
    assert_eq!(db.dump(&["notes", "tags", APP]).await, before);

    run(&app(), &db, Plan::Reset).await;
    run(&migration::runner(), &db, Plan::Refresh).await;
    assert_eq!(db.state().await, State::Current);
}

async fn new_steps_of_ours_dont_disturb_it(db: TestDb) {
    run(&app(), &db, Plan::Up(None)).await;
    assert_eq!(run(&newer(), &db, Plan::Up(None)).await.len(), 1);
    // The old build of the application on the new schema of ours, and a new build of it.
    assert_eq!(state(&app(), &db).await, State::Current);
    assert_eq!(run(&app(), &db, Plan::Up(None)).await, []);
    run(&app(), &db, Plan::Refresh).await;

    db.execute("DROP INDEX newer").await;
    db.execute(&format!(
        "DELETE FROM {HISTORY} WHERE version LIKE '%newer'"
    ))
    .await;
    let late = Sql("m20261203_000001_late", "CREATE INDEX late ON notes (slug)");
    let app = app_with(vec![Box::new(late)], newer());
    let done = run(&app, &db, Plan::Up(None)).await;
    assert_eq!(
        names(&done),
        ["m20990101_000001_newer", "m20261203_000001_late"]
    );
}

async fn tables_of_another_program_are_foreign(db: TestDb) {
    db.execute("CREATE TABLE tags (name text)").await;
    let tables = vec!["tags".to_owned()];
    assert_eq!(state(&app(), &db).await, State::Foreign { tables });
    let error = refused(&app(), &db, Plan::Up(None)).await;
    for words in [
        "there is no history in notes_migrations",
        "`notes baseline`",
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(db.state().await, State::Current);
}

async fn rows_that_its_step_leaves_dangling_take_the_run_back(db: TestDb) {
    db.fill().await;
    run(&app(), &db, Plan::Up(None)).await;
    db.execute("INSERT INTO notes (title, workflow_id) VALUES ('x', 1)")
        .await;
    let careless = Sql(
        "m20261203_000001_careless",
        "UPDATE notes SET workflow_id = 4711",
    );
    let app = app_with(vec![Box::new(careless)], migration::runner());
    let error = refused(&app, &db, Plan::Up(None)).await;
    match db.backend() {
        Backend::Sqlite => {
            assert!(
                matches!(&error, Error::DanglingRows(pairs) if pairs == "notes to workflows"),
                "{error:?}"
            );
        }
        Backend::Postgres => assert!(matches!(error, Error::Step { .. }), "{error:?}"),
    }
    assert_eq!(
        db.lines("SELECT cast(workflow_id AS text) AS line FROM notes")
            .await,
        ["1"]
    );
}

async fn losses_are_its_own(db: TestDb) {
    db.fill().await;
    run(&app(), &db, Plan::Up(None)).await;
    db.execute("INSERT INTO notes (title, workflow_id) VALUES ('x', 1)")
        .await;
    let outside = db.outside().await;
    let losses = app().losses(&outside, Plan::Reset).await.expect("counted");
    assert_eq!(
        losses,
        [Loss {
            table: "notes",
            rows: 1
        }]
    );
    outside.close().await.expect("it closes");
    db.execute("INSERT INTO notes (title, workflow_id) VALUES ('y', 1)")
        .await;
    let error = app()
        .run_confirmed(&db.config(), Plan::Reset, &losses, |_| {})
        .await
        .expect_err("there are more rows");
    assert!(matches!(error, Error::MoreToLose(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_memory_has_both() {
    let connection = connection::connect_exclusive(&connection::Config::memory())
        .await
        .expect("opens");
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let on_event = move |event: migration::Event<'_>| {
        if let migration::Event::Done(done) = event {
            seen.lock().expect("a list").push(done.name.clone());
        }
    };
    let done = app()
        .up_in_memory(&connection, on_event)
        .await
        .expect("it runs");
    assert_eq!(*events.lock().expect("a list"), names(&done));
    assert_eq!(done.len(), testdb::steps() + 2);
}

async fn check_ours(db: &TestDb) {
    let outside = db.outside().await;
    assert_eq!(migration::check(&outside).await.expect("a check"), []);
    outside.close().await.expect("it closes");
}
