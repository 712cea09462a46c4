//! A clock that is set forward and back by a day, and sessions of the database
//! in other time zones.

use std::collections::BTreeSet;
use std::time::Duration;

use aura_db::entity::sessions;
use aura_db::sea_orm::{ConnectionTrait, EntityTrait};
use aura_db::sessions::Issued;
use aura_db::{
    Database, LogFilter, LogLevel, NewLog, NewWorkflow, PageRequest, SessionRequest, UserId,
};
use chrono::TimeDelta;
use testdb::TestDb;

use crate::people::opens;
use crate::support::{open_at, user};

testdb::both!(migrated: what_has_ended_stays_ended, seen_tomorrow, entries_keep_their_order);
testdb::postgres!(migrated: the_servers_time_zone_is_no_matter);

const DAY: TimeDelta = TimeDelta::days(1);

async fn issue(db: &Database, user: UserId, hours: u64) -> Issued {
    let request = SessionRequest {
        lifetime: Duration::from_hours(hours),
        ..SessionRequest::default()
    };
    db.sessions().issue(user, request).await.expect("a session")
}

/// The steps of a clock that somebody sets wrong and right again, with an hour
/// between them.
fn steps() -> impl Iterator<Item = TimeDelta> {
    let jumps = [DAY, -DAY, -DAY, DAY, DAY, DAY, -DAY, -DAY, DAY, -DAY];
    (0..3)
        .flat_map(move |_| jumps)
        .flat_map(|jump| [jump, TimeDelta::hours(1)])
}

async fn what_has_ended_stays_ended(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let ada = user(&db, "ada").await.id;
    let mut issued = Vec::new();
    for hours in [1, 2, 5, 23, 24, 25, 30, 47, 72, 500, 1_000] {
        issued.push(issue(&db, ada, hours).await);
    }
    let mut ended = BTreeSet::new();
    let mut set_back = 0;
    for (nth, step) in steps().enumerate() {
        clock.set(db.now() + step);
        let sessions = db.sessions();
        if nth == 20 {
            let last = issued.last().expect("one").session.id;
            assert!(sessions.revoke(last).await.expect("revoked"));
            ended.insert(last);
        }
        for one in &issued {
            let id = one.session.id;
            let by_clock = db.now() < one.session.expires_at;
            let over = ended.contains(&id);
            set_back += u32::from(over && by_clock);
            assert_eq!(opens(&db, one).await, by_clock && !over, "{id} at {nth}");
            if over {
                let rotated = sessions.rotate(&one.token).await.expect("an answer");
                assert!(rotated.is_none(), "{id} at {nth}");
            }
            if !by_clock {
                ended.insert(id);
            }
        }
    }
    assert_eq!(
        ended.len(),
        issued.len() - 1,
        "one lives on, and the last was revoked"
    );
    assert!(
        set_back > 20,
        "the clock stood before an end only {set_back} times"
    );
    let left = sessions::Entity::find()
        .all(&db.seaorm().reader().await.expect("open"))
        .await;
    let left = left.expect("rows");
    assert_eq!(left.len(), 1, "what has ended is not kept");
}

/// Nobody knows how long ago that was.
async fn seen_tomorrow(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let ada = user(&db, "ada").await.id;
    let issued = issue(&db, ada, 240).await;
    let seen = issued.session.last_seen_at;
    let within = async |idle| {
        let who = db.sessions().authenticate_within(&issued.token, idle).await;
        who.expect("an answer").is_some()
    };
    let hour = Duration::from_hours(1);
    clock.set(seen - hour);
    assert!(within(hour).await, "clocks of two machines differ");
    clock.set(seen - DAY);
    assert!(!within(hour).await);
    assert!(within(hour * 24).await && within(Duration::MAX).await);
    assert!(opens(&db, &issued).await);
}

async fn entries_keep_their_order(test: TestDb) {
    let (db, clock) = open_at(&test).await;
    let ada = user(&db, "ada").await.id;
    let flow = db
        .workflows()
        .create(NewWorkflow::new("w").owner(ada))
        .await;
    let flow = flow.expect("created").id;
    let mut written = Vec::new();
    for step in steps() {
        clock.set(db.now() + step);
        let entry = || NewLog::new(flow, LogLevel::Info, "here");
        written.push(db.logs().append(entry()).await.expect("written").id);
    }
    assert!(written.is_sorted());
    let mut read = Vec::new();
    let mut page = PageRequest::first(7);
    loop {
        let list = db
            .logs()
            .list(LogFilter::new(), page)
            .await
            .expect("a page");
        read.extend(list.items.iter().map(|log| log.id));
        match list.next {
            Some(next) => page = PageRequest::after(next, 7),
            None => break,
        }
    }
    read.reverse();
    assert_eq!(
        read, written,
        "newest first is by id, whatever the clock said"
    );
}

async fn the_servers_time_zone_is_no_matter(test: TestDb) {
    let mut config = test.plain_config();
    config.pool.max = 1;
    let db = Database::connect(config).await.expect("it connects");
    let ada = user(&db, "ada").await.id;
    let mut issued = Vec::new();
    for zone in ["Pacific/Kiritimati", "Etc/GMT+12", "Asia/Kathmandu", "UTC"] {
        // The one connection there is.
        let set = format!("SET TIME ZONE '{zone}'");
        db.seaorm()
            .writer()
            .await
            .expect("open")
            .execute_unprepared(&set)
            .await
            .expect("set");
        let one = issue(&db, ada, 1).await;
        let ended = SessionRequest {
            lifetime: Duration::from_micros(1),
            ..SessionRequest::default()
        };
        let ended = db.sessions().issue(ada, ended).await.expect("a session");
        assert!(!opens(&db, &ended).await, "{zone}");
        issued.push(one);
        for one in &issued {
            let who = db.sessions().authenticate(&one.token).await;
            let who = who.expect("an answer").expect("it is valid");
            assert_eq!(who.session, one.session, "{zone}");
        }
    }
}
