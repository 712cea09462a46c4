//! The repository of an application's own entity: what its verbs write and return.

use aura_db::sea_orm::entity::prelude::*;
use aura_db::sea_orm::{ActiveValue::Set, Condition, DbBackend, IntoActiveModel, QueryOrder};
use aura_db::{Conventions, Database, Deleted, Error, FieldError, RepositoryEntity, UserId};
use chrono::{DateTime, TimeDelta, Utc};
use testdb::TestDb;

use crate::support::{assert_error, open_at, own_types, refused, user};

testdb::both!(migrated:
    an_inserted_row_is_complete,
    rows_are_found_by_their_keys,
    soft_deleted_rows_are_hidden,
    aggregates_are_of_the_rows_of_a_filter,
    deleted_rows_come_back_or_go,
    deletes_without_a_column_for_it_are_for_good,
    columns_of_other_types_are_refused,
);

pub(crate) mod credential {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "credentials")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub(crate) id: i64,
        #[sea_orm(column_type = "String(StringLen::N(20))")]
        pub(crate) name: String,
        #[sea_orm(column_type = "Text", nullable)]
        pub(crate) note: Option<String>,
        pub(crate) uses: i64,
        pub(crate) owner_id: UserId,
        pub(crate) version: i64,
        pub(crate) created_at: DateTime<Utc>,
        pub(crate) updated_at: DateTime<Utc>,
        pub(crate) created_by: Option<UserId>,
        pub(crate) updated_by: Option<UserId>,
        pub(crate) deleted_at: Option<DateTime<Utc>>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl RepositoryEntity for credential::Entity {
    fn name() -> &'static str {
        "credential"
    }

    fn conventions() -> Conventions<credential::Column> {
        Conventions::by_name::<Self>().lock(credential::Column::Version)
    }

    fn validate(row: &credential::ActiveModel) -> Vec<FieldError> {
        match &row.name {
            Set(name) if name.trim().is_empty() => {
                vec![FieldError::new("name", "must not be empty")]
            }
            _ => Vec::new(),
        }
    }
}

/// Its key has two columns, of different types, and nothing else is by convention.
pub(crate) mod quota {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "quotas")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) user_id: UserId,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) kind: String,
        pub(crate) used: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl RepositoryEntity for quota::Entity {}

/// Its key is a UUID.
mod ticket {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "tickets")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(super) id: Uuid,
        pub(super) title: String,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl RepositoryEntity for ticket::Entity {}

/// Its columns have names of the conventions and other types.
mod misfit {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "quotas")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub(super) id: i64,
        pub(super) deleted_at: Option<String>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl RepositoryEntity for misfit::Entity {}

/// Opens the database of a test, with the tables of these entities beside ours and two
/// users. The clock stands still.
pub(crate) async fn with_credentials(test: &TestDb) -> (Database, [UserId; 2]) {
    let (db, _) = open_at(test).await;
    let users = [user(&db, "ada").await.id, user(&db, "bob").await.id];
    let (key, time) = own_types(&db);
    let id = match db.backend() {
        DbBackend::Postgres => "uuid",
        _ => "blob",
    };
    test.execute(&format!(
        "CREATE TABLE credentials (id {key}, name varchar(20) NOT NULL, note text,
         uses bigint NOT NULL DEFAULT 0, owner_id bigint NOT NULL REFERENCES users (id),
         version bigint NOT NULL, created_at {time} NOT NULL, updated_at {time} NOT NULL,
         created_by bigint, updated_by bigint, deleted_at {time}, UNIQUE (owner_id, name))"
    ))
    .await;
    test.execute(
        "CREATE TABLE quotas (user_id bigint NOT NULL, kind text NOT NULL,
         used bigint NOT NULL, PRIMARY KEY (user_id, kind))",
    )
    .await;
    test.execute(&format!(
        "CREATE TABLE tickets (id {id} PRIMARY KEY, title text NOT NULL)"
    ))
    .await;
    (db, users)
}

pub(crate) fn credential(name: &str) -> credential::ActiveModel {
    credential::ActiveModel {
        name: Set(name.to_owned()),
        ..Default::default()
    }
}

async fn an_inserted_row_is_complete(test: TestDb) {
    let (db, [ada, bob]) = with_credentials(&test).await;
    let now = db.now();
    let mine = db.acting_as(ada).repository::<credential::Entity>();
    let github = mine.insert(credential("GitHub")).await.expect("inserted");
    assert_eq!(
        github,
        credential::Model {
            id: github.id,
            name: "GitHub".to_owned(),
            note: None,
            uses: 0,
            owner_id: ada,
            version: 1,
            created_at: now,
            updated_at: now,
            created_by: Some(ada),
            updated_by: Some(ada),
            deleted_at: None,
        }
    );
    // What is set stays as it is set.
    let before = now - TimeDelta::days(1);
    let imported = credential::ActiveModel {
        owner_id: Set(bob),
        created_at: Set(before),
        version: Set(7),
        ..credential("GitHub")
    };
    let imported = mine.insert(imported).await.expect("inserted");
    assert_eq!(
        (imported.owner_id, imported.created_at, imported.version),
        (bob, before, 7)
    );
    assert_error!(
        mine.insert(credential("GitHub")).await,
        Error::Conflict { table, columns, deleted: false }
            if table == "credentials" && columns == ["name", "owner_id"]
    );
    let foreign = credential::ActiveModel {
        owner_id: Set(UserId(i64::MAX)),
        ..credential("Slack")
    };
    assert_error!(mine.insert(foreign).await, Error::ForeignKey { .. });
}

