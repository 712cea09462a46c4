//! `check` finds what was changed by hand, and says in which table and what.

mod indexes;

use migration::HISTORY;
use migration::catalog::Kind::{self, Different, Extra, Missing};
use sea_orm::{ConnectionTrait, TransactionTrait};
use testdb::{Backend, TestDb};

testdb::both!(
    empty: nothing_at_all;
    migrated: untouched,
        a_dropped_table,
        an_added_column,
        a_dropped_column,
        a_changed_column,
        a_reordered_table,
        a_second_foreign_key,
        a_changed_check,
        a_dropped_foreign_key,
        a_foreign_key_that_no_longer_cascades,
        a_trigger,
        a_sequence_behind_its_rows,
        a_history_that_is_gone,
        tables_of_an_application,
);

async fn untouched(db: TestDb) {
    db.fill().await;
    assert_eq!(found(&db).await, []);
}

async fn nothing_at_all(db: TestDb) {
    let mut found = found(&db).await;
    if db.backend() == Backend::Postgres {
        let domain = found.pop().expect("the last one");
        assert_eq!(
            domain,
            (Missing, "json_text".to_owned(), "domain".to_owned())
        );
    }
    assert_eq!(found.len(), 12, "{found:?}");
    assert!(
        found
            .iter()
            .all(|(kind, _, what)| *kind == Missing && what.is_empty())
    );
}

async fn a_dropped_table(db: TestDb) {
    db.execute("DROP TABLE sessions").await;
    finds(&db, &[(Missing, "sessions", "")]).await;
}

/// What documents are cast to on their way to PostgreSQL. SQLite has none.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_or_changed_domain() {
    let db = TestDb::migrated(Backend::Postgres).await;
    db.execute("DROP DOMAIN json_text").await;
    finds(&db, &[(Missing, "json_text", "domain")]).await;
    for other in ["jsonb", "json CHECK (VALUE IS NOT NULL)", "json NOT NULL"] {
        db.execute(&format!("CREATE DOMAIN json_text AS {other}"))
            .await;
        finds(&db, &[(Different, "json_text", "domain")]).await;
        db.execute("DROP DOMAIN json_text").await;
    }
    db.execute("CREATE DOMAIN json_text AS json; CREATE DOMAIN theirs AS json")
        .await;
    assert_eq!(found(&db).await, []);
}

async fn an_added_column(db: TestDb) {
    db.execute("ALTER TABLE users ADD COLUMN nickname varchar(20)")
        .await;
    finds(&db, &[(Extra, "users", "column nickname")]).await;
}

async fn a_dropped_column(db: TestDb) {
    db.execute("ALTER TABLE sessions DROP COLUMN user_agent")
        .await;
    let column = (Missing, "sessions", "column user_agent");
    match db.backend() {
        Backend::Sqlite => {
            let check = (Missing, "sessions", "check (length(\"user_agent\") <= 255)");
            finds(&db, &[column, check]).await;
        }
        Backend::Postgres => finds(&db, &[column]).await,
    }
}

async fn a_changed_column(db: TestDb) {
    match db.backend() {
        Backend::Sqlite => {
            edit(
                &db,
                "workflows",
                "\"name\" varchar(160) NOT NULL",
                "\"name\" varchar(160)",
            )
            .await;
        }
        Backend::Postgres => {
            db.execute("ALTER TABLE workflows ALTER COLUMN name DROP NOT NULL")
                .await;
        }
    }
    finds(&db, &[(Different, "workflows", "column name")]).await;
}

/// As a column's type is changed without a lock for long: another is added, filled and renamed.
async fn a_reordered_table(db: TestDb) {
    db.fill().await;
    let column = match db.backend() {
        Backend::Sqlite => "varchar(255) CHECK (length(\"user_agent\") <= 255)",
        Backend::Postgres => "varchar(255) COLLATE \"C\"",
    };
    for sql in [
        "ALTER TABLE sessions RENAME COLUMN user_agent TO former",
        &format!("ALTER TABLE sessions ADD COLUMN \"user_agent\" {column}"),
        "UPDATE sessions SET user_agent = former",
        "ALTER TABLE sessions DROP COLUMN former",
    ] {
        db.execute(sql).await;
    }
    assert_eq!(found(&db).await, []);
}

