//! Lists and streams of an application's own entity, in any order.

use aura_db::sea_orm::entity::prelude::*;
use aura_db::sea_orm::{ActiveValue::Set, DbBackend, IntoActiveModel, QuerySelect};
use aura_db::{Cursor, Database, Error, PageRequest, Repository, RepositoryEntity, Sort};
use chrono::{DateTime, NaiveDate, Utc};
use futures_util::{StreamExt, TryStreamExt};
use testdb::TestDb;

use crate::support::{assert_error, open, own_types, refused};

testdb::both!(migrated:
    every_order_is_walked_in_both_directions,
    nulls_come_last,
    pages_have_ends,
    numbered_pages,
    a_cursor_is_for_one_order,
    what_has_no_order_is_refused,
    a_key_of_two_columns_is_an_order,
    a_stream_has_every_row_once,
);

mod sample {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "samples")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub(super) id: i64,
        pub(super) name: String,
        pub(super) note: Option<String>,
        pub(super) number: Option<i32>,
        pub(super) ratio: f64,
        pub(super) is_open: bool,
        pub(super) day: Option<NaiveDate>,
        pub(super) at: DateTime<Utc>,
        pub(super) until: Option<DateTime<Utc>>,
        #[sea_orm(column_type = "JsonBinary", nullable)]
        pub(super) json: Option<Json>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl RepositoryEntity for sample::Entity {}

mod cell {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "cells")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(super) sheet: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(super) place: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl RepositoryEntity for cell::Entity {}

type Samples = Repository<sample::Entity>;

async fn with_samples(test: &TestDb) -> (Database, Samples) {
    let db = open(test).await;
    let postgres = db.backend() == DbBackend::Postgres;
    let (key, time) = own_types(&db);
    let (date, json, double) = if postgres {
        ("date", "jsonb", "double precision")
    } else {
        ("text", "text", "real")
    };
    let word = if postgres {
        "text COLLATE \"C\""
    } else {
        "text"
    };
    test.execute(&format!(
        "CREATE TABLE samples (id {key}, name {word} NOT NULL, note {word}, number integer,
         ratio {double} NOT NULL, is_open boolean NOT NULL, day {date}, at {time} NOT NULL,
         until {time}, json {json})"
    ))
    .await;
    test.execute(&format!(
        "CREATE TABLE cells (sheet {word} NOT NULL, place bigint NOT NULL,
         PRIMARY KEY (sheet, place))"
    ))
    .await;
    let samples = db.repository::<sample::Entity>();
    (db, samples)
}

/// Twenty-four rows, many of which are the same in some columns, or NULL.
async fn fill(samples: &Samples) -> Vec<sample::Model> {
    let mut rows = Vec::new();
    let time = |hours: i64| DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(hours);
    for index in 0..24_i64 {
        let some = |every: i64| (index % every != 0).then_some(index % every);
        let row = sample::ActiveModel {
            name: Set(["é", "b", "B", "a"][usize::try_from(index % 4).expect("small")].to_owned()),
            note: Set(some(3).map(|number| format!("note {number}"))),
            number: Set(some(5).map(|number| i32::try_from(number).expect("small") - 2)),
            #[expect(clippy::cast_precision_loss, reason = "small")]
            ratio: Set((index % 7) as f64 / 3.0),
            is_open: Set(index % 2 == 0),
            day: Set(some(4).map(|day| time(day * 24).date_naive())),
            at: Set(time(index % 6)),
            until: Set(some(2).map(|_| time(index % 8))),
            json: Set(None),
            ..Default::default()
        };
        rows.push(samples.insert(row).await.expect("inserted"));
    }
    rows
}

/// Walks through a list forwards, and back from its end.
async fn walk(samples: &Samples, sort: &Sort<sample::Entity>, size: u64) -> [Vec<i64>; 2] {
    let mut forwards = Vec::new();
    let mut request = PageRequest::first(size);
    let mut last = loop {
        let page = samples.list((), sort, request).await.expect("a page");
        forwards.extend(page.items.iter().map(|row| row.id));
        match page.next.clone() {
            Some(next) => request = PageRequest::after(next, size),
            None => break page,
        }
    };
    let mut backwards: Vec<i64> = last.items.iter().map(|row| row.id).collect();
    while let Some(previous) = last.previous.take() {
        let request = PageRequest::before(previous, size);
        last = samples.list((), sort, request).await.expect("a page");
        let ids = last.items.iter().map(|row| row.id);
        backwards = ids.chain(backwards).collect();
    }
    [forwards, backwards]
}

