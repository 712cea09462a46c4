//! Rows that conflict with others in columns which their entity declares to be unique.

use aura_db::sea_orm::entity::prelude::*;
use aura_db::sea_orm::{ActiveValue::Set, IntoActiveModel};
use aura_db::{Database, Error, RepositoryEntity};
use testdb::TestDb;

use crate::support::{assert_error, open, own_types};

testdb::both!(migrated:
    a_conflict_names_its_columns,
    a_conflict_spares_the_transaction,
    nulls_are_like_no_other,
);

mod channel {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "channels")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub(super) id: i64,
        #[sea_orm(unique)]
        pub(super) slug: Option<String>,
        #[sea_orm(unique_key = "channels_team_name")]
        pub(super) team: i64,
        #[sea_orm(unique_key = "channels_team_name")]
        pub(super) name: String,
        pub(super) deleted_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl RepositoryEntity for channel::Entity {}

async fn with_channels(test: &TestDb) -> Database {
    let db = open(test).await;
    let (key, time) = own_types(&db);
    test.execute(&format!(
        "CREATE TABLE channels (id {key}, slug text UNIQUE, team bigint NOT NULL,
         name text NOT NULL, deleted_at {time}, UNIQUE (team, name))"
    ))
    .await;
    db
}

fn channel(slug: Option<&str>, team: i64, name: &str) -> channel::ActiveModel {
    channel::ActiveModel {
        slug: Set(slug.map(str::to_owned)),
        team: Set(team),
        name: Set(name.to_owned()),
        ..Default::default()
    }
}

async fn a_conflict_names_its_columns(test: TestDb) {
    let db = with_channels(&test).await;
    let channels = db.repository::<channel::Entity>();
    let first = channels.insert(channel(Some("a"), 1, "a")).await;
    let first = first.expect("inserted");
    assert_error!(
        channels.insert(channel(Some("a"), 2, "b")).await,
        Error::Conflict { table, columns, deleted: false }
            if table == "channels" && columns == ["slug"]
    );
    assert_error!(
        channels.insert(channel(Some("b"), 1, "a")).await,
        Error::Conflict { columns, deleted: false, .. } if columns == ["name", "team"]
    );
    let same_key = channel::ActiveModel {
        id: Set(first.id),
        ..channel(Some("b"), 2, "b")
    };
    assert_error!(
        channels.insert(same_key).await,
        Error::Conflict { columns, deleted: false, .. } if columns == ["id"]
    );
    let second = channels.insert(channel(Some("b"), 2, "b")).await;
    let second = second.expect("inserted");
    let rename = || channel::ActiveModel {
        team: Set(1),
        name: Set("a".to_owned()),
        ..second.clone().into_active_model()
    };
    assert_error!(
        channels.update(rename()).await,
        Error::Conflict { columns, deleted: false, .. } if columns == ["name", "team"]
    );
    // To its own values it may be set.
    let same = channel::ActiveModel {
        slug: Set(Some("b".to_owned())),
        ..second.clone().into_active_model()
    };
    channels.update(same).await.expect("updated");
    // A deleted row keeps its values.
    channels.delete(first.id).await.expect("deleted");
    for result in [
        channels.insert(channel(Some("c"), 1, "a")).await,
        channels.update(rename()).await,
    ] {
        let error = result.expect_err("a conflict");
        assert_eq!(
            error.to_string(),
            "a deleted row of channels has this name, team: restore it, or purge it to use it \
             again"
        );
    }
    channels.purge(first.id).await.expect("purged");
    channels.update(rename()).await.expect("it is free");
}

async fn a_conflict_spares_the_transaction(test: TestDb) {
    let db = with_channels(&test).await;
    let done = db
        .transaction(|tx| async move {
            let channels = tx.repository::<channel::Entity>();
            let first = channels.insert(channel(Some("a"), 1, "a")).await?;
            let again = channels.insert(channel(Some("a"), 1, "a")).await;
            assert_error!(again, Error::Conflict { .. });
            let second = channels.insert(channel(None, 1, "b")).await?;
            let rename = channel::ActiveModel {
                slug: Set(first.slug),
                ..second.into_active_model()
            };
            assert_error!(channels.update(rename).await, Error::Conflict { .. });
            channels.count(()).await
        })
        .await;
    assert_eq!(done.expect("committed"), 2);
}

async fn nulls_are_like_no_other(test: TestDb) {
    let db = with_channels(&test).await;
    let channels = db.repository::<channel::Entity>();
    for name in ["a", "b"] {
        channels
            .insert(channel(None, 1, name))
            .await
            .expect("inserted");
    }
    let second = channels.first(channel::COLUMN.name.eq("b")).await;
    let mut row = second.expect("read").expect("there").into_active_model();
    row.slug = Set(None);
    channels.update(row).await.expect("updated");
}
