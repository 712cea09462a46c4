//! `kill -9` while the load is written: all of a seed is there, or nothing.
//!
//! `AURA_KILLS` asks for more kills than the few of every test run; `all` is
//! 200. Run with `--no-capture` it tells how many hit the transaction.

use aura_db::Database;
use aura_db::entity::{logs, users, workflows};
use aura_db::sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseConnection, EntityTrait, PaginatorTrait, QueryFilter,
    Statement,
};
use testdb::process::{Ended, Running, asked, command, moment};
use testdb::{Backend, TestDb};

const USERS: u64 = 10;
const WORKFLOWS: u64 = 100;
const LOGS: u64 = 20_000;

fn load(test: &TestDb, seed: u32) -> Running {
    let sizes = format!("--users {USERS} --workflows {WORKFLOWS} --logs {LOGS} --rng-seed {seed}");
    let mut command = command(env!("CARGO_BIN_EXE_seed"), test.folder(), &test.variables());
    Running::start(command.args(["--profile", "load"]).args(sizes.split(' ')))
}

fn was_written(run: &Ended) -> bool {
    run.stdout.contains("written")
}

async fn rows(db: &Database) -> [u64; 3] {
    [
        users::Entity::find()
            .count(&db.seaorm().reader().await.expect("open"))
            .await
            .expect("a count"),
        workflows::Entity::find()
            .count(&db.seaorm().reader().await.expect("open"))
            .await
            .expect("a count"),
        logs::Entity::find()
            .count(&db.seaorm().reader().await.expect("open"))
            .await
            .expect("a count"),
    ]
}

async fn of_seed(db: &Database, seed: u32) -> u64 {
    let theirs = users::Column::Email.ends_with(format!("@load-{seed}.example.org"));
    users::Entity::find()
        .filter(theirs)
        .count(&db.seaorm().reader().await.expect("open"))
        .await
        .expect("a count")
}

async fn integrity(reader: &DatabaseConnection, backend: Backend) -> String {
    if backend == Backend::Postgres {
        return "ok".to_owned();
    }
    let pragma = Statement::from_string(reader.get_database_backend(), "PRAGMA integrity_check");
    let row = reader
        .query_one_raw(pragma)
        .await
        .expect("it opens")
        .expect("an answer");
    row.try_get_by_index(0).expect("text")
}

async fn a_killed_load_leaves_all_of_it_or_nothing(test: TestDb) {
    let kills = match asked("AURA_KILLS").as_deref() {
        Some("all") => 200,
        Some(number) => number.parse().expect("AURA_KILLS is a number or `all`"),
        None => 8,
    };
    let whole = load(&test, 1_000_000).end();
    assert!(whole.status.success() && was_written(&whole), "{whole:?}");

    let (mut complete, mut inside) = (1, 0);
    for seed in 0..kills {
        let running = load(&test, seed);
        // The first quarter is the way to the transaction.
        tokio::time::sleep(whole.took.mul_f64(0.25 + 0.7 * moment(seed))).await;
        let killed = running.kill();

        let db = Database::connect(test.config()).await.expect("it opens");
        assert_eq!(
            integrity(&db.seaorm().reader().await.expect("open"), test.backend()).await,
            "ok"
        );
        // A server notices a dead client at its next message.
        let there = match of_seed(&db, seed).await {
            0 if was_written(&killed) => panic!("seed {seed} said that it was written"),
            there => there,
        };
        assert!(there == 0 || there == USERS, "{there} users of seed {seed}");
        complete += there / USERS;
        inside += u64::from(there == 0 && killed.stderr.contains("users:"));
        db.close().await;
    }
    let again = load(&test, kills).end();
    assert!(was_written(&again), "{again:?}");
    complete += 1;

    let db = Database::connect(test.config()).await.expect("it opens");
    // What a killed client had sent whole may be committed after the look at it.
    let mut late = 0;
    for seed in 0..kills {
        late += of_seed(&db, seed).await / USERS;
    }
    complete = complete.max(late + 2);
    assert_eq!(
        rows(&db).await,
        [complete * USERS, complete * WORKFLOWS, complete * LOGS]
    );
    db.close().await;
    println!(
        "{:?}: {kills} kills, {inside} of them inside the transaction",
        test.backend()
    );
    assert!(
        inside * 2 >= u64::from(kills),
        "only {inside} of {kills} kills hit the transaction"
    );
}

testdb::both!(migrated: a_killed_load_leaves_all_of_it_or_nothing);