async fn every_order_is_walked_in_both_directions(test: TestDb) {
    use sample::Column::{At, Day, Id, IsOpen, Name, Note, Number, Ratio, Until};
    let (_, samples) = with_samples(&test).await;
    let rows = fill(&samples).await;
    let orders = [
        Sort::default(),
        Sort::desc(Id),
        Sort::asc(Name),
        Sort::desc(Note),
        Sort::asc(Number),
        Sort::desc(Ratio),
        Sort::asc(IsOpen),
        Sort::asc(Day),
        Sort::desc(At),
        Sort::asc(Until),
        Sort::asc(Name).then_desc(At),
        Sort::desc(Note).then_asc(Number).then_desc(Name),
        Sort::asc(Until).then_desc(Day).then_asc(At),
        Sort::desc(IsOpen).then_desc(Ratio),
        Sort::asc(Number).then_asc(Id),
    ];
    for sort in orders {
        let whole = samples
            .list((), &sort, PageRequest::first(1_000))
            .await
            .expect("a page");
        assert_eq!(whole.items.len(), rows.len());
        let expected: Vec<i64> = whole.items.iter().map(|row| row.id).collect();
        let reversed = samples
            .list((), &sort.clone().reverse(), PageRequest::first(1_000))
            .await
            .expect("a page");
        assert_eq!(reversed.items.len(), rows.len());
        for size in [1, 5, 24] {
            let [forwards, backwards] = walk(&samples, &sort, size).await;
            assert_eq!(forwards, expected, "{sort:?} by {size}");
            assert_eq!(backwards, expected, "{sort:?} by {size}, backwards");
        }
    }
}

async fn nulls_come_last(test: TestDb) {
    let (_, samples) = with_samples(&test).await;
    fill(&samples).await;
    for sort in [
        Sort::asc(sample::Column::Number),
        Sort::desc(sample::Column::Number),
    ] {
        let page = samples.list((), &sort, PageRequest::first(24)).await;
        let items = page.expect("a page").items;
        let numbers: Vec<_> = items.iter().map(|row| row.number).collect();
        let nulls = numbers.iter().rev().take_while(|number| number.is_none());
        assert_eq!(nulls.count(), 5, "{numbers:?}");
        let values: Vec<i32> = numbers.iter().copied().flatten().collect();
        let ascending = values.is_sorted();
        let descending = values.iter().rev().is_sorted();
        assert!(ascending != descending, "{values:?}");
    }
    // Text is in the order of its code points.
    let by_name = Sort::asc(sample::Column::Name);
    let page = samples.list((), &by_name, PageRequest::first(24)).await;
    let mut names: Vec<_> = page.expect("a page").items;
    names.dedup_by(|left, right| left.name == right.name);
    let names: Vec<_> = names.iter().map(|row| &*row.name).collect();
    assert_eq!(names, ["B", "a", "b", "é"]);
}

async fn pages_have_ends(test: TestDb) {
    let (_, samples) = with_samples(&test).await;
    let empty = samples
        .list((), &Sort::default(), PageRequest::first(5))
        .await;
    let empty = empty.expect("a page");
    assert_eq!(
        (empty.items.len(), empty.next, empty.previous),
        (0, None, None)
    );
    let rows = fill(&samples).await;
    let sort = Sort::default();
    let page = async |request| samples.list((), &sort, request).await.expect("a page");
    let first = page(PageRequest::first(20)).await;
    assert_eq!((first.previous, first.total), (None, None));
    let last = page(PageRequest::after(first.next.expect("more"), 20)).await;
    assert_eq!(last.items, rows[20..]);
    assert_eq!(last.next, None);
    let back = page(PageRequest::before(
        last.previous.expect("not the first"),
        20,
    ))
    .await;
    assert_eq!(back.items, rows[..20]);
    assert_eq!(back.previous, None, "nothing is before it");
    let again = page(PageRequest::after(back.next.expect("more"), 20)).await;
    assert_eq!(again.items, rows[20..]);
    // A place whose row is gone is still a place.
    let middle = page(PageRequest::first(10)).await.next.expect("more");
    samples.delete(rows[9].id).await.expect("deleted");
    let after = page(PageRequest::after(middle.clone(), 1)).await;
    assert_eq!(after.items, rows[10..11]);
    let before = page(PageRequest::before(middle, 1)).await;
    assert_eq!(before.items, rows[8..9]);
}

async fn numbered_pages(test: TestDb) {
    let (_, samples) = with_samples(&test).await;
    let rows = fill(&samples).await;
    let open = sample::COLUMN.is_open.eq(true);
    let sort = Sort::desc(sample::Column::Id);
    let second = samples.list(open, &sort, PageRequest::number(2, 5)).await;
    let second = second.expect("a page");
    assert_eq!(second.total, Some(12));
    let expected: Vec<_> = rows.iter().rev().filter(|row| row.is_open).collect();
    assert!(second.items.iter().eq(expected[5..10].iter().copied()));
    assert!(second.next.is_some() && second.previous.is_some());
    for number in [0, u64::MAX] {
        let page = samples
            .list((), &sort, PageRequest::number(number, 5))
            .await;
        assert_eq!(refused(page), ["page.number"]);
    }
    for size in [0, 1_001, u64::MAX] {
        let page = samples.list((), &sort, PageRequest::first(size)).await;
        assert_eq!(refused(page), ["page.size"]);
    }
}

