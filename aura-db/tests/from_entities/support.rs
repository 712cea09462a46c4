//! A table in several releases of an application, and steps of what was found.

use aura_db::entity;
use aura_db::migration::{DbBackend, EntityChange, Error, Migration, Plan, Runner, Statements};
use aura_db::sea_orm::EntityTrait;
use aura_db::sea_orm::sea_query::Query;
use aura_db::{Database, NewUser, User};
use testdb::TestDb;

/// A short table, of which there are later releases.
macro_rules! release {
    ($module:ident { $($fields:tt)* }) => {
        #[allow(dead_code, reason = "SeaORM's macro makes more than a test uses")]
        pub(crate) mod $module {
            #[allow(unused_imports, reason = "not every release uses all of it")]
            use aura_db::entity::UserId;
            use aura_db::sea_orm::{self, entity::prelude::*};

            #[sea_orm::model]
            #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
            #[sea_orm(table_name = "tokens")]
            pub(crate) struct Model {
                #[sea_orm(primary_key)]
                pub(crate) id: i64,
                $($fields)*
            }

            impl ActiveModelBehavior for ActiveModel {}
        }
    };
}
pub(crate) use release;

release!(first {
    #[sea_orm(column_type = "String(StringLen::N(40))")]
    pub(crate) name: String,
    #[sea_orm(indexed)]
    pub(crate) legacy: Option<String>,
});

release!(second {
    #[sea_orm(
        column_type = "String(StringLen::N(40))",
        renamed_from = "name",
        unique
    )]
    pub(crate) title: String,
    #[sea_orm(indexed)]
    pub(crate) legacy: Option<String>,
    #[sea_orm(default_value = 7)]
    pub(crate) uses: i64,
    pub(crate) owner_id: Option<UserId>,
    #[sea_orm(belongs_to, from = "owner_id", to = "id", on_delete = "SetNull")]
    pub(crate) owner: BelongsTo<Option<aura_db::entity::users::Entity>>,
});

release!(third {
    #[sea_orm(column_type = "String(StringLen::N(40))")]
    pub(crate) name: String,
    pub(crate) created_at: DateTimeUtc,
});

release!(fourth {
    #[sea_orm(column_type = "String(StringLen::N(80))", nullable)]
    pub(crate) name: Option<String>,
    pub(crate) owner_id: Option<UserId>,
});

/// A step of what [`Runner::entity_changes`] found.
pub(crate) struct Step {
    name: &'static str,
    up: Statements,
    down: Statements,
}

impl Step {
    /// Of everything that deletes nothing, or of all.
    pub(crate) fn of(name: &'static str, changes: &[EntityChange], drop: bool) -> Self {
        let changes: Vec<_> = changes
            .iter()
            .filter(|change| drop || !change.drops)
            .collect();
        let all = |of: fn(&EntityChange) -> &Statements, backward: bool| {
            let mut changes = changes.clone();
            if backward {
                changes.reverse();
            }
            let of = |backend| {
                let sql = changes.iter().flat_map(|change| of(change).of(backend));
                sql.cloned().collect()
            };
            Statements {
                sqlite: of(DbBackend::Sqlite),
                postgres: of(DbBackend::Postgres),
            }
        };
        Self {
            name,
            up: all(|change| &change.up, false),
            down: all(|change| &change.down, true),
        }
    }
}

impl Migration for Step {
    fn name(&self) -> &'static str {
        self.name
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        self.up.of(backend).to_vec()
    }

    fn down(&self, backend: DbBackend) -> Vec<String> {
        self.down.of(backend).to_vec()
    }
}

pub(crate) const NAMES: [&str; 3] = [
    "m20261201_000001_a",
    "m20261202_000001_b",
    "m20261203_000001_c",
];

/// The application after steps of these changes.
pub(crate) fn app<E: EntityTrait>(entity: E, steps: &[(&[EntityChange], bool)]) -> Runner {
    let steps = steps.iter().zip(NAMES).map(|((changes, drop), name)| {
        Box::new(Step::of(name, changes, *drop)) as Box<dyn Migration>
    });
    Runner::builder()
        .history("labels_migrations")
        .after(aura_db::migration::runner())
        .steps(steps.collect())
        .entity(entity)
        .build()
}

pub(crate) async fn changes(runner: &Runner) -> Vec<EntityChange> {
    runner.entity_changes().await.expect("compared")
}

/// What differs, in lines.
pub(crate) fn lines(changes: &[EntityChange]) -> Vec<String> {
    let line = |change: &EntityChange| {
        let line = change.difference.to_string();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    changes.iter().map(line).collect()
}

pub(crate) fn decisions(changes: &[EntityChange]) -> Vec<&str> {
    changes
        .iter()
        .filter_map(|change| change.decide.as_deref())
        .collect()
}

pub(crate) async fn run(runner: &Runner, test: &TestDb, plan: Plan) -> Result<usize, Error> {
    let done = runner.run(&test.config(), plan, |_| {}).await;
    done.map(|done| done.len())
}

pub(crate) async fn open(test: &TestDb) -> (Database, User) {
    let db = Database::connect(test.plain_config())
        .await
        .expect("it connects");
    let new = NewUser::new("ada", "ada@example.org", "correct horse battery staple");
    let ada = db.users().create(new).await.expect("a user");
    (db, ada)
}

pub(crate) async fn delete_users(db: &Database) {
    let delete = Query::delete().from_table(entity::users::Entity).take();
    db.execute(delete).await.expect("deleted");
}
