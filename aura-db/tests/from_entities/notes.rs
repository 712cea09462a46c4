//! What a person has to change, and what can't be compared.

use aura_db::entity;
use aura_db::migration::{DbBackend, Migration, Runner, Statements};

use crate::support::{app, changes, decisions, first, fourth, lines, second};

#[tokio::test]
async fn what_only_a_person_can_change_is_a_note() {
    let made = changes(&app(first::Entity, &[])).await;
    let found = changes(&app(fourth::Entity, &[(&made, false)])).await;
    assert_eq!(
        lines(&found),
        [
            "different tokens column name (is varchar(40) in the schema and varchar(80) in the entity, and is not null in the schema and may be null in the entity)",
            "missing tokens column owner_id",
            "extra tokens column legacy",
        ]
    );
    let Statements { sqlite, postgres } = &found[0].up;
    assert!(sqlite.is_empty() && postgres.is_empty(), "{found:?}");
    assert!(
        found[0]
            .decide
            .as_deref()
            .is_some_and(|note| note.contains("make the table anew"))
    );
    // The foreign key that the second release declares can't be added to its column.
    let steps = [(&made[..], false), (&found[..], false)];
    let found = changes(&app(second::Entity, &steps)).await;
    let key = found
        .iter()
        .find(|change| change.difference.what == "foreign key owner_id");
    let note = key
        .and_then(|change| change.decide.as_deref())
        .expect("a note");
    assert!(
        note.starts_with(
            "the foreign key tokens (owner_id) is missing: to users (id) on delete SET NULL"
        ),
        "{note}"
    );
}

#[tokio::test]
async fn entities_that_cant_be_compared_are_refused() {
    struct Broken;

    impl Migration for Broken {
        fn name(&self) -> &'static str {
            "m20261201_000001_broken"
        }

        fn up(&self, _: DbBackend) -> Vec<String> {
            vec!["CREATE EXTENSION citext".to_owned()]
        }
    }

    mod elsewhere {
        use aura_db::sea_orm::{self, entity::prelude::*};

        #[sea_orm::model]
        #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
        #[sea_orm(schema_name = "sys", table_name = "tokens")]
        pub(crate) struct Model {
            #[sea_orm(primary_key)]
            pub(crate) id: i64,
        }

        impl ActiveModelBehavior for ActiveModel {}
    }

    let base = || {
        Runner::builder()
            .history("x")
            .after(aura_db::migration::runner())
    };
    for (runner, words) in [
        (base(), "has no entities"),
        (
            base().entity(entity::users::Entity),
            "the table users of an entity is one of",
        ),
        (
            base().entity(first::Entity).entity(second::Entity),
            "two entities have the table tokens",
        ),
        (base().entity(elsewhere::Entity), "names the schema sys"),
        (
            base().entity(first::Entity).steps(vec![Box::new(Broken)]),
            "m20261201_000001_broken doesn't run on an empty SQLite database",
        ),
    ] {
        let error = runner.build().entity_changes().await.expect_err(words);
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
}

#[tokio::test]
async fn types_that_sqlite_lacks_are_a_note() {
    mod kinds {
        use aura_db::sea_orm::{self, entity::prelude::*};

        #[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
        #[sea_orm(rs_type = "String", db_type = "Enum", enum_name = "mood")]
        pub(crate) enum Mood {
            #[sea_orm(string_value = "it's fine")]
            Fine,
            #[sea_orm(string_value = "bad")]
            Bad,
        }

        #[sea_orm::model]
        #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
        #[sea_orm(table_name = "kinds")]
        pub(crate) struct Model {
            #[sea_orm(primary_key)]
            pub(crate) id: i64,
            pub(crate) tags: Vec<String>,
            pub(crate) mood: Mood,
            pub(crate) other: Option<Mood>,
        }

        impl ActiveModelBehavior for ActiveModel {}
    }

    let found = changes(&app(kinds::Entity, &[])).await;
    let notes = decisions(&found).join("");
    for words in [
        "kinds.tags is an array, which SQLite has no type for",
        "kinds.mood is of the type mood; leave its CREATE TYPE and DROP TYPE out",
    ] {
        assert!(notes.contains(words), "{notes}");
    }
    let Statements { sqlite, postgres } = &found[0].up;
    assert_eq!(
        postgres[0],
        "CREATE TYPE \"mood\" AS ENUM (E'it\\'s fine', 'bad')"
    );
    assert_eq!(postgres.len(), 2, "{postgres:?}");
    assert!(
        postgres[1].contains("\"tags\" varchar[] NOT NULL"),
        "{postgres:?}"
    );
    let down = ["DROP TABLE \"kinds\"", "DROP TYPE \"mood\""];
    assert_eq!(found[0].down.postgres, down);
    let words = "CHECK (\"mood\" IN ('it''s fine', 'bad'))";
    assert!(sqlite[0].contains(words), "{sqlite:?}");
    assert_eq!(changes(&app(kinds::Entity, &[(&found, false)])).await, []);
}
