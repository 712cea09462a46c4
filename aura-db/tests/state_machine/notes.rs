//! A table of an application's own, with everything that a repository maintains.

use aura_db::migration::columns::Columns;
use aura_db::migration::{DbBackend, Migration, Runner};
use aura_db::sea_orm::Set;
use aura_db::sea_orm::entity::prelude::*;
use aura_db::{Action, Conventions, FieldError, RepositoryEntity, Scope, UserId};
use serde::Serialize;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize)]
#[sea_orm(table_name = "notes")]
pub(crate) struct Model {
    #[sea_orm(primary_key)]
    pub(crate) id: i64,
    #[sea_orm(column_type = "String(StringLen::N(40))")]
    pub(crate) title: String,
    #[sea_orm(unique)]
    pub(crate) slug: Option<String>,
    pub(crate) rank: Option<i64>,
    pub(crate) uses: i64,
    pub(crate) version: i64,
    pub(crate) owner_id: UserId,
    pub(crate) created_at: DateTimeUtc,
    pub(crate) updated_at: DateTimeUtc,
    pub(crate) deleted_at: Option<DateTimeUtc>,
    pub(crate) created_by: Option<UserId>,
    pub(crate) updated_by: Option<UserId>,
}

impl ActiveModelBehavior for ActiveModel {}

impl RepositoryEntity for Entity {
    fn name() -> &'static str {
        "note"
    }

    fn conventions() -> Conventions<Column> {
        Conventions::by_name::<Self>().lock(Column::Version)
    }

    fn validate(row: &ActiveModel) -> Vec<FieldError> {
        let wrong = |problem: &str| vec![FieldError::new("title", problem)];
        match &row.title {
            Set(title) if title.trim().is_empty() => wrong("must not be empty"),
            Set(title) if title.contains('\0') => wrong("must not hold U+0000"),
            _ => Vec::new(),
        }
    }

    fn policy(role: &str, action: Action) -> Option<Scope> {
        match role {
            "admin" => Some(Scope::Any),
            "editor" => Some(Scope::Own),
            "viewer" => (action == Action::Read).then_some(Scope::Any),
            _ => None,
        }
    }
}

/// A key, as the steps name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoteId(pub(crate) i64);

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
            .col(columns.string("title", 40).not_null())
            .col(columns.text("slug"))
            .col(columns.integer("rank"))
            .col(columns.integer("uses").not_null().default(0))
            .col(columns.integer("version").not_null())
            .col(columns.integer("owner_id").not_null())
            .foreign_key(&mut columns.cascade("notes", "owner_id", "users"));
        columns.managed(&mut table);
        let indexes = [
            columns.unique("notes", &["slug"]),
            columns.index("notes", &["owner_id"]),
        ];
        columns.sql(&table, &indexes)
    }
}

/// What makes the table.
pub(crate) fn runner() -> Runner {
    Runner::builder()
        .history("notes_migrations")
        .steps(vec![Box::new(CreateNotes)])
        .build()
}
