//! Filters and orders that a client composes at run time.

use aura_db::sea_orm::IntoActiveModel;
use aura_db::{Error, FieldError, PageRequest, Repository};
use serde_json::{Value as Json, json};
use testdb::TestDb;

use crate::repository::credential::{self, Column};
use crate::repository::{credential as new, with_credentials};

testdb::both!(migrated:
    operators_find_what_they_say,
    filters_are_combined,
    values_may_be_text,
    a_query_is_sorted,
    what_is_wrong_is_reported_at_once,
    nothing_in_a_query_is_sql,
);

type Credentials = Repository<credential::Entity>;

const ALLOWED: [Column; 6] = [
    Column::Id,
    Column::Name,
    Column::Note,
    Column::Uses,
    Column::CreatedAt,
    Column::CreatedBy,
];

/// Rows with these names, notes and uses.
async fn with_rows(test: &TestDb) -> Credentials {
    let (db, [ada, _]) = with_credentials(test).await;
    let credentials = db.acting_as(ada).repository::<credential::Entity>();
    let rows = [
        ("GitHub", Some("100%"), 0),
        ("gitlab", Some("it's_"), 3),
        ("Slack", None, 9),
        ("Élan", Some(r"a\b"), 12),
    ];
    for (name, note, uses) in rows {
        let mut row = new(name);
        row.note = aura_db::sea_orm::Set(note.map(str::to_owned));
        row.uses = aura_db::sea_orm::Set(uses);
        credentials.insert(row).await.expect("inserted");
    }
    credentials
}

async fn names(credentials: &Credentials, filter: &Json) -> Vec<String> {
    let query = credentials.query(ALLOWED).filter(filter);
    let page = query.list(PageRequest::first(50)).await;
    let page = page.unwrap_or_else(|error| panic!("{filter}: {error}"));
    page.items.into_iter().map(|row| row.name).collect()
}

async fn operators_find_what_they_say(test: TestDb) {
    let credentials = with_rows(&test).await;
    let cases: [(Json, &[&str]); 24] = [
        (json!({}), &["GitHub", "gitlab", "Slack", "Élan"]),
        (json!({ "name": "Slack" }), &["Slack"]),
        (json!({ "name": "slack" }), &[]),
        (
            json!({ "name": { "ne": "Slack" } }),
            &["GitHub", "gitlab", "Élan"],
        ),
        (
            json!({ "note": { "ne": "100%" } }),
            &["gitlab", "Slack", "Élan"],
        ),
        (json!({ "note": null }), &["Slack"]),
        (
            json!({ "note": { "ne": null } }),
            &["GitHub", "gitlab", "Élan"],
        ),
        (json!({ "note": { "is_null": true } }), &["Slack"]),
        (
            json!({ "note": { "is_null": false } }),
            &["GitHub", "gitlab", "Élan"],
        ),
        (json!({ "uses": { "gt": 3 } }), &["Slack", "Élan"]),
        (
            json!({ "uses": { "gte": 3, "lt": 12 } }),
            &["gitlab", "Slack"],
        ),
        (json!({ "uses": { "lte": 0 } }), &["GitHub"]),
        (
            json!({ "uses": { "in": [0, 9, 77] } }),
            &["GitHub", "Slack"],
        ),
        (json!({ "uses": { "in": [] } }), &[]),
        (json!({ "uses": { "not_in": [0, 9] } }), &["gitlab", "Élan"]),
        (
            json!({ "note": { "not_in": ["100%"] } }),
            &["gitlab", "Slack", "Élan"],
        ),
        (
            json!({ "name": { "contains": "GIT" } }),
            &["GitHub", "gitlab"],
        ),
        (
            json!({ "name": { "starts_with": "git" } }),
            &["GitHub", "gitlab"],
        ),
        (
            json!({ "name": { "ends_with": "B" } }),
            &["GitHub", "gitlab"],
        ),
        (json!({ "name": { "contains": "é" } }), &[]),
        (json!({ "name": { "contains": "É" } }), &["Élan"]),
        // Nothing in the text is a wildcard.
        (json!({ "note": { "contains": "%" } }), &["GitHub"]),
        (json!({ "note": { "ends_with": "_" } }), &["gitlab"]),
        (json!({ "note": { "contains": "\\" } }), &["Élan"]),
    ];
    for (filter, expected) in cases {
        assert_eq!(names(&credentials, &filter).await, expected, "{filter}");
        let count = credentials.query(ALLOWED).filter(&filter).count().await;
        assert_eq!(count.expect("read"), expected.len() as u64, "{filter}");
    }
}

