//! The migrated schema keeps its promises, the same ones on both backends.

use std::collections::{BTreeMap, BTreeSet};

use migration::catalog::Index;
use migration::{Catalog, HISTORY};
use sea_orm::DbBackend;
use testdb::{Backend, TestDb};

testdb::both!(migrated:
    the_snapshot_is_the_migrated_schema,
    every_foreign_key_cascades_and_has_an_index,
    who_created_a_row_is_no_foreign_key,
    closed_sets_refuse_other_words,
    lengths_count_characters,
    an_address_is_trimmed_and_in_lower_case,
    documents_are_json,
    searchable_metadata_holds_no_nul,
    times_that_the_database_fills_in_are_utc,
    uniques_refuse_a_second_row,
    deleting_a_user_takes_what_it_owns,
    deleting_an_execution_takes_its_logs,
);

fn snapshot(backend: DbBackend) -> Catalog {
    migration::runner().snapshot(backend).expect("a snapshot")
}

async fn the_snapshot_is_the_migrated_schema(db: TestDb) {
    assert_eq!(catalog(&db).await, snapshot(backend(&db)));
    let outside = db.outside().await;
    assert_eq!(migration::check(&outside).await.expect("a check"), []);
}

async fn every_foreign_key_cascades_and_has_an_index(db: TestDb) {
    let mut keys = 0;
    for (name, table) in catalog(&db).await.tables {
        for (columns, key) in table.foreign_keys {
            keys += 1;
            assert_eq!(key.on_delete, "CASCADE", "{name} {columns}");
            assert_eq!(key.columns, ["id"], "{name} {columns}");
            let leads = |index: &[String]| index.join(", ").starts_with(&columns);
            assert!(
                leads(&table.primary_key)
                    || table.indexes.values().any(|index| leads(&index.columns)),
                "{name} {columns} has no index"
            );
        }
    }
    assert_eq!(keys, 12);
}

async fn who_created_a_row_is_no_foreign_key(db: TestDb) {
    for (name, table) in catalog(&db).await.tables {
        for column in ["created_by", "updated_by"] {
            assert!(!table.foreign_keys.contains_key(column), "{name} {column}");
        }
    }
    db.fill().await;
    db.execute("UPDATE plugins SET created_by = 4711, updated_by = 4711")
        .await;
}

/// Types are spelt differently; everything else is the same.
#[tokio::test(flavor = "multi_thread")]
async fn both_backends_have_the_same_schema() {
    let [sqlite, postgres] = [DbBackend::Sqlite, DbBackend::Postgres].map(snapshot);
    assert_eq!(shape(&sqlite), shape(&postgres));
    for (name, table) in &sqlite.tables {
        for (column, sqlite) in &table.columns {
            let postgres = &postgres.tables[name].columns[column];
            assert_eq!(kind(&sqlite.kind), kind(&postgres.kind), "{name} {column}");
            let defaults = [&sqlite.default, &postgres.default]
                .map(Option::as_deref)
                .map(default);
            assert_eq!(defaults[0], defaults[1], "{name} {column}");
        }
    }
}

type Shape = BTreeMap<
    String,
    (
        BTreeSet<(String, bool)>,
        Vec<String>,
        Vec<String>,
        Vec<String>,
    ),
>;

fn shape(catalog: &Catalog) -> Shape {
    let shape = catalog.tables.iter().map(|(name, table)| {
        let columns = table.columns.iter();
        let columns = columns
            .map(|(name, column)| (name.clone(), column.nullable))
            .collect();
        let indexes = table.indexes.iter();
        let indexes = indexes
            .map(|(name, index)| {
                let predicate = index.predicate.as_deref().map(predicate);
                format!(
                    "{name} {}",
                    Index {
                        predicate,
                        ..index.clone()
                    }
                )
            })
            .collect();
        let keys = table.foreign_keys.iter();
        let keys = keys
            .map(|(columns, key)| format!("{columns} {key}"))
            .collect();
        (
            name.clone(),
            (columns, table.primary_key.clone(), indexes, keys),
        )
    });
    shape.collect()
}

/// What both backends mean by a type.
fn kind(kind: &str) -> String {
    let kind = kind
        .to_ascii_lowercase()
        .replace("character varying", "varchar");
    match kind.trim_end_matches(" collate c") {
        "integer" | "bigint" => "whole number".to_owned(),
        "integer autoincrement" | "bigint identity" => "counted up".to_owned(),
        "timestamp_with_timezone_text" | "timestamp with time zone" => "moment".to_owned(),
        "json_text" | "json" => "document".to_owned(),
        "jsonb_text" | "jsonb" => "searchable".to_owned(),
        other => other.to_owned(),
    }
}

