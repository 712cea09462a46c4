//! Indexes that were changed by hand.

use migration::catalog::Kind::{Different, Extra, Missing};
use testdb::TestDb;

use super::{finds, found};

testdb::both!(migrated:
    a_dropped_index,
    an_extra_index,
    an_index_of_the_same_name_on_something_else,
    a_unique_index_that_is_no_longer_unique,
    an_index_on_a_part_of_the_rows,
    an_index_on_a_part_of_the_rows_in_lower_case,
);

async fn a_dropped_index(db: TestDb) {
    db.execute("DROP INDEX idx_logs_execution_id").await;
    finds(&db, &[(Missing, "logs", "index idx_logs_execution_id")]).await;
}

async fn an_extra_index(db: TestDb) {
    db.execute("CREATE INDEX mine ON workflows (description)")
        .await;
    assert_eq!(found(&db).await, [], "it is the application's");
    // It refuses rows of ours.
    db.execute("CREATE UNIQUE INDEX unwanted ON workflows (name)")
        .await;
    finds(&db, &[(Extra, "workflows", "index unwanted")]).await;
}

async fn an_index_of_the_same_name_on_something_else(db: TestDb) {
    replace_index(&db, "INDEX", "(owner_id)").await;
    db.execute("CREATE UNIQUE INDEX uq_users_email ON users (hashed_password)")
        .await;
    finds(
        &db,
        &[
            (Different, "agents", "index uq_agents_owner_id_name"),
            (Different, "users", "index uq_users_email"),
        ],
    )
    .await;
}

async fn a_unique_index_that_is_no_longer_unique(db: TestDb) {
    replace_index(&db, "INDEX", "(owner_id, name)").await;
    db.execute("CREATE UNIQUE INDEX uq_users_email ON users (email)")
        .await;
    finds(
        &db,
        &[(Different, "agents", "index uq_agents_owner_id_name")],
    )
    .await;
}

async fn an_index_on_a_part_of_the_rows(db: TestDb) {
    replace_index(&db, "UNIQUE INDEX", "(owner_id, name) WHERE is_enabled").await;
    db.execute("CREATE UNIQUE INDEX uq_users_email ON users (lower(email))")
        .await;
    finds(
        &db,
        &[
            (Different, "agents", "index uq_agents_owner_id_name"),
            (Different, "users", "index uq_users_email"),
        ],
    )
    .await;
}

async fn an_index_on_a_part_of_the_rows_in_lower_case(db: TestDb) {
    for condition in ["where is_enabled", "\nWhere\tis_enabled"] {
        db.execute("DROP INDEX uq_agents_owner_id_name").await;
        let sql = "CREATE UNIQUE INDEX uq_agents_owner_id_name ON agents (owner_id, name)";
        db.execute(&format!("{sql} {condition}")).await;
        let index = (Different, "agents", "index uq_agents_owner_id_name");
        finds(&db, &[index]).await;
    }
}

async fn replace_index(db: &TestDb, kind: &str, on: &str) {
    db.execute("DROP INDEX uq_users_email").await;
    db.execute("DROP INDEX uq_agents_owner_id_name").await;
    db.execute(&format!(
        "CREATE {kind} uq_agents_owner_id_name ON agents {on}"
    ))
    .await;
}
