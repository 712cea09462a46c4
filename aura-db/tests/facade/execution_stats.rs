//! The numbers against a naive count of the same rows.

use std::collections::BTreeMap;
use std::time::Duration;

use aura_db::entity::executions;
use aura_db::executions::ExecutionDay;
use aura_db::sea_orm::ActiveValue::Set;
use aura_db::sea_orm::prelude::DateTimeUtc;
use aura_db::sea_orm::{EntityTrait, QueryTrait};
use aura_db::{
    Database, ExecutionFilter, ExecutionMode, ExecutionStats, ExecutionStatus, WorkflowId,
};
use chrono::{NaiveDate, TimeDelta};
use testdb::TestDb;

use crate::executions::flow;
use crate::support::{open, refused};

testdb::both!(migrated: of_nothing, as_a_naive_count, nearest_rank, at_midnight, bad_filter);

type Row = (
    ExecutionStatus,
    DateTimeUtc,
    Option<(DateTimeUtc, DateTimeUtc)>,
);

async fn insert(db: &Database, flow: WorkflowId, rows: &[Row]) {
    let rows = rows
        .iter()
        .map(|(status, created, times)| executions::ActiveModel {
            workflow_id: Set(flow),
            workflow_version: Set(1),
            mode: Set(ExecutionMode::Manual),
            status: Set(*status),
            created_at: Set(*created),
            started_at: Set(times.map(|(start, _)| start)),
            finished_at: Set(times.map(|(_, end)| end)),
            ..Default::default()
        });
    let insert = executions::Entity::insert_many(rows).into_query();
    db.execute(insert).await.expect("rows");
}

fn naive(
    rows: &[Row],
) -> (
    u64,
    Option<Duration>,
    Option<Duration>,
    BTreeMap<NaiveDate, [u64; 3]>,
) {
    let mut took: Vec<_> = rows
        .iter()
        .filter_map(|(_, _, times)| {
            times.map(|(start, end)| (end - start).to_std().expect("forward"))
        })
        .collect();
    took.sort();
    let n = took.len();
    let average = took
        .iter()
        .sum::<Duration>()
        .as_micros()
        .checked_div(n as u128);
    let p95 = n.checked_sub(1).map(|_| took[(95 * n).div_ceil(100) - 1]);
    let mut days: BTreeMap<_, [u64; 3]> = BTreeMap::new();
    for (status, created, _) in rows {
        let day = days.entry(created.date_naive()).or_default();
        day[0] += 1;
        day[1] += u64::from(*status == ExecutionStatus::Success);
        day[2] += u64::from(*status == ExecutionStatus::Error);
    }
    let average =
        average.map(|micros| Duration::from_micros(u64::try_from(micros).expect("small")));
    (rows.len() as u64, average, p95, days)
}

fn assert_same(stats: &ExecutionStats, rows: &[Row]) {
    let (total, average, p95, days) = naive(rows);
    assert_eq!(
        (stats.total, stats.average, stats.p95),
        (total, average, p95)
    );
    let told = stats
        .per_day
        .iter()
        .map(|day: &ExecutionDay| (day.day, [day.total, day.success, day.error]));
    assert_eq!(
        told.collect::<Vec<_>>(),
        days.into_iter().collect::<Vec<_>>()
    );
    for (status, count) in &stats.by_status {
        assert_eq!(
            *count,
            rows.iter().filter(|row| row.0 == *status).count() as u64
        );
    }
    assert_eq!(
        stats.by_status.iter().map(|(_, count)| count).sum::<u64>(),
        total
    );
}

async fn of_nothing(db: TestDb) {
    let db = open(&db).await;
    let stats = db
        .executions()
        .stats(ExecutionFilter::new())
        .await
        .expect("numbers");
    assert_eq!(stats, ExecutionStats::default());
}

