//! Lists of an application's own entity, in which some rows can't be read: in every order each
//! row has its place.

use aura_db::sea_orm::DbBackend;
use aura_db::sea_orm::entity::prelude::*;
use aura_db::{Database, Error, Page, PageRequest, RepositoryEntity, RowError, Sort};
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use futures_util::StreamExt;
use testdb::{Backend, TestDb};

use crate::support::{assert_error, open, own_types, refused};

testdb::both!(migrated:
    every_order_has_a_place_for_each,
    a_stream_goes_on,
    a_key_of_two_columns_is_named,
    a_column_that_is_missing_is_no_row,
);

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "String(StringLen::None)")]
pub(crate) enum Size {
    #[sea_orm(string_value = "large")]
    Large,
    #[sea_orm(string_value = "small")]
    Small,
}

mod odd {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "odds")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub(super) id: i64,
        pub(super) size: Size,
        pub(super) number: i16,
        pub(super) at: DateTime<Utc>,
        pub(super) until: Option<DateTime<Utc>>,
        pub(super) day: Option<NaiveDate>,
        pub(super) hour: NaiveTime,
        pub(super) name: String,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl RepositoryEntity for odd::Entity {}

mod pair {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "pairs")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(super) room: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(super) place: i64,
        pub(super) size: Size,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl RepositoryEntity for pair::Entity {}

/// How many rows there are, of which every second can be read.
const ROWS: usize = 22;

async fn with_odds(test: &TestDb) -> Database {
    let db = open(test).await;
    let (key, time) = own_types(&db);
    let (date, clock, word) = match db.backend() {
        DbBackend::Postgres => ("date", "time", "text COLLATE \"C\""),
        _ => ("text", "text", "text"),
    };
    test.execute(&format!(
        "CREATE TABLE odds (id {key}, size {word} NOT NULL, number bigint NOT NULL,
         at {time} NOT NULL, until {time}, day {date}, hour {clock} NOT NULL,
         name {word} NOT NULL)"
    ))
    .await;
    let row = |id: usize| {
        let until = if id.is_multiple_of(3) {
            "NULL".to_owned()
        } else {
            format!("'2026-01-0{}T00:00:00.000000+00:00'", id % 5 + 1)
        };
        format!(
            "('{}', {}, '2026-02-0{}T00:00:00.000000+00:00', {until}, '2026-03-0{}',
             '0{}:00:00', 'n{}')",
            if id.is_multiple_of(2) {
                "small"
            } else {
                "large"
            },
            id % 4,
            id % 3 + 1,
            id % 7 + 1,
            id % 6,
            id % 2,
        )
    };
    let rows: Vec<_> = (1..=ROWS).map(row).collect();
    test.execute(&format!(
        "INSERT INTO odds (size, number, at, until, day, hour, name) VALUES {}",
        rows.join(", ")
    ))
    .await;
    let spoilt: [(&str, &str); ROWS / 2] = match test.backend() {
        Backend::Postgres => [
            ("size", "'huge'"),
            ("number", "70000"),
            ("number", "-70000"),
            ("at", "'infinity'"),
            ("at", "'-infinity'"),
            ("until", "'infinity'"),
            ("until", "'-infinity'"),
            ("day", "'infinity'"),
            ("day", "'-infinity'"),
            ("hour", "'24:00:00'"),
            ("size", "'huge'"),
        ],
        Backend::Sqlite => [
            ("size", "'huge'"),
            ("number", "70000"),
            ("number", "'many'"),
            ("number", "1.5"),
            ("at", "'yesterday'"),
            ("at", "x'00ff'"),
            ("until", "CAST(x'ff' AS text)"),
            ("until", "'later'"),
            ("day", "'a' || char(0) || 'b'"),
            ("hour", "x''"),
            ("name", "x'6e'"),
        ],
    };
    for (nth, (column, value)) in spoilt.iter().enumerate() {
        let id = 2 * nth + 1;
        test.execute(&format!(
            "UPDATE odds SET {column} = {value} WHERE id = {id}"
        ))
        .await;
    }
    db
}

/// The keys of the rows that can be read, and of those that can't.
fn keys(page: &Page<odd::Model>) -> Vec<i64> {
    let left_out = page.unreadable.iter().map(|row| {
        assert_eq!((&*row.table, row.column.is_some()), ("odds", true));
        let key = row.key.as_deref().expect("a key");
        key.parse().expect("a number")
    });
    page.items
        .iter()
        .map(|row| row.id)
        .chain(left_out)
        .collect()
}

