//! Logins: many at once neither fill the memory nor keep others from their answers.
//! (That refusals take the same time is counted in `aura-db` `secrets`, and measured
//! by the example `refusals`.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aura_db::sessions::Issued;
use aura_db::{Database, Error, NewUser, SessionRequest};
use testdb::TestDb;
use testdb::process::asked;

testdb::both!(migrated: many_at_once);

const PASSWORD: &str = "correct horse battery";

async fn open(test: &TestDb) -> Database {
    let db = Database::connect(test.config()).await;
    db.expect("it connects")
}

async fn create(db: &Database, name: &str) -> aura_db::UserId {
    let user = NewUser::new(name, format!("{name}@example.org"), PASSWORD);
    db.users().create(user).await.expect("created").id
}

/// The most memory that the process has had, in MiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    kib.expect("a number").parse::<u64>().expect("a number") >> 10
}

async fn login(db: Database) -> Result<Issued, Error> {
    loop {
        let request = SessionRequest::default();
        match db.login("ada@example.org", PASSWORD, request).await {
            // It has waited for as long as one does.
            Err(Error::Busy { .. }) => {}
            done => return done,
        }
    }
}

async fn many_at_once(test: TestDb) {
    /// Four hashes at once of 19 MiB each, and as much for everything else.
    /// Without a limit it would be 1,140 MiB.
    const MEMORY: u64 = 152;
    let many = if asked("AURA_TORTURE").is_some() {
        500
    } else {
        60
    };
    let db = open(&test).await;
    create(&db, "ada").await;
    let token = login(db.clone()).await.expect("a session").token;
    // The pool's connections are there before the rush.
    let warm: Vec<_> = (0..20)
        .map(|_| {
            let (db, token) = (db.clone(), token.clone());
            tokio::spawn(async move { db.sessions().authenticate(&token).await })
        })
        .collect();
    for one in warm {
        one.await.expect("no panic").expect("an answer");
    }
    let done = Arc::new(AtomicBool::new(false));
    let others = tokio::spawn({
        let (db, done) = (db.clone(), done.clone());
        async move {
            let (mut answered, mut slowest) = (0, Duration::ZERO);
            while !done.load(Ordering::Relaxed) {
                let started = Instant::now();
                let who = db.sessions().authenticate(&token).await;
                assert!(who.expect("an answer").is_some());
                slowest = slowest.max(started.elapsed());
                answered += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (answered, slowest)
        }
    });
    let before = peak_memory();
    let started = Instant::now();
    let logins: Vec<_> = (0..many).map(|_| tokio::spawn(login(db.clone()))).collect();
    for login in logins {
        login.await.expect("no panic").expect("a session");
    }
    let took = started.elapsed();
    done.store(true, Ordering::Relaxed);
    let (answered, slowest) = others.await.expect("no panic");
    let grown = peak_memory() - before;
    println!(
        "{many} logins at once: {took:?} and {grown} MiB; {answered} others answered meanwhile, \
         the slowest after {slowest:?}"
    );
    assert!(grown < MEMORY, "{grown} MiB for {many} logins");
    assert!(answered > many / 2, "{answered} others were answered");
    db.close().await;
}