/// Of two on a column the one hid the other.
async fn a_second_foreign_key(db: TestDb) {
    match db.backend() {
        Backend::Sqlite => {
            let key = "FOREIGN KEY (\"owner_id\") REFERENCES \"users\" (\"id\") ON DELETE CASCADE";
            let second =
                format!("{key}, FOREIGN KEY (\"owner_id\") REFERENCES \"plugins\" (\"id\")");
            edit(&db, "agents", key, &second).await;
        }
        Backend::Postgres => {
            db.execute("ALTER TABLE agents ADD CONSTRAINT zz FOREIGN KEY (owner_id) REFERENCES plugins (id) NOT VALID")
                .await;
        }
    }
    finds(&db, &[(Extra, "agents", "foreign key owner_id (2)")]).await;
}

/// What a server can do to a table whose columns stay as they are.
#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_rows_out_on_postgres() {
    let replaced = "DROP INDEX uq_users_email; ";
    for (sql, table, what) in [
        (
            "ALTER TABLE users ENABLE ROW LEVEL SECURITY",
            "users",
            "row-level security",
        ),
        (
            "ALTER TABLE users ENABLE ROW LEVEL SECURITY; ALTER TABLE users FORCE ROW LEVEL SECURITY",
            "users",
            "row-level security, forced",
        ),
        (
            "ALTER TABLE agents DISABLE TRIGGER ALL",
            "agents",
            "foreign key owner_id",
        ),
        (
            "ALTER TABLE users ADD CONSTRAINT uq_users_email UNIQUE (email) DEFERRABLE",
            "users",
            "index uq_users_email",
        ),
        (
            "CREATE UNIQUE INDEX uq_users_email ON users (email COLLATE \"POSIX\")",
            "users",
            "index uq_users_email",
        ),
        (
            "CREATE UNIQUE INDEX uq_users_email ON users (email varchar_pattern_ops)",
            "users",
            "index uq_users_email",
        ),
        (
            "CREATE UNIQUE INDEX uq_users_email ON users (email) NULLS NOT DISTINCT",
            "users",
            "index uq_users_email",
        ),
        (
            "ALTER TABLE users ALTER COLUMN id SET GENERATED ALWAYS",
            "users",
            "column id",
        ),
        (
            "CREATE RULE swallow AS ON INSERT TO logs DO INSTEAD NOTHING",
            "logs",
            "rule swallow",
        ),
        ("ALTER TABLE sessions SET UNLOGGED", "sessions", "unlogged"),
        (
            "ALTER TABLE users ADD CONSTRAINT one EXCLUDE (name WITH =)",
            "users",
            "exclusion constraint one",
        ),
        (
            "CREATE SCHEMA other; CREATE TABLE other.users (id bigint PRIMARY KEY); \
             ALTER TABLE agents DROP CONSTRAINT fk_agents_owner_id, \
             ADD CONSTRAINT fk_agents_owner_id FOREIGN KEY (owner_id) REFERENCES other.users (id) ON DELETE CASCADE",
            "agents",
            "foreign key owner_id",
        ),
    ] {
        let db = TestDb::migrated(Backend::Postgres).await;
        let before = if what.contains("uq_users_email") {
            replaced
        } else {
            ""
        };
        db.execute(&format!("{before}{sql}")).await;
        let found = found(&db).await;
        let found: Vec<_> = found
            .iter()
            .map(|(_, table, what)| (table.as_str(), what.as_str()))
            .collect();
        assert_eq!(found, [(table, what)], "{sql}");
    }
}

/// PostgreSQL prints the conditions of a restored dump otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_dump_is_no_difference() {
    let (from, to) = (
        TestDb::migrated(Backend::Postgres).await,
        TestDb::empty(Backend::Postgres).await,
    );
    let variable = |db: &TestDb, wanted| {
        let found = db.variables().into_iter().find(|(name, _)| *name == wanted);
        found.expect("a variable").1
    };
    let mut shell = std::process::Command::new("sh");
    shell.args(["-euc", "pg_dump --no-owner --no-acl \"$FROM\" | psql --quiet --no-psqlrc -v ON_ERROR_STOP=1 \"$TO\""]);
    for (theirs, ours) in [
        ("PGHOST", "DB_HOST"),
        ("PGPORT", "DB_PORT"),
        ("PGUSER", "DB_USER"),
        ("PGPASSWORD", "DB_PASS"),
    ] {
        shell.env(theirs, variable(&from, ours));
    }
    shell
        .env("FROM", variable(&from, "DB_NAME"))
        .env("TO", variable(&to, "DB_NAME"));
    let ended = shell.output().expect("pg_dump and psql");
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    assert_eq!(found(&to).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn quoted_identifiers_are_no_difference() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let name = db
        .lines("SELECT current_database() AS line")
        .await
        .remove(0);
    db.execute(&format!(
        "ALTER DATABASE {name} SET quote_all_identifiers = on"
    ))
    .await;
    assert_eq!(found(&db).await, []);
}

