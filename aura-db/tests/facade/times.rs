//! Times as they are stored: what means the same is found as the same.

use std::sync::Arc;
use std::time::Duration;

use aura_db::entity::users;
use aura_db::sea_orm::{EntityTrait, QueryFilter, QueryTrait, Set};
use aura_db::testing::TestClock;
use aura_db::{Config, Database, NewUser, PageRequest, Role, UserFilter, UserSort, password};
use testdb::{Backend, TestDb};

use crate::support::{PASSWORD, open, user};

testdb::both!(migrated: a_walk_by_times_of_every_form, times_are_equal_however_written);

/// A list by time has each row once, whatever wrote the times: on SQLite they are
/// text, which other programs and the columns' defaults write with fewer digits.
async fn a_walk_by_times_of_every_form(test: TestDb) {
    let db = open(&test).await;
    let fractions = ["", ".000", ".000000", ".123", ".123000", ".123456", ".5"];
    for (nth, fraction) in fractions.iter().enumerate() {
        let id = user(&db, &format!("p{nth}")).await.id;
        let time = format!("2026-01-31T12:00:00{fraction}+00:00");
        test.execute(&format!(
            "UPDATE users SET created_at = '{time}' WHERE id = {id}"
        ))
        .await;
    }
    for descending in [false, true] {
        let filter = UserFilter::new().sort(UserSort::CreatedAt);
        let filter = if descending {
            filter.descending()
        } else {
            filter
        };
        let (mut met, mut page) = (Vec::new(), PageRequest::first(1));
        loop {
            let list = db.users().list(filter.clone(), page).await.expect("a page");
            met.extend(
                list.items
                    .into_iter()
                    .map(|user| (user.created_at, user.id)),
            );
            assert!(met.len() <= fractions.len(), "it repeats: {met:?}");
            let Some(next) = list.next else { break };
            page = PageRequest::after(next, 1);
        }
        let mut times: Vec<_> = met.iter().map(|(time, _)| *time).collect();
        if descending {
            times.reverse();
        }
        assert!(times.is_sorted(), "{met:?}");
        met.sort_by_key(|(_, id)| *id);
        met.dedup();
        assert_eq!(met.len(), fractions.len());
    }
    db.close().await;
}

/// Written by a repository, by a statement of one's own, in bulk, in and out of a
/// transaction, at a whole second and between.
async fn times_are_equal_however_written(test: TestDb) {
    let opened = Database::connect(test.plain_config()).await;
    written_alike(opened.expect("it connects")).await;
    if test.backend() == Backend::Sqlite {
        let lengths = "SELECT DISTINCT CAST(length(created_at) AS text) || ' ' || \
             CAST(length(updated_at) AS text) AS line FROM users";
        assert_eq!(test.lines(lengths).await, ["32 32"]);
        let memory = Database::connect(Config::memory()).await;
        written_alike(memory.expect("it connects")).await;
    }
}

async fn written_alike(db: Database) {
    let clock = TestClock::default();
    let db = db.with_clock(Arc::new(clock.clone()));
    for nth in 0..3 {
        let now = db.now();
        let row = |name: &str| users::ActiveModel {
            name: Set(name.to_owned()),
            email: Set(format!("{name}{nth}@example.org")),
            hashed_password: Set(password::unusable()),
            role: Set(Role::User),
            is_active: Set(true),
            created_at: Set(now),
            updated_at: Set(now),
            ..Default::default()
        };
        let new = |name: &str| NewUser::new(name, format!("{name}{nth}@example.org"), PASSWORD);
        db.users().create(new("a")).await.expect("created");
        db.execute(users::Entity::insert(row("b")).into_query())
            .await
            .expect("inserted");
        let at_this_time = || users::Entity::find().filter(users::COLUMN.created_at.eq(now));
        let inside = db
            .transaction(|tx| {
                let (new, row) = (new("c"), row("d"));
                async move {
                    tx.users().create(new.clone()).await?;
                    tx.execute(users::Entity::insert(row.clone()).into_query())
                        .await?;
                    tx.fetch_all(at_this_time()).await
                }
            })
            .await;
        assert_eq!(inside.expect("done").len(), 4, "at {now}");
        let outside = db.fetch_all(at_this_time()).await;
        assert_eq!(outside.expect("rows").len(), 4, "at {now}");
        // A second, a millisecond, a microsecond.
        clock.advance(Duration::from_micros([1_000, 1, 0][nth]));
    }
    db.close().await;
}