async fn as_a_naive_count(db: TestDb) {
    let db = open(&db).await;
    let (one, two) = (flow(&db, "ada").await, flow(&db, "bob").await);
    let start = DateTimeUtc::UNIX_EPOCH + TimeDelta::days(20_453);
    // Like random, and the same every time; fractions of 0, 3 and 6 digits.
    let statuses = [
        ExecutionStatus::Success,
        ExecutionStatus::Error,
        ExecutionStatus::Canceled,
        ExecutionStatus::Running,
        ExecutionStatus::Queued,
        ExecutionStatus::Success,
    ];
    let mut rows = Vec::new();
    let mut number: i64 = 88_172_645_463_325_252;
    for index in 0..300 {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let some = |most: i64| (number >> 20).rem_euclid(most);
        let grain = [1, 1_000, 1_000_000][index % 3];
        let created = start + TimeDelta::microseconds(some(5 * 86_400_000_000) / grain * grain);
        let status = statuses[index % statuses.len()];
        let begun = created + TimeDelta::microseconds(some(90_000_001) / grain * grain);
        let ended = begun + TimeDelta::microseconds(some(7_200_000_000));
        let times = (index % 6 < 3).then_some((begun, ended));
        rows.push((status, created, times));
    }
    insert(&db, one, &rows[..200]).await;
    insert(&db, two, &rows[200..]).await;
    let stats = db
        .executions()
        .stats(ExecutionFilter::new())
        .await
        .expect("numbers");
    assert_same(&stats, &rows);
    let stats = db
        .executions()
        .stats(ExecutionFilter::workflow(two))
        .await
        .expect("numbers");
    assert_same(&stats, &rows[200..]);
    let filter = ExecutionFilter::new().status(ExecutionStatus::Error);
    let stats = db.executions().stats(filter).await.expect("numbers");
    let errors: Vec<_> = rows
        .iter()
        .filter(|row| row.0 == ExecutionStatus::Error)
        .copied()
        .collect();
    assert_same(&stats, &errors);
}

async fn nearest_rank(db: TestDb) {
    let db = open(&db).await;
    let start = DateTimeUtc::UNIX_EPOCH + TimeDelta::days(20_000);
    for count in [1, 2, 19, 20, 21, 100, 101_i64] {
        let flow = flow(&db, &format!("user{count}")).await;
        let rows: Vec<_> = (1..=count)
            .rev()
            .map(|n| {
                (
                    ExecutionStatus::Success,
                    start,
                    Some((start, start + TimeDelta::microseconds(n))),
                )
            })
            .collect();
        insert(&db, flow, &rows).await;
        let stats = db
            .executions()
            .stats(ExecutionFilter::workflow(flow))
            .await
            .expect("numbers");
        let rank = u64::try_from((95 * count + 99) / 100).expect("positive");
        assert_eq!(stats.p95, Some(Duration::from_micros(rank)), "of {count}");
        assert_same(&stats, &rows);
    }
}

async fn at_midnight(db: TestDb) {
    let db = open(&db).await;
    let flow = flow(&db, "ada").await;
    let midnight = DateTimeUtc::UNIX_EPOCH + TimeDelta::days(20_000);
    let before = midnight - TimeDelta::microseconds(1);
    let rows = [
        (ExecutionStatus::Success, before, Some((before, midnight))),
        (ExecutionStatus::Error, midnight, Some((midnight, midnight))),
        (
            ExecutionStatus::Queued,
            midnight + TimeDelta::microseconds(1),
            None,
        ),
    ];
    insert(&db, flow, &rows).await;
    let stats = db
        .executions()
        .stats(ExecutionFilter::new())
        .await
        .expect("numbers");
    assert_eq!(stats.per_day.len(), 2);
    assert_same(&stats, &rows);
    let filter = ExecutionFilter::new().until(midnight);
    assert_eq!(
        db.executions().stats(filter).await.expect("numbers").total,
        1
    );
}

async fn bad_filter(db: TestDb) {
    let db = open(&db).await;
    let filter = ExecutionFilter::new().worker("w".repeat(65));
    assert_eq!(refused(db.executions().stats(filter).await), ["worker"]);
}
