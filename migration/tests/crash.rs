//! A process that is killed in the middle of `up` leaves the old schema or the
//! new one, and the next one goes on as if nothing had happened.
//!
//! `AURA_KILLS` says how often: on SQLite at so many of the system calls that
//! write (60 when unset, every one for `all`), on PostgreSQL at so many
//! moments (12 when unset, 200 for `all`).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use migration::{Plan, State};
use testdb::process::{Ended, Running, asked, command, moment};
use testdb::{Backend, TestDb};

const TOOL: &str = env!("CARGO_BIN_EXE_migration");

/// Everything with which SQLite changes what is on the disk.
const WRITES: &str = "openat,pwrite64,write,fsync,fdatasync,ftruncate,fallocate,unlink,rename";

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_survives_a_kill_at_every_write() {
    let points = write_points().await;
    let wanted = match asked("AURA_KILLS").as_deref() {
        None => 60,
        Some("all") => points.len(),
        Some(number) => number.parse().expect("a number or `all`"),
    };
    let wanted = wanted.min(points.len());
    let mut states = BTreeMap::new();
    let mut missed = 0;
    for kill in 1..=wanted {
        let point = &points[kill * points.len() / wanted - 1];
        let mut state = None;
        for _ in 0..10 {
            state = killed_at(point).await;
            if state.is_some() {
                break;
            }
        }
        match state {
            Some(state) => *states.entry(format!("{state:?}")).or_insert(0) += 1,
            None => missed += 1,
        }
    }
    println!(
        "killed at {} of {} writes, which left {states:?}",
        wanted - missed,
        points.len()
    );
    // Which thread makes a call differs from run to run, and strace counts the
    // calls of each thread, so now and then a point is not reached in ten runs.
    assert!(
        missed * 10 <= wanted,
        "{missed} of {wanted} were not killed"
    );
    assert_eq!(states.len(), 2, "both schemas were seen");
}

/// The longer names first: they contain the shorter one.
const FILES: [&str; 4] = ["aura.db-journal", "aura.db-wal", "aura.db-shm", "aura.db"];

/// A system call to die at.
#[derive(Debug)]
struct Point {
    call: String,
    /// On this file; on whatever it is when there is none.
    file: Option<&'static str>,
    /// The how manyth of these calls on that file.
    number: usize,
}

/// Where an undisturbed run writes.
async fn write_points() -> Vec<Point> {
    let db = TestDb::empty(Backend::Sqlite).await;
    let trace = db.folder().join("trace");
    let mut strace = traced(
        &db,
        &["-y", "-o", &text(&trace), "-e", &format!("trace={WRITES}")],
    );
    let ended = Running::start(&mut strace).end();
    assert!(ended.status.success(), "{ended:?}");

    // strace counts the calls of each thread on its own, and the first thread
    // to get so far is the one that dies. The few calls that are out of reach
    // this way stand beside others that leave the same files.
    let mut counts: BTreeMap<(String, &str, String), usize> = BTreeMap::new();
    let mut points: Vec<Point> = Vec::new();
    for line in std::fs::read_to_string(&trace).expect("a trace").lines() {
        let call = line.split_once('(').and_then(|(start, rest)| {
            let (thread, call) = start.split_once(' ')?;
            let file = FILES.iter().find(|file| rest.contains(**file))?;
            Some((call.trim().to_owned(), *file, thread.to_owned()))
        });
        let Some(key) = call else { continue };
        let number = counts.entry(key.clone()).or_insert(0);
        *number += 1;
        let (call, file, _) = key;
        let known = |point: &Point| {
            point.call == call && point.file == Some(file) && point.number == *number
        };
        if !points.iter().any(known) {
            points.push(Point {
                call,
                file: Some(file),
                number: *number,
            });
        }
    }
    // When it has said that it is done.
    points.push(Point {
        call: "exit_group".to_owned(),
        file: None,
        number: 1,
    });
    assert!(points.len() > 80, "{points:?}");
    points
}

/// Kills a run there, proves that no harm was done, and gives what it left;
/// nothing when the run went on to its end without getting there.
async fn killed_at(point: &Point) -> Option<State> {
    let db = TestDb::empty(Backend::Sqlite).await;
    let Point { call, file, number } = point;
    let inject = format!("inject={call}:signal=KILL:when={number}");
    let mut options = vec!["-o", "/dev/null", "-e", &inject];
    let file = file.map(|file| text(&db.folder().join(file)));
    if let Some(file) = &file {
        options.extend(["-P", file]);
    }
    let mut strace = traced(&db, &options);
    let ended = Running::start(&mut strace).end();
    let killed = ended.status.code().is_none();
    assert!(killed || ended.status.success(), "{point:?}: {ended:?}");
    for entry in std::fs::read_dir(db.folder()).expect("the folder") {
        let entry = entry.expect("an entry");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &entry.metadata().expect("there").permissions(),
        );
        let ours = entry.file_name().to_string_lossy().starts_with("aura.db");
        assert!(
            !ours || mode & 0o777 == 0o600,
            "{point:?}: {entry:?} {mode:o}"
        );
    }
    // A look comes first, and must cope with what is there.
    let status = db.tool(TOOL, &["status"], &[]);
    assert!(status.status.success(), "{point:?}: {status:?}");
    let found = db
        .lines("SELECT integrity_check AS line FROM pragma_integrity_check")
        .await;
    assert_eq!(found, ["ok"], "{point:?}");
    let state = goes_on(&db, &ended, &format!("{point:?}")).await;
    killed.then_some(state)
}

