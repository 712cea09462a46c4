//! Tables that are made of entities.

use aura_db::entity;
use aura_db::migration::{Migration, Plan, Runner};
use aura_db::sea_orm::Set;
use aura_db::{Error, RepositoryEntity};
use serde_json::json;
use testdb::TestDb;

use crate::support::{NAMES, Step, changes, decisions, delete_users, lines, open, run};

testdb::both!(migrated: a_table_is_made_of_its_entity);

/// The first release of the application.
mod labels {
    use aura_db::entity::{Document, UserId};
    use aura_db::sea_orm::{self, entity::prelude::*};

    #[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
    #[sea_orm(rs_type = "String", db_type = "String(StringLen::N(16))")]
    pub(crate) enum Color {
        #[sea_orm(string_value = "red")]
        Red,
        #[sea_orm(string_value = "blue")]
        Blue,
    }

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "labels")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub(crate) id: i64,
        #[sea_orm(column_type = "String(StringLen::N(40))", unique_key = "owner_name")]
        pub(crate) name: String,
        pub(crate) about: Option<String>,
        #[sea_orm(unique)]
        pub(crate) slug: String,
        pub(crate) color: Color,
        #[sea_orm(indexed)]
        pub(crate) rank: i64,
        #[sea_orm(default_value = 1.5)]
        pub(crate) weight: f64,
        pub(crate) small: Option<i32>,
        pub(crate) is_open: bool,
        pub(crate) key: Uuid,
        pub(crate) price: Option<Decimal>,
        pub(crate) day: Option<Date>,
        pub(crate) bytes: Option<Vec<u8>>,
        #[sea_orm(unique_key = "owner_name")]
        pub(crate) owner_id: UserId,
        pub(crate) created_at: DateTimeUtc,
        pub(crate) updated_at: DateTimeUtc,
        pub(crate) deleted_at: Option<DateTimeUtc>,
        pub(crate) tags: Option<Json>,
        #[sea_orm(save_as = "json_text")]
        pub(crate) settings: Option<Document>,
        #[sea_orm(belongs_to, from = "owner_id", to = "id", on_delete = "Cascade")]
        pub(crate) owner: BelongsTo<aura_db::entity::users::Entity>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl RepositoryEntity for labels::Entity {}

/// Rows between labels, and a key of two columns.
mod pairs {
    use aura_db::sea_orm::{self, entity::prelude::*};

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "a_pairs")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) label_id: i64,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) other_id: i64,
        #[sea_orm(
            belongs_to,
            relation_enum = "Label",
            from = "label_id",
            to = "id",
            on_delete = "Cascade"
        )]
        pub(crate) label: BelongsTo<super::labels::Entity>,
        #[sea_orm(
            belongs_to,
            relation_enum = "Other",
            from = "other_id",
            to = "id",
            on_delete = "Cascade"
        )]
        pub(crate) other: BelongsTo<super::labels::Entity>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

async fn a_table_is_made_of_its_entity(test: TestDb) {
    let with = |steps: Vec<Box<dyn Migration>>| {
        Runner::builder()
            .history("labels_migrations")
            .after(aura_db::migration::runner())
            .steps(steps)
            .entity(pairs::Entity)
            .entity(labels::Entity)
            .build()
    };
    let missing = changes(&with(Vec::new())).await;
    assert_eq!(
        lines(&missing),
        [
            "missing labels",
            "missing labels index uq_labels_slug",
            "missing labels index uq_labels_owner_id_name",
            "missing labels index idx_labels_rank",
            "missing a_pairs",
            "missing a_pairs index idx_a_pairs_other_id",
        ]
    );
    assert_eq!(decisions(&missing), [""; 0]);
    let app = with(vec![Box::new(Step::of(NAMES[0], &missing, false))]);
    assert_eq!(changes(&app).await, []);
    run(&app, &test, Plan::Up(None)).await.expect("applied");

    let (db, ada) = open(&test).await;
    let labels = db.acting_as(ada.id).repository::<labels::Entity>();
    let new = |name: &str| labels::ActiveModel {
        name: Set(name.to_owned()),
        slug: Set(name.to_lowercase()),
        color: Set(labels::Color::Blue),
        rank: Set(1 << 40),
        small: Set(Some(-5)),
        is_open: Set(true),
        key: Set("6f2c1c0e-5a1d-4b0f-8a43-5d1f1f1d8a01"
            .parse()
            .expect("a key")),
        price: Set(Some("12.50".parse().expect("a price"))),
        day: Set("2026-12-01".parse().ok()),
        bytes: Set(Some(vec![0, 255])),
        tags: Set(Some(json!({"a": [1]}))),
        settings: Set(Some(r#"{"b":  1.50}"#.parse().expect("a document"))),
        ..Default::default()
    };
    let made = labels.insert(new("A")).await.expect("inserted");
    assert_eq!(labels.get(made.id).await.expect("found"), made);
    assert_eq!(
        (made.weight, made.owner_id, made.rank),
        (1.5, ada.id, 1 << 40)
    );
    assert_eq!(made.settings.expect("set").as_str(), r#"{"b":  1.50}"#);
    for (taken, columns) in [
        (
            labels::ActiveModel {
                slug: Set("b".to_owned()),
                ..new("A")
            },
            ["owner_id", "name"].as_slice(),
        ),
        (
            labels::ActiveModel {
                name: Set("B".to_owned()),
                ..new("A")
            },
            &["slug"],
        ),
    ] {
        let error = labels.insert(taken).await.expect_err("taken");
        let Error::Conflict { columns: found, .. } = &error else {
            panic!("{error:?}")
        };
        let mut found: Vec<&str> = found.iter().map(String::as_str).collect();
        found.sort_unstable();
        let mut columns = columns.to_vec();
        columns.sort_unstable();
        assert_eq!(found, columns);
    }
    let long = labels.insert(new(&"x".repeat(41))).await;
    assert!(long.is_err(), "{long:?}");

    // What the database fills in, and what goes with its owner.
    let insert = "INSERT INTO labels (name, slug, color, rank, is_open, key, owner_id) \
         SELECT 'raw', 'raw', 'red', 1, is_open, key, owner_id FROM labels";
    test.execute(insert).await;
    assert_eq!(labels.count(()).await.expect("a count"), 2);
    delete_users(&db).await;
    assert_eq!(labels.count(()).await.expect("a count"), 0);
    db.close().await;
    run(&app, &test, Plan::Down(1)).await.expect("reversed");
}

#[tokio::test]
async fn the_entities_of_aura_are_what_its_steps_make() {
    use entity::{
        agents, execution_attempts, execution_limits, executions, logs, plugins, sessions, users,
        workflow_plugins, workflow_versions, workflows,
    };
    let runner = Runner::builder()
        .history("x")
        .steps(aura_db::migration::steps())
        .entity(workflow_plugins::Entity)
        .entity(workflow_versions::Entity)
        .entity(agents::Entity)
        .entity(logs::Entity)
        .entity(execution_limits::Entity)
        .entity(execution_attempts::Entity)
        .entity(executions::Entity)
        .entity(workflows::Entity)
        .entity(plugins::Entity)
        .entity(sessions::Entity)
        .entity(users::Entity)
        .build();
    let found = changes(&runner).await;
    assert_eq!(lines(&found), [""; 0]);
}