async fn rows_are_found_by_their_keys(test: TestDb) {
    let (db, [ada, bob]) = with_credentials(&test).await;
    let credentials = db.acting_as(ada).repository::<credential::Entity>();
    let mut rows = Vec::new();
    for name in ["a", "b", "c"] {
        rows.push(
            credentials
                .insert(credential(name))
                .await
                .expect("inserted"),
        );
    }
    assert_eq!(credentials.get(rows[1].id).await.expect("there"), rows[1]);
    // Twice, because the statement is kept.
    for _ in 0..2 {
        assert_eq!(credentials.find(i64::MAX).await.expect("read"), None);
    }
    let error = credentials.get(-1).await.expect_err("missing");
    assert_eq!(
        error.to_string(),
        "there is no credential -1, or it is deleted"
    );
    let many = credentials.find_many([rows[2].id, -1, rows[0].id]).await;
    assert_eq!(many.expect("read"), [rows[2].clone(), rows[0].clone()]);
    let none = credentials.find_many(Vec::<i64>::new()).await;
    assert!(none.expect("read").is_empty());
    assert_eq!(
        refused(credentials.find_many(0..1_001).await),
        ["keys"],
        "too many"
    );

    let quotas = db.repository::<quota::Entity>();
    for (user_id, kind) in [(ada, "runs"), (bob, "runs"), (ada, "rows")] {
        let row = quota::Model {
            user_id,
            kind: kind.to_owned(),
            used: user_id.0,
        };
        let inserted = quotas.insert(row.clone().into_active_model().reset_all());
        assert_eq!(inserted.await.expect("inserted"), row);
    }
    let key = |user, kind: &str| (user, kind.to_owned());
    let found = quotas.get(key(bob, "runs")).await.expect("there");
    assert_eq!((found.user_id, found.used), (bob, bob.0));
    let many = quotas.find_many([key(bob, "rows"), key(ada, "rows"), key(ada, "runs")]);
    let many = many.await.expect("read");
    let kinds: Vec<_> = many.iter().map(|quota| &*quota.kind).collect();
    assert_eq!(kinds, ["rows", "runs"]);
    let error = quotas.get(key(bob, "it's")).await.expect_err("missing");
    assert_eq!(
        error.to_string(),
        format!("there is no quotas {bob}, it's, or it is deleted")
    );

    let tickets = db.repository::<ticket::Entity>();
    let id = Uuid::from_u128(7);
    let ticket = ticket::Model {
        id,
        title: "x".to_owned(),
    };
    let inserted = tickets.insert(ticket.clone().into_active_model().reset_all());
    assert_eq!(inserted.await.expect("inserted"), ticket);
    assert_eq!(tickets.find(id).await.expect("read"), Some(ticket));
    assert_error!(
        tickets.get(Uuid::from_u128(8)).await,
        Error::NotFound { what: "tickets", key } if key == Uuid::from_u128(8).to_string()
    );
}

async fn soft_deleted_rows_are_hidden(test: TestDb) {
    let (db, [ada, _]) = with_credentials(&test).await;
    let credentials = db.acting_as(ada).repository::<credential::Entity>();
    let kept = credentials
        .insert(credential("kept"))
        .await
        .expect("inserted");
    let gone = credentials
        .insert(credential("gone"))
        .await
        .expect("inserted");
    credentials.delete(gone.id).await.expect("deleted");
    let with = |deleted| credentials.deleted(deleted);
    let ids = |rows: Vec<credential::Model>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    for (deleted, expected) in [
        (Deleted::Hidden, vec![kept.id]),
        (Deleted::Included, vec![kept.id, gone.id]),
        (Deleted::Only, vec![gone.id]),
    ] {
        let rows = with(deleted);
        let both = [kept.id, gone.id];
        assert_eq!(ids(rows.find_by(()).await.expect("read")), expected);
        assert_eq!(ids(rows.find_many(both).await.expect("read")), expected);
        assert_eq!(rows.count(()).await.expect("read"), expected.len() as u64);
        for id in both {
            let found = rows.find(id).await.expect("read");
            assert_eq!(found.is_some(), expected.contains(&id), "{deleted:?}");
            let named = credential::COLUMN.id.eq(id);
            let exists = rows.exists(named.clone()).await.expect("read");
            assert_eq!(exists, expected.contains(&id), "{deleted:?}");
            let first = rows.first(named).await.expect("read");
            assert_eq!(first.is_some(), expected.contains(&id), "{deleted:?}");
        }
    }
    assert_error!(
        credentials.get(gone.id).await,
        Error::NotFound { what: "credential", key } if key == gone.id.to_string()
    );
}