async fn a_cursor_is_for_one_order(test: TestDb) {
    let (_, samples) = with_samples(&test).await;
    fill(&samples).await;
    let by_name = Sort::asc(sample::Column::Name);
    let page = samples.list((), &by_name, PageRequest::first(5)).await;
    let cursor = page.expect("a page").next.expect("more");
    let others = [
        Sort::default(),
        Sort::desc(sample::Column::Name),
        Sort::asc(sample::Column::Name).then_asc(sample::Column::At),
        Sort::asc(sample::Column::Name).unique(),
    ];
    for other in others {
        let after = PageRequest::after(cursor.clone(), 5);
        assert_eq!(
            refused(samples.list((), &other, after).await),
            ["page.after"]
        );
        let before = PageRequest::before(cursor.clone(), 5);
        assert_eq!(
            refused(samples.list((), &other, before).await),
            ["page.before"]
        );
    }
    for text in ["", "x", "e30", &"A".repeat(20_000)] {
        let page = PageRequest::after(Cursor::from(text.to_owned()), 5);
        assert_eq!(
            refused(samples.list((), &by_name, page).await),
            ["page.after"]
        );
    }
}

async fn what_has_no_order_is_refused(test: TestDb) {
    use sample::Column::{At, Json, Name, Note, Number};
    let (_, samples) = with_samples(&test).await;
    let json = samples
        .list((), &Sort::asc(Json), PageRequest::first(5))
        .await;
    let error = json.expect_err("no order");
    assert_eq!(error.to_string(), "not valid: sort: json has no order");
    let many = Sort::asc(Name).then_asc(Note).then_asc(Number).then_asc(At);
    let many = samples.list((), &many, PageRequest::first(5)).await;
    assert_eq!(refused(many), ["sort"]);
}

async fn a_key_of_two_columns_is_an_order(test: TestDb) {
    let (db, _) = with_samples(&test).await;
    let cells = db.repository::<cell::Entity>();
    let mut all = Vec::new();
    for sheet in ["a", "b", "c"] {
        for place in 0..3 {
            let sheet = sheet.to_owned();
            let row = cell::Model { sheet, place };
            let inserted = cells.insert(row.into_active_model().reset_all()).await;
            all.push(inserted.expect("inserted"));
        }
    }
    for (sort, expected) in [
        (Sort::default(), all.clone()),
        (
            Sort::default().reverse(),
            all.iter().rev().cloned().collect(),
        ),
    ] {
        let mut rows = Vec::new();
        let mut request = PageRequest::first(2);
        loop {
            let page = cells.list((), &sort, request).await.expect("a page");
            rows.extend(page.items);
            let Some(next) = page.next else { break };
            request = PageRequest::after(next, 2);
        }
        assert_eq!(rows, expected);
    }
    let streamed: Vec<_> = cells.stream(()).try_collect().await.expect("read");
    assert_eq!(streamed, all);
}

async fn a_stream_has_every_row_once(test: TestDb) {
    let (db, samples) = with_samples(&test).await;
    let sql = if db.backend() == DbBackend::Postgres {
        "INSERT INTO samples (name, ratio, is_open, at)
         SELECT 'row ' || i, i, i % 2 = 0, now() FROM generate_series(1, 250) AS i"
    } else {
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250)
         INSERT INTO samples (name, ratio, is_open, at)
         SELECT 'row ' || i, i, i % 2 = 0, '2026-01-01T00:00:00.000000+00:00' FROM n"
    };
    test.execute(sql).await;
    let open: Vec<_> = samples
        .stream(sample::COLUMN.is_open.eq(true))
        .map_ok(|row| row.name)
        .try_collect()
        .await
        .expect("read");
    assert_eq!(open.len(), 125);
    // Rows that come meanwhile are seen, and those that go aren't.
    let mut stream = std::pin::pin!(samples.stream(()));
    let first = stream.next().await.expect("a row").expect("read");
    let last = samples.find_by(sample::Entity::find().limit(1)).await;
    assert_eq!(last.expect("read"), std::slice::from_ref(&first));
    samples.delete(first.id + 200).await.expect("deleted");
    let new = sample::ActiveModel {
        name: Set("new".to_owned()),
        ratio: Set(0.0),
        is_open: Set(true),
        at: Set(db.now()),
        ..Default::default()
    };
    let new = samples.insert(new).await.expect("inserted");
    let rest: Vec<_> = stream.try_collect().await.expect("read");
    assert_eq!(rest.len(), 249);
    assert_eq!(rest.last(), Some(&new));
    // A row that can't be read ends it.
    test.execute(&format!(
        "UPDATE samples SET ratio = {} WHERE id = {}",
        if db.backend() == DbBackend::Postgres {
            "'NaN'"
        } else {
            "'x'"
        },
        first.id + 1
    ))
    .await;
    let read: Result<Vec<_>, Error> = samples.stream(()).try_collect().await;
    if db.backend() == DbBackend::Sqlite {
        assert_error!(read, Error::Inconsistent(_));
    } else {
        assert!(read.is_ok(), "NaN is a number of PostgreSQL's");
    }
}