/// Puts another index in the place of the agents', and takes the users' away.
async fn a_changed_check(db: TestDb) {
    match db.backend() {
        Backend::Sqlite => edit(&db, "users", "'viewer', ", "'viewer', 'root', ").await,
        Backend::Postgres => {
            db.execute("ALTER TABLE users DROP CONSTRAINT users_role_check")
                .await;
            db.execute("ALTER TABLE users ADD CHECK (role IN ('admin', 'editor', 'viewer', 'root', 'user'))").await;
        }
    }
    let found = found(&db).await;
    let [(Missing, missing_in, missing), (Extra, extra_in, extra)] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!([missing_in, extra_in], ["users", "users"]);
    assert!(
        missing.starts_with("check ") && !missing.contains("'root'"),
        "{missing}"
    );
    assert!(
        extra.starts_with("check ") && extra.contains("'root'"),
        "{extra}"
    );
}

async fn a_dropped_foreign_key(db: TestDb) {
    match db.backend() {
        Backend::Sqlite => {
            let key =
                ", FOREIGN KEY (\"owner_id\") REFERENCES \"users\" (\"id\") ON DELETE CASCADE";
            edit(&db, "agents", key, "").await;
        }
        Backend::Postgres => {
            db.execute("ALTER TABLE agents DROP CONSTRAINT fk_agents_owner_id")
                .await;
        }
    }
    finds(&db, &[(Missing, "agents", "foreign key owner_id")]).await;
}

async fn a_foreign_key_that_no_longer_cascades(db: TestDb) {
    match db.backend() {
        Backend::Sqlite => edit(&db, "agents", "ON DELETE CASCADE", "ON DELETE RESTRICT").await,
        Backend::Postgres => {
            db.execute("ALTER TABLE agents DROP CONSTRAINT fk_agents_owner_id")
                .await;
            db.execute("ALTER TABLE agents ADD FOREIGN KEY (owner_id) REFERENCES users (id) ON DELETE RESTRICT").await;
        }
    }
    finds(&db, &[(Different, "agents", "foreign key owner_id")]).await;
}

async fn a_trigger(db: TestDb) {
    let body = match db.backend() {
        Backend::Sqlite => "BEGIN DELETE FROM logs; END",
        Backend::Postgres => {
            let function = "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'";
            db.execute(function).await;
            "EXECUTE FUNCTION nothing()"
        }
    };
    let sql = format!("CREATE TRIGGER mine AFTER INSERT ON logs {body}");
    db.execute(&sql).await;
    assert_eq!(found(&db).await, [], "it is the application's");
}

async fn a_history_that_is_gone(db: TestDb) {
    db.execute(&format!("DROP TABLE {HISTORY}")).await;
    finds(&db, &[(Missing, HISTORY, "")]).await;
}

async fn tables_of_an_application(db: TestDb) {
    db.execute("CREATE TABLE notes (id bigint PRIMARY KEY, author bigint REFERENCES users (id))")
        .await;
    db.execute("CREATE INDEX notes_author ON notes (author)")
        .await;
    assert_eq!(found(&db).await, []);
}

/// Rewrites a table's definition, as SQLite has no ALTER for it.
async fn edit(db: &TestDb, table: &str, from: &str, to: &str) {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let sql = format!(
        "UPDATE sqlite_schema SET sql = replace(sql, {}, {}) WHERE name = '{table}'",
        quoted(from),
        quoted(to)
    );
    let query = format!("SELECT sql AS line FROM sqlite_schema WHERE name = '{table}'");
    let before = db.lines(&query).await;
    db.execute(&format!(
        "PRAGMA writable_schema = ON; {sql}; PRAGMA writable_schema = RESET"
    ))
    .await;
    assert_ne!(db.lines(&query).await, before, "{from} is not there");
}