testdb::both!(migrated: a_full_disk_changes_nothing);

/// No space is left for the COMMIT.
async fn a_full_disk_changes_nothing(db: TestDb) {
    let runner = migration::runner();
    // Down to a step in a transaction.
    let down = runner.run(&db.config(), Plan::Down(2), |_| {}).await;
    down.expect("reversed");
    let before = db.dump(&runner.tables()).await;
    let (ended, disk) = match db.backend() {
        Backend::Sqlite => {
            let wal = text(&db.folder().join("aura.db-wal"));
            let inject = "inject=pwrite64:error=ENOSPC:when=1+";
            let mut strace = traced(&db, &["-o", "/dev/null", "-e", inject, "-P", &wal]);
            (Running::start(&mut strace).end(), "the disk is full")
        }
        Backend::Postgres => {
            db.execute(&format!(
                "CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS \
                 'BEGIN RAISE EXCEPTION ''no space'' USING ERRCODE = ''53100''; END'; \
                 CREATE CONSTRAINT TRIGGER no_space AFTER INSERT ON {} \
                     DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION no_space()",
                migration::HISTORY
            ))
            .await;
            (db.tool(TOOL, &["up"], &[]), "the server's disk is full")
        }
    };
    assert!(!ended.status.success(), "{ended:?}");
    let said = format!("the database refused to commit the run, because {disk} (free space ");
    let left = "), and rolled it back; nothing was changed";
    assert!(ended.stderr.contains(&said), "{ended:?}");
    assert!(ended.stderr.contains(left), "{ended:?}");
    assert_eq!(db.dump(&runner.tables()).await, before);
    if db.backend() == Backend::Postgres {
        db.execute("DROP FUNCTION no_space CASCADE").await;
    }
    let ended = db.tool(TOOL, &["up"], &[]);
    assert!(ended.status.success(), "{ended:?}");
}

fn traced(db: &TestDb, options: &[&str]) -> std::process::Command {
    let mut strace = command("strace", &db.work(), &db.variables());
    strace.args(["-f", "-qq"]).args(options).args([TOOL, "up"]);
    strace
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_survives_a_kill_at_any_moment() {
    let kills = match asked("AURA_KILLS").as_deref() {
        None => 12,
        Some("all") => 200,
        Some(number) => number.parse().expect("a number or `all`"),
    };
    let db = TestDb::empty(Backend::Postgres).await;
    let step = up(&db) / lines();
    let mut states = BTreeMap::new();
    let mut inside = 0;
    for kill in 0..kills {
        let reset = migration::runner()
            .run(&db.config(), Plan::Reset, |_| {})
            .await;
        reset.expect("a clean start");

        // The line that it has just told tells how far it has come, and the
        // fraction how far on to the next one.
        let when = moment(kill) * f64::from(lines());
        let mut running = start(&db);
        for line in 0..lines() {
            if f64::from(line) <= when {
                assert!(running.hears("applied"), "line {line}");
            }
        }
        std::thread::sleep(step.mul_f64(when.fract()));
        let ended = running.kill();
        the_server_noticed(&db).await;
        let state = goes_on(&db, &ended, &format!("kill {kill}")).await;
        if state == State::Empty {
            // It had told of a step that is not there.
            inside += 1;
        }
        *states.entry(format!("{state:?}")).or_insert(0) += 1;
    }
    println!(
        "killed at {kills} moments, {inside} of them inside the transaction, which left {states:?}"
    );
    assert!(inside * 2 >= kills, "only {inside} of {kills} were inside");
}

/// What a run says: its steps, and that it is done.
fn lines() -> u32 {
    testdb::steps_since("users")
}

fn start(db: &TestDb) -> Running {
    Running::start(command(TOOL, &db.work(), &db.variables()).arg("up"))
}

/// How long an undisturbed run takes from its first line to its last.
fn up(db: &TestDb) -> Duration {
    let mut running = start(db);
    assert!(running.hears("applied"), "the first step");
    let first = Instant::now();
    assert!(running.hears(&testdb::all_applied()), "the end");
    let length = first.elapsed();
    assert!(running.end().status.success());
    length
}

/// Waits until nobody else is connected: what the killed process had sent is
/// still carried out.
async fn the_server_noticed(db: &TestDb) {
    let others = "SELECT pid::text AS line FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let started = Instant::now();
    while !db.lines(others).await.is_empty() {
        assert!(
            started.elapsed() < Duration::from_mins(1),
            "the server still works for the dead"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The schema is the old one or the new one, the new one if the process had
/// said so, and running again ends well. Gives what was found first.
async fn goes_on(db: &TestDb, killed: &Ended, when: &str) -> State {
    let outside = db.outside().await;
    let state = migration::state(&outside).await.expect("a state");
    outside.close().await.expect("it closes");
    assert!(
        matches!(state, State::Empty | State::Current),
        "{when}: {state:?}"
    );
    if killed.stdout.contains(&testdb::all_applied()) {
        assert_eq!(state, State::Current, "{when}: it had said so");
    }
    let ended = db.tool(TOOL, &["up"], &[]);
    assert_eq!(ended.status.code(), Some(0), "{when}: {ended:?}");
    let outside = db.outside().await;
    let differences = migration::check(&outside).await.expect("a check");
    assert_eq!(differences, [], "{when}");
    outside.close().await.expect("it closes");
    state
}