/// What both backends mean by the condition of an index: PostgreSQL tells it
/// with parentheses and casts, SQLite as it was written.
fn predicate(text: &str) -> String {
    let plain = text.replace("::text[]", "").replace("::text", "");
    let plain = plain.replace("::character varying", "");
    let plain = plain.replace("FALSE", "false");
    let plain = plain.replace(['(', ')', '"'], "");
    plain.replace("= ANY ARRAY[", "IN ").replace(']', "")
}

/// What both backends mean by a default.
fn default(text: Option<&str>) -> Option<String> {
    let text = text?.to_ascii_lowercase();
    let text = text
        .split("::")
        .next()
        .unwrap_or_default()
        .trim_matches('\'');
    let now = text.starts_with("strftime") || text == "current_timestamp";
    Some(if now { "now" } else { text }.to_owned())
}

async fn closed_sets_refuse_other_words(db: TestDb) {
    db.fill().await;
    for (table, column, words) in [
        ("users", "role", "admin editor viewer user"),
        ("workflows", "status", "draft active archived"),
        (
            "executions",
            "status",
            "queued running waiting success error canceled",
        ),
        ("executions", "mode", "manual trigger webhook cron"),
        ("logs", "level", "debug info warn error"),
    ] {
        for word in words.split(' ') {
            db.execute(&set(table, column, &format!("'{word}'"))).await;
        }
        for value in ["'Admin'", "'draft '", "''", "'root'", "NULL"] {
            refused(&db, &set(table, column, value)).await;
        }
    }
}

async fn lengths_count_characters(db: TestDb) {
    db.fill().await;
    for (table, column, length) in [
        ("users", "name", 120),
        ("users", "hashed_password", 255),
        ("sessions", "token", 64),
        ("sessions", "user_agent", 255),
        ("sessions", "ip_address", 64),
        ("plugins", "name", 120),
        ("plugins", "description", 240),
        ("plugins", "version", 32),
        ("plugins", "author", 160),
        ("workflows", "name", 160),
        ("workflow_versions", "name", 160),
        ("executions", "worker_id", 64),
        ("agents", "name", 120),
        ("agents", "model", 120),
    ] {
        for letter in ["x", "é", "😀"] {
            let text = |letters| format!("'{}'", letter.repeat(letters));
            db.execute(&set(table, column, &text(length))).await;
            refused(&db, &set(table, column, &text(length + 1))).await;
        }
    }
    // `@example.org` has 12.
    let address = |letters| format!("'{}@example.org'", "é".repeat(letters));
    db.execute(&set("users", "email", &address(148))).await;
    refused(&db, &set("users", "email", &address(149))).await;
}

async fn an_address_is_trimmed_and_in_lower_case(db: TestDb) {
    db.fill().await;
    db.execute(&set("users", "email", "'ada+x@example.org'"))
        .await;
    // ASCII only: SQLite's lower() knows no other letters.
    db.execute(&set("users", "email", "'É@example.org'")).await;
    for value in [
        "'Ada@example.org'",
        "' ada@example.org'",
        "'ada@example.org '",
        "NULL",
    ] {
        refused(&db, &set("users", "email", value)).await;
    }
}