async fn filters_are_combined(test: TestDb) {
    let credentials = with_rows(&test).await;
    let cases: [(Json, &[&str]); 9] = [
        (
            json!({ "or": [{ "name": "Slack" }, { "uses": 3 }] }),
            &["gitlab", "Slack"],
        ),
        (json!({ "or": [] }), &[]),
        (json!({ "and": [] }), &["GitHub", "gitlab", "Slack", "Élan"]),
        (
            json!({ "and": [{ "uses": { "gt": 0 } }, { "uses": { "lt": 9 } }] }),
            &["gitlab"],
        ),
        (
            json!({ "not": { "name": "Slack" } }),
            &["GitHub", "gitlab", "Élan"],
        ),
        // NULL is not 100%, so it is not that it is.
        (
            json!({ "not": { "note": "100%" } }),
            &["gitlab", "Slack", "Élan"],
        ),
        (
            json!({ "not": { "or": [{ "uses": 0 }, { "uses": 3 }] } }),
            &["Slack", "Élan"],
        ),
        (
            json!({ "uses": { "gt": 0 }, "or": [{ "name": "Slack" }, { "name": "GitHub" }] }),
            &["Slack"],
        ),
        (
            json!({ "or": [{ "uses": 0, "name": "Slack" }, { "not": { "not": { "uses": 12 } } }] }),
            &["Élan"],
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(names(&credentials, &filter).await, expected, "{filter}");
    }
    let both = credentials
        .query(ALLOWED)
        .filter(&json!({ "name": { "contains": "git" } }))
        .and("uses", "gt", 0);
    assert_eq!(both.count().await.expect("read"), 1);
}

async fn values_may_be_text(test: TestDb) {
    let credentials = with_rows(&test).await;
    let now = credentials.find_by(()).await.expect("read")[0].created_at;
    let before = now - chrono::TimeDelta::hours(1);
    for (field, operator, value, expected) in [
        ("uses", "eq", json!("9"), 1),
        ("uses", "in", json!(["0", 3]), 2),
        ("note", "is_null", json!("true"), 1),
        ("created_at", "eq", json!(now), 4),
        ("created_at", "gt", json!(before.to_rfc3339()), 4),
        ("created_at", "lte", json!(before), 0),
        ("created_by", "ne", json!("0"), 4),
    ] {
        let query = credentials
            .query(ALLOWED)
            .and(field, operator, value.clone());
        let count = query.count().await;
        assert_eq!(count.expect("read"), expected, "{field} {operator} {value}");
    }
}

async fn a_query_is_sorted(test: TestDb) {
    let credentials = with_rows(&test).await;
    for (sort, expected) in [
        ("", ["GitHub", "gitlab", "Slack", "Élan"]),
        ("-uses", ["Élan", "Slack", "gitlab", "GitHub"]),
        ("created_at,-id", ["Élan", "Slack", "gitlab", "GitHub"]),
        ("-note,name", ["gitlab", "Élan", "GitHub", "Slack"]),
    ] {
        let mut names = Vec::new();
        let mut request = PageRequest::first(3);
        loop {
            let query = credentials.query(ALLOWED).sort(sort);
            let page = query.list(request).await.expect("a page");
            names.extend(page.items.into_iter().map(|row| row.name));
            let Some(next) = page.next else { break };
            request = PageRequest::after(next, 3);
        }
        if sort == "-note,name" {
            // The order of other text is the column's collation.
            assert_eq!(names[3], "Slack", "NULL is last");
            continue;
        }
        assert_eq!(names, expected, "{sort}");
    }
}

async fn what_is_wrong_is_reported_at_once(test: TestDb) {
    let credentials = with_rows(&test).await;
    let query = credentials
        .query(ALLOWED)
        .filter(&json!({ "owner_id": 1, "uses": { "like": 3 }, "or": {} }))
        .and("uses", "eq", "three")
        .and("uses", "gt", Json::Null)
        .and("uses", "contains", "3")
        .and("created_at", "gt", "yesterday")
        .and("name", "in", "x")
        .and("name", "eq", "a\0b")
        .sort("-uses,secret");
    let Err(Error::Validation(errors)) = query.list(PageRequest::first(5)).await else {
        panic!("not refused");
    };
    let errors: Vec<String> = errors.iter().map(FieldError::to_string).collect();
    let operators = "eq, ne, gt, gte, lt, lte, in, not_in, contains, starts_with, ends_with, \
                     is_null";
    let fields = "id, name, note, uses, created_at, created_by";
    let expected = [
        "filter: `or` must have a list of filters".to_owned(),
        format!("filter: has no field `owner_id`; there are {fields}"),
        format!("uses: has no operator `like`; there are {operators}"),
        "uses: needs an integer".to_owned(),
        "uses: `gt` needs a value; `eq` and `ne` take null".to_owned(),
        "uses: `contains` is for text".to_owned(),
        "created_at: needs a time, as 2026-11-27T12:30:00Z".to_owned(),
        "name: `in` needs a list of at most 100 values".to_owned(),
        "name: needs one of its texts".to_owned(),
        format!("sort: has no field `secret`; there are {fields}"),
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for error in expected {
        assert!(errors.contains(&error), "{error} is not in {errors:#?}");
    }
    // Nothing is without a limit.
    let mut deep = json!({ "uses": 0 });
    for _ in 0..6 {
        deep = json!({ "not": deep });
    }
    let wide = json!({ "or": vec![json!({ "uses": 0 }); 51] });
    let many = json!({ "uses": { "in": vec![0; 101] } });
    let long = json!({ "name": { "contains": "x".repeat(201) } });
    for filter in [deep, wide, many, long, json!([]), json!("x")] {
        let count = credentials.query(ALLOWED).filter(&filter).count().await;
        assert!(matches!(count, Err(Error::Validation(_))), "{filter}");
    }
    let sort = credentials.query(ALLOWED).sort("id,name,uses,note");
    assert!(matches!(sort.count().await, Err(Error::Validation(_))));
}

async fn nothing_in_a_query_is_sql(test: TestDb) {
    let credentials = with_rows(&test).await;
    let before = credentials.find_by(()).await.expect("read");
    let corpus = [
        "'",
        "''",
        "\"",
        "`",
        ";",
        "--",
        "/*",
        "$1",
        "?",
        "%",
        "_",
        "\\",
        "name\"",
        "name'--",
        "' OR '1'='1",
        "'; DROP TABLE credentials; --",
        "1; DELETE FROM credentials",
        "name\" OR \"1\"=\"1",
        "{}",
        "null",
        "NULL",
        "é",
        "\u{202e}",
        "a\nb",
    ];
    for text in corpus {
        for operator in ["eq", "ne", "gt", "contains", "starts_with", "ends_with"] {
            let query = credentials.query(ALLOWED).and("note", operator, text);
            query.list(PageRequest::first(5)).await.expect("a page");
        }
        let field = credentials
            .query(ALLOWED)
            .and(text, "eq", "x")
            .count()
            .await;
        assert!(matches!(field, Err(Error::Validation(_))), "{text}");
        let operator = credentials
            .query(ALLOWED)
            .and("note", text, "x")
            .count()
            .await;
        assert!(matches!(operator, Err(Error::Validation(_))), "{text}");
        let sort = credentials.query(ALLOWED).sort(text).count().await;
        assert!(matches!(sort, Err(Error::Validation(_))), "{text}");
        let object = json!({ (text): { (text): text } });
        let filter = credentials.query(ALLOWED).filter(&object).count().await;
        assert!(matches!(filter, Err(Error::Validation(_))), "{text}");
        // A row that holds it is found by it.
        let row = before[0].clone();
        let mut change = row.into_active_model();
        change.note = aura_db::sea_orm::Set(Some(text.to_owned()));
        change.version = aura_db::sea_orm::Unchanged(
            credentials.get(before[0].id).await.expect("there").version,
        );
        credentials.update(change).await.expect("updated");
        for operator in ["eq", "contains", "starts_with", "ends_with"] {
            let query = credentials.query(ALLOWED).and("note", operator, text);
            let found = query.list(PageRequest::first(5)).await.expect("a page");
            assert!(
                found.items.iter().any(|row| row.id == before[0].id),
                "{operator} {text}"
            );
        }
    }
    let after = credentials.find_by(()).await.expect("read");
    assert_eq!(after[1..], before[1..]);
}