async fn aggregates_are_of_the_rows_of_a_filter(test: TestDb) {
    let (db, [ada, bob]) = with_credentials(&test).await;
    let credentials = db.repository::<credential::Entity>();
    for (owner, name, uses) in [(ada, "a", 1), (ada, "b", 2), (bob, "c", 4), (bob, "d", 9)] {
        let row = credential::ActiveModel {
            owner_id: Set(owner),
            uses: Set(uses),
            ..credential(name)
        };
        credentials.insert(row).await.expect("inserted");
    }
    let last = credentials.first(credential::Entity::find().order_by_desc(credential::Column::Id));
    let last = last.await.expect("read").expect("there");
    credentials.delete(last.id).await.expect("deleted");
    let uses = credential::Column::Uses;
    let sum: Option<i64> = credentials.sum(uses, ()).await.expect("read");
    assert_eq!(sum, Some(7));
    let of_ada = || credential::COLUMN.owner_id.eq(ada);
    assert_eq!(
        credentials.avg(uses, of_ada()).await.expect("read"),
        Some(1.5)
    );
    let minimum: Option<String> = credentials
        .min(credential::Column::Name, Condition::all().add(of_ada()))
        .await
        .expect("read");
    assert_eq!(minimum.as_deref(), Some("a"));
    let greatest: Option<i64> = credentials.max(uses, ()).await.expect("read");
    assert_eq!(greatest, Some(4));
    let none = || credential::COLUMN.name.eq("z");
    let sum: Option<i64> = credentials.sum(uses, none()).await.expect("read");
    assert_eq!(sum, None);
    assert_eq!(credentials.avg(uses, none()).await.expect("read"), None);
    assert_eq!(credentials.count(none()).await.expect("read"), 0);
}

async fn deleted_rows_come_back_or_go(test: TestDb) {
    let (db, [ada, _]) = with_credentials(&test).await;
    let credentials = db.acting_as(ada).repository::<credential::Entity>();
    let row = credentials.insert(credential("a")).await.expect("inserted");
    assert_error!(
        credentials.purge(row.id).await,
        Error::State {
            what: "credential",
            state: "is not deleted",
            ..
        }
    );
    credentials.delete(row.id).await.expect("deleted");
    let deleted = credentials.deleted(Deleted::Only).get(row.id).await;
    let deleted = deleted.expect("there");
    assert_eq!(deleted.deleted_at, Some(db.now()));
    assert_error!(credentials.delete(row.id).await, Error::NotFound { .. });
    let restored = credentials.restore(row.id).await.expect("restored");
    let expected = credential::Model {
        version: 3,
        ..row.clone()
    };
    assert_eq!(restored, expected);
    // Once more changes nothing.
    let again = credentials.restore(row.id).await.expect("there");
    assert_eq!(again, restored);
    credentials.delete(row.id).await.expect("deleted");
    credentials.purge(row.id).await.expect("purged");
    assert_error!(credentials.restore(row.id).await, Error::NotFound { .. });
    assert_error!(credentials.purge(row.id).await, Error::NotFound { .. });
    let all = credentials.deleted(Deleted::Included).count(()).await;
    assert_eq!(all.expect("read"), 0);
}

async fn deletes_without_a_column_for_it_are_for_good(test: TestDb) {
    let (db, [ada, _]) = with_credentials(&test).await;
    let quotas = db.repository::<quota::Entity>();
    let key = || (ada, "runs".to_owned());
    let row = quota::ActiveModel {
        user_id: Set(ada),
        kind: Set("runs".to_owned()),
        used: Set(1),
    };
    quotas.insert(row.clone()).await.expect("inserted");
    for done in [
        quotas.restore(key()).await.map(|_| ()),
        quotas.purge(key()).await,
    ] {
        let error = done.expect_err("no soft deletes");
        let expected = format!(
            "quotas {ada}, runs is never soft-deleted, because its table has no column for it: \
             use `delete`, which deletes for good"
        );
        assert_eq!(error.to_string(), expected);
    }
    quotas.delete(key()).await.expect("deleted");
    assert_error!(quotas.delete(key()).await, Error::NotFound { .. });
    quotas.insert(row).await.expect("the key is free");
    assert_eq!(quotas.delete_where(()).await.expect("deleted"), 1);
}

async fn columns_of_other_types_are_refused(test: TestDb) {
    let (db, _) = with_credentials(&test).await;
    let error = db.repository::<misfit::Entity>().find(1).await;
    let error = error.expect_err("another type");
    let source = std::error::Error::source(&error).expect("a reason");
    assert_eq!(
        source.to_string(),
        "quotas.deleted_at must be a time with a zone to be what its name says; override \
         `RepositoryEntity::conventions` where it is something else"
    );
}