async fn documents_are_json(db: TestDb) {
    db.fill().await;
    let documents: Vec<(String, String)> = snapshot(DbBackend::Postgres)
        .tables
        .into_iter()
        .flat_map(|(name, table)| {
            let columns = table.columns.into_iter();
            let documents = columns.filter(|(_, column)| column.kind.starts_with("json"));
            documents
                .map(move |(column, _)| (name.clone(), column))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(documents.len(), 12, "{documents:?}");
    for (table, column) in documents {
        for json in [
            "{\"a\": [1, 2.5e3, null, \"ü\"]}",
            "[]",
            "0",
            "\"\"",
            "null",
        ] {
            db.execute(&set(&table, &column, &format!("'{json}'")))
                .await;
        }
        for text in [
            "", "{", "{a: 1}", "[1,]", "''x''", "nothing", "{} {}", "NaN", "01",
        ] {
            refused(&db, &set(&table, &column, &format!("'{text}'"))).await;
        }
    }
}

async fn searchable_metadata_holds_no_nul(db: TestDb) {
    db.fill().await;
    for json in [
        r#"{"a": "\\u0000"}"#,
        r#""\\\\u0000""#,
        r#""\u0001""#,
        r#""u0000""#,
    ] {
        db.execute(&set("logs", "metadata", &format!("'{json}'")))
            .await;
    }
    for json in [
        r#"{"a": "\u0000"}"#,
        r#""\\\u0000""#,
        r#"{"\u0000": 1}"#,
        r#"["\"\u0000"]"#,
    ] {
        refused(&db, &set("logs", "metadata", &format!("'{json}'"))).await;
    }
}

async fn times_that_the_database_fills_in_are_utc(db: TestDb) {
    db.fill().await;
    let times: Vec<(String, String, bool)> = snapshot(DbBackend::Postgres)
        .tables
        .into_iter()
        .flat_map(|(name, table)| {
            let columns = table.columns.into_iter();
            let times = columns.filter(|(_, column)| column.kind.starts_with("timestamp"));
            times
                .map(move |(column, is)| (name.clone(), column, is.default.is_some()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(times.len(), 24, "{times:?}");
    for (table, column, filled) in times {
        db.execute(&set(&table, &column, "'2026-07-01T12:30:00+00:00'"))
            .await;
        refused(&db, &set(&table, &column, "'soon'")).await;
        if db.backend() == Backend::Sqlite {
            for value in [
                "CURRENT_TIMESTAMP",
                "unixepoch()",
                "'2026-07-01T12:30:00Z'",
                "'2026-07-01 12:30:00+00:00'",
            ] {
                refused(&db, &set(&table, &column, value)).await;
            }
            if filled {
                let default = &snapshot(DbBackend::Sqlite).tables[&table].columns[&column].default;
                let written = db
                    .lines(&format!(
                        "SELECT {} AS line",
                        default.as_deref().expect("a default")
                    ))
                    .await;
                assert!(
                    written[0].contains('T') && written[0].ends_with("+00:00"),
                    "{written:?}"
                );
            }
        }
    }
}

async fn uniques_refuse_a_second_row(db: TestDb) {
    db.fill().await;
    for sql in [
        "UPDATE users SET email = 'ada@example.org'",
        "UPDATE sessions SET token = 'x'",
        "UPDATE plugins SET name = 'github'",
        "UPDATE workflow_versions SET version = 1",
        "UPDATE agents SET owner_id = 1",
        "INSERT INTO workflow_plugins VALUES (1, 1)",
    ] {
        refused(&db, sql).await;
    }
}

async fn deleting_a_user_takes_what_it_owns(db: TestDb) {
    db.fill().await;
    db.execute("DELETE FROM users WHERE id = 1").await;
    let left = [
        ("users", 1),
        ("sessions", 1),
        ("plugins", 2),
        ("workflows", 1),
        ("workflow_plugins", 1),
        ("workflow_versions", 0),
        ("executions", 0),
        ("logs", 1),
        ("agents", 1),
        ("execution_attempts", 0),
        ("execution_limits", 0),
    ];
    assert_eq!(
        left.map(|(table, _)| table).as_slice(),
        migration::runner().tables()
    );
    for (table, rows) in left {
        let count = db
            .lines(&format!(
                "SELECT CAST(count(*) AS text) AS line FROM {table}"
            ))
            .await;
        assert_eq!(count, [rows.to_string()], "{table}");
    }
}

async fn deleting_an_execution_takes_its_logs(db: TestDb) {
    db.fill().await;
    db.execute("DELETE FROM executions WHERE id = 2").await;
    let left = db.lines("SELECT level AS line FROM logs ORDER BY id").await;
    assert_eq!(left, ["info", "warn"]);
    refused(&db, "UPDATE logs SET execution_id = 2").await;
}

/// Changes the row that is there in every table that [`testdb::ROWS`] fills.
fn set(table: &str, column: &str, value: &str) -> String {
    let first = match table {
        "workflow_plugins" => "plugin_id = 2",
        _ => "id = 1",
    };
    format!("UPDATE {table} SET {column} = {value} WHERE {first}")
}

async fn refused(db: &TestDb, sql: &str) {
    let result = db.try_execute(sql).await;
    assert!(result.is_err(), "{sql} was taken");
}

fn backend(db: &TestDb) -> DbBackend {
    match db.backend() {
        Backend::Sqlite => DbBackend::Sqlite,
        Backend::Postgres => DbBackend::Postgres,
    }
}

async fn catalog(db: &TestDb) -> Catalog {
    let owned = migration::runner().tables();
    db.catalog(&owned.into_iter().chain([HISTORY]).collect::<Vec<_>>())
        .await
}