/// As after rows were copied with their ids. SQLite counts on from the greatest.
async fn a_sequence_behind_its_rows(db: TestDb) {
    db.fill().await;
    db.execute(
        "INSERT INTO users (id, name, email, hashed_password) \
             VALUES (1000, 'Z', 'z@example.org', '!'); \
         INSERT INTO plugins (id, name, description, version) VALUES (1000, 'z', '', '1')",
    )
    .await;
    if db.backend() == Backend::Sqlite {
        return finds(&db, &[]).await;
    }
    let behind = |table| (Different, table, "sequence of id");
    finds(&db, &[behind("plugins"), behind("users")]).await;
    // What it says to do.
    let found = migration::check(&db.outside().await)
        .await
        .expect("a check");
    let mend = found[1].detail.split_once("run ").expect("what to run").1;
    db.execute(mend).await;
    finds(&db, &[behind("plugins")]).await;
    db.execute(
        "INSERT INTO users (name, email, hashed_password) VALUES ('Y', 'y@example.org', '!')",
    )
    .await;
    // A sequence of which nothing was taken, and a role that may not read it.
    db.execute("TRUNCATE plugins RESTART IDENTITY CASCADE")
        .await;
    finds(&db, &[]).await;
    db.execute("INSERT INTO plugins (id, name, description, version) VALUES (1, 'z', '', '1')")
        .await;
    finds(&db, &[behind("plugins")]).await;
}

/// Of a role that may write to some of the tables. One that may write to none only looks.
#[tokio::test(flavor = "multi_thread")]
async fn rights_that_the_role_lacks() {
    let db = TestDb::migrated(Backend::Postgres).await;
    let variables = db.variables();
    let name = variables.iter().find(|(name, _)| *name == "DB_NAME");
    let role = format!("{}_writer", name.expect("a name").1);
    db.execute(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'x'; \
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    ))
    .await;
    let as_role = async || {
        let connection = db.outside().await;
        let transaction = connection.begin().await.expect("it begins");
        let role = format!("SET LOCAL ROLE {role}");
        transaction.execute_unprepared(&role).await.expect("set");
        let found = migration::check(&transaction).await.expect("a check");
        let found = found.into_iter();
        let found: Vec<_> = found
            .map(|one| (one.kind, one.table, one.what, one.detail))
            .collect();
        found
    };
    assert_eq!(as_role().await, []);
    db.execute(&format!(
        "GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
    ))
    .await;
    assert_eq!(as_role().await, []);
    db.execute(&format!(
        "REVOKE INSERT, SELECT ON logs FROM {role}; \
         ALTER TABLE agents ALTER COLUMN id DROP IDENTITY; \
         CREATE SEQUENCE agents_id_seq OWNED BY agents.id"
    ))
    .await;
    let lacks = |table: &str, what: &str| {
        let (rights, grant) = (
            format!("rights of {role}"),
            format!("run GRANT {what} TO {role}"),
        );
        (Missing, table.to_owned(), rights, grant)
    };
    let found = as_role().await;
    let found: Vec<_> = found.into_iter().filter(|one| one.0 == Missing).collect();
    assert_eq!(
        found,
        [
            lacks("agents", "USAGE ON SEQUENCE agents_id_seq"),
            lacks("logs", "SELECT, INSERT ON logs"),
        ]
    );
    db.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}

async fn finds(db: &TestDb, expected: &[(Kind, &str, &str)]) {
    let found = found(db).await;
    let found: Vec<_> = found
        .iter()
        .map(|(kind, table, what)| (*kind, table.as_str(), what.as_str()))
        .collect();
    assert_eq!(found, expected);
}

async fn found(db: &TestDb) -> Vec<(Kind, String, String)> {
    let connection = connection::connect_read_only(&db.config())
        .await
        .expect("it opens");
    let differences = match connection {
        Some(connection) => migration::check(&connection).await,
        None => migration::check(&db.outside().await).await,
    };
    let differences = differences.expect("a check").into_iter();
    differences
        .map(|difference| (difference.kind, difference.table, difference.what))
        .collect()
}
