//! The schema moves under running code.

use testdb::{Backend, TestDb};

use super::{Field, Workers, kinds, queue, workflow};

kinds! {
    a_column_moves on sqlite postgres:
        "a column of the queue was made anew, as it is changed the usual way, while workers ran",
        "each execution has its own input and result, and `check` finds nothing";
    a_column_is_added on sqlite postgres:
        "a column was added while workers ran on the connections that they had",
        "no call fails";
    a_dump_is_restored on sqlite postgres:
        "a dump was restored as another database",
        "`check` finds nothing, and new rows get new ids";
    an_index_is_dropped on sqlite postgres:
        "an index that a pending step drops was dropped by hand",
        "`check` names it, and `up` goes on";
}

/// Runs workers before and after a change by hand, and during it.
async fn changes(field: &Field, sqlite: &str, postgres: &str) {
    let db = field.db().await;
    let flow = workflow(&db, "ada").await.expect("created");
    let sql = match field.backend() {
        Backend::Sqlite => format!("BEGIN IMMEDIATE; {sqlite}; COMMIT"),
        Backend::Postgres => postgres.to_owned(),
    };
    for round in 0..3 {
        let workers = Workers::start(&db, flow);
        workers.go_on().await;
        if round == 1 {
            field.by_hand(&sql).await;
        }
        workers.go_on().await;
        assert!(workers.end().await > 0, "they have run something");
    }
    db.close().await;
}

async fn a_column_moves(field: Field) {
    changes(
        &field,
        r#"ALTER TABLE executions RENAME COLUMN data TO before;
        ALTER TABLE executions ADD COLUMN "data" json_text
            CHECK ("data" IS NULL OR json_valid("data"));
        UPDATE executions SET data = before; ALTER TABLE executions DROP COLUMN before"#,
        "ALTER TABLE executions RENAME COLUMN data TO before;
        ALTER TABLE executions ADD COLUMN data json;
        UPDATE executions SET data = before; ALTER TABLE executions DROP COLUMN before",
    )
    .await;
    field.is_as_expected();
}

async fn a_column_is_added(field: Field) {
    let add = "ALTER TABLE executions ADD COLUMN region bigint";
    changes(&field, add, add).await;
}

async fn a_dump_is_restored(field: Field) {
    let db = field.db().await;
    let flow = workflow(&db, "ada").await.expect("created");
    let queued = queue(&db, flow, "{}").await.expect("queued");
    db.close().await;
    let restored = Field {
        test: TestDb::empty(field.backend()).await,
    };
    match field.backend() {
        Backend::Sqlite => {
            let to = ("TO", restored.file().display().to_string());
            field.shell(r#"sqlite3 "$DB_PATH" .dump | sqlite3 "$TO""#, &[to]);
        }
        Backend::Postgres => {
            let to = restored.test.variables().into_iter();
            let to = to.filter(|(name, _)| *name == "DB_NAME");
            let to: Vec<_> = to.map(|(_, name)| ("TO", name)).collect();
            field.shell(
                r#"export PGHOST="$DB_HOST" PGPORT="$DB_PORT" PGUSER="$DB_USER" PGPASSWORD="$DB_PASS"
                pg_dump --no-owner --no-acl "$DB_NAME" |
                psql --quiet --no-psqlrc -v ON_ERROR_STOP=1 "$TO""#,
                &to,
            );
        }
    }
    restored.is_as_expected();
    let db = restored.db().await;
    let next = queue(&db, flow, "{}").await.expect("queued");
    assert!(next > queued, "{next} after {queued}");
    workflow(&db, "bob").await.expect("created");
    db.close().await;
}

/// The last step that makes an index in the place of another.
async fn an_index_is_dropped(field: Field) {
    let down = field.tool(&["down", "-n", "1", "--yes"]);
    assert_eq!(down.status.code(), Some(0), "{down:?}");
    let old = "idx_executions_order";
    field.by_hand(&format!("DROP INDEX {old}")).await;
    let check = field.tool(&["check"]);
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    let up = field.tool(&["up"]);
    assert_eq!(up.status.code(), Some(0), "{up:?}");
    field.is_as_expected();
    let new = "idx_executions_next";
    field.by_hand(&format!("DROP INDEX {new}")).await;
    let check = field.tool(&["check"]);
    assert!(check.stdout.contains(new), "{check:?}");
}