async fn every_order_has_a_place_for_each(test: TestDb) {
    use odd::Column::{At, Day, Hour, Id, Name, Number, Size, Until};
    let db = with_odds(&test).await;
    let odds = db.repository::<odd::Entity>();
    let mut sorts = vec![Sort::default(), Sort::desc(Id)];
    for column in [Size, Number, At, Until, Day, Hour, Name] {
        sorts.extend([Sort::asc(column), Sort::desc(column)]);
    }
    sorts.extend([
        Sort::asc(At).then_desc(Number),
        Sort::desc(Day).then_asc(Hour).then_asc(Until),
        Sort::asc(Size).then_asc(Name).then_asc(At),
    ]);
    for sort in sorts {
        // One by one, which is the order.
        let mut order = Vec::new();
        let mut page = PageRequest::first(1);
        let mut back = loop {
            let list = odds.list((), &sort, page).await.expect("a page");
            order.extend(keys(&list));
            assert!(order.len() <= ROWS, "{sort:?} repeats: {order:?}");
            match list.next {
                Some(next) => page = PageRequest::after(next, 1),
                None => break list.previous,
            }
        };
        let mut each = order.clone();
        each.sort_unstable();
        assert!(each.iter().copied().eq(1..=22), "{sort:?}: {order:?}");
        let mut reversed: Vec<i64> = order.last().copied().into_iter().collect();
        while let Some(previous) = back {
            let page = PageRequest::before(previous, 1);
            let list = odds.list((), &sort, page).await.expect("a page");
            reversed.extend(keys(&list));
            assert!(reversed.len() <= ROWS, "{sort:?} repeats: {reversed:?}");
            back = list.previous;
        }
        reversed.reverse();
        assert_eq!(reversed, order, "{sort:?} backwards");
        // Several at once.
        let mut rest = &order[..];
        let mut page = PageRequest::first(5);
        loop {
            let list = odds.list((), &sort, page).await.expect("a page");
            let mut met = keys(&list);
            let (expected, behind) = rest.split_at(met.len());
            let mut expected = expected.to_vec();
            met.sort_unstable();
            expected.sort_unstable();
            assert_eq!(met, expected, "{sort:?}");
            rest = behind;
            match list.next {
                Some(next) => page = PageRequest::after(next, 5),
                None => break,
            }
        }
        assert_eq!(rest, [0_i64; 0], "{sort:?}");
    }
    // A cursor that somebody else wrote is no statement.
    let forged = [
        "{\"text\":\"soon\"}",
        "{\"integer\":\"1\"}",
        "{\"sql\":\"1\"}",
    ];
    for place in forged {
        use base64::Engine;
        let place = format!("[\"odds+at+id\",[{place},1]]");
        let cursor = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(place);
        let page = PageRequest::after(cursor.into(), 5);
        let list = odds.list((), &Sort::asc(At), page).await;
        if test.backend() == Backend::Postgres || list.is_err() {
            assert_eq!(refused(list), ["page.after"]);
        }
    }
    db.close().await;
}

/// An error in the place of each row that can't be read.
async fn a_stream_goes_on(test: TestDb) {
    let db = with_odds(&test).await;
    let rows: Vec<_> = db.repository::<odd::Entity>().stream(()).collect().await;
    let met: Vec<_> = rows
        .into_iter()
        .map(|row| match row {
            Ok(row) => (row.id, true),
            Err(Error::Inconsistent(RowError { id, .. })) => (id.expect("an id"), false),
            Err(other) => panic!("{other:?}"),
        })
        .collect();
    let expected: Vec<_> = (1..=22).map(|id| (id, id % 2 == 0)).collect();
    assert_eq!(met, expected);
    db.close().await;
}

async fn a_key_of_two_columns_is_named(test: TestDb) {
    let db = open(&test).await;
    test.execute(
        "CREATE TABLE pairs (room text NOT NULL, place bigint NOT NULL, size text NOT NULL,
         PRIMARY KEY (room, place))",
    )
    .await;
    test.execute("INSERT INTO pairs VALUES ('a', 7, 'huge'), ('a', 8, 'large')")
        .await;
    let pairs = db.repository::<pair::Entity>();
    let page = pairs
        .list((), &Sort::default(), PageRequest::first(5))
        .await;
    let page = page.expect("a page");
    assert_eq!(page.items.len(), 1);
    assert_eq!(page.unreadable[0].key.as_deref(), Some("a, 7"));
    assert_eq!(page.unreadable[0].column.as_deref(), Some("size"));
    // Of a caller who asked for this row.
    assert_error!(
        pairs.get(("a".to_owned(), 7)).await,
        Error::Inconsistent(RowError { written: false, .. })
    );
    db.close().await;
}

/// That is the statement's, not the row's.
async fn a_column_that_is_missing_is_no_row(test: TestDb) {
    use aura_db::sea_orm::QuerySelect;
    let db = with_odds(&test).await;
    let some = odd::Entity::find().select_only().column(odd::Column::Id);
    let page = db
        .repository::<odd::Entity>()
        .list(some, &Sort::default(), PageRequest::first(5))
        .await;
    assert_error!(page, Error::Inconsistent(RowError { ref source, .. })
        if source.to_string().contains("selects no column size"));
    db.close().await;
}
