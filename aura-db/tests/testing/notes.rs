//! The table of an application.

use aura_db::migration::columns::Columns;
use aura_db::migration::{
    DataMigration, DatabaseTransaction, DbBackend, Migration, Runner, StepError, async_trait,
};
use aura_db::sea_orm::{self, ConnectionTrait, Set, entity::prelude::*};
use aura_db::testing::{Factory, TestDatabase};
use aura_db::{Error, FieldError, RepositoryEntity, Scope, UserId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "notes")]
pub(crate) struct Model {
    #[sea_orm(primary_key)]
    pub(crate) id: i64,
    #[sea_orm(unique)]
    pub(crate) title: String,
    pub(crate) owner_id: Option<UserId>,
    pub(crate) created_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}

impl RepositoryEntity for Entity {
    fn validate(row: &ActiveModel) -> Vec<FieldError> {
        match &row.title {
            Set(title) if title.is_empty() => vec![FieldError::new("title", "must not be empty")],
            _ => Vec::new(),
        }
    }

    fn policy(_: &str, _: aura_db::Action) -> Option<Scope> {
        Some(Scope::Own)
    }
}

impl Factory for Entity {
    fn row(number: u64) -> ActiveModel {
        ActiveModel {
            title: Set(format!("note {number}")),
            ..Default::default()
        }
    }

    async fn associate(row: &mut ActiveModel, db: &TestDatabase) -> Result<(), Error> {
        if row.owner_id.is_not_set() {
            row.owner_id = Set(Some(db.new_user().await?.id));
        }
        Ok(())
    }
}

/// Without AURA's steps before its own, which the harness applies anyway.
pub(crate) fn runner() -> Runner {
    Runner::builder()
        .history("notes_migrations")
        .steps(vec![Box::new(CreateNotes), Box::new(WelcomeNote)])
        .build()
}

struct CreateNotes;

impl Migration for CreateNotes {
    fn name(&self) -> &'static str {
        "m20261201_000001_create_notes"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["notes"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        let mut table = columns.table("notes");
        table
            .col(columns.string("title", 120).not_null())
            .col(columns.integer("owner_id"))
            .col(columns.created("created_at"))
            .foreign_key(&mut columns.cascade("notes", "owner_id", "users"));
        columns.sql(&table, &[columns.unique("notes", &["title"])])
    }
}

/// A step in Rust.
struct WelcomeNote;

impl Migration for WelcomeNote {
    fn name(&self) -> &'static str {
        "m20261202_000001_welcome_note"
    }

    fn up(&self, _: DbBackend) -> Vec<String> {
        Vec::new()
    }

    fn data(&self) -> Option<&dyn DataMigration> {
        Some(self)
    }
}

#[async_trait]
impl DataMigration for WelcomeNote {
    async fn up(&self, transaction: &DatabaseTransaction) -> Result<(), StepError> {
        let insert = "INSERT INTO notes (title) VALUES ('Welcome')";
        transaction.execute_unprepared(insert).await?;
        Ok(())
    }
}
