//! The migrations of an application that keeps notes beside AURA's workflows:
//!
//! ```sh
//! cargo run -p aura-db --example notes -- up       # AURA's tables, then its own
//! cargo run -p aura-db --example notes -- status
//! cargo run -p aura-db --example notes -- generate add_tags --from-entities
//! cargo run -p aura-db --example notes -- --help
//! ```

use std::process::ExitCode;

use aura_db::migration::columns::Columns;
use aura_db::migration::{
    DataMigration, DatabaseTransaction, DbBackend, Migration, Runner, StepError, async_trait,
    create_index_concurrently, drop_index_concurrently,
};
use aura_db::sea_orm::{ConnectionTrait, Statement, Value};

fn main() -> ExitCode {
    aura_db::migration::cli::main(runner())
}

/// A service calls `runner().up(&config).await?` when it starts.
fn runner() -> Runner {
    Runner::builder()
        .tool("notes")
        .history("notes_migrations")
        .after(aura_db::migration::runner())
        .steps(vec![
            Box::new(CreateNotes),
            Box::new(IndexNotes),
            Box::new(FillSlugs),
        ])
        .snapshots(
            include_str!("snapshots/sqlite.json"),
            include_str!("snapshots/postgres.json"),
        )
        .entity(notes::Entity)
        .manifest_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/notes"))
        .build()
}

/// The table as the service uses it. After a change here, `generate --from-entities` writes
/// the step, and `generate --from-entities --check` fails in CI until there is one.
mod notes {
    use aura_db::entity::WorkflowId;
    use aura_db::sea_orm::{self, entity::prelude::*};

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "notes")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub(crate) id: i64,
        #[sea_orm(column_type = "String(StringLen::N(200))")]
        pub(crate) title: String,
        #[sea_orm(column_type = "String(StringLen::N(200))", nullable, indexed)]
        pub(crate) slug: Option<String>,
        pub(crate) workflow_id: WorkflowId,
        pub(crate) created_at: DateTimeUtc,
        #[sea_orm(belongs_to, from = "workflow_id", to = "id", on_delete = "Cascade")]
        pub(crate) workflow: BelongsTo<aura_db::entity::workflows::Entity>,
    }

    impl ActiveModelBehavior for ActiveModel {}
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
            .col(columns.string("title", 200).not_null())
            .col(columns.string("slug", 200))
            .col(columns.integer("workflow_id").not_null())
            .col(columns.created("created_at"))
            .foreign_key(&mut columns.cascade("notes", "workflow_id", "workflows"));
        columns.sql(&table, &[columns.index("notes", &["workflow_id"])])
    }
}

/// Built while the service writes notes, and outside of a transaction therefore.
struct IndexNotes;

impl Migration for IndexNotes {
    fn name(&self) -> &'static str {
        "m20261202_000001_index_notes"
    }

    fn transactional(&self) -> bool {
        false
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let index = Columns::of(backend).index("notes", &["slug"]);
        vec![create_index_concurrently(backend, &index)]
    }

    fn down(&self, backend: DbBackend) -> Vec<String> {
        vec![drop_index_concurrently(backend, "idx_notes_slug")]
    }
}

/// Fills in the slugs, in Rust.
struct FillSlugs;

impl Migration for FillSlugs {
    fn name(&self) -> &'static str {
        "m20261203_000001_fill_slugs"
    }

    fn up(&self, _: DbBackend) -> Vec<String> {
        Vec::new()
    }

    fn down(&self, _: DbBackend) -> Vec<String> {
        Vec::new()
    }

    fn data(&self) -> Option<&dyn DataMigration> {
        Some(self)
    }
}

#[async_trait]
impl DataMigration for FillSlugs {
    async fn up(&self, transaction: &DatabaseTransaction) -> Result<(), StepError> {
        let backend = transaction.get_database_backend();
        let select = "SELECT id, title FROM notes WHERE slug IS NULL";
        let rows = transaction
            .query_all_raw(Statement::from_string(backend, select))
            .await?;
        for row in rows {
            let (id, title): (i64, String) = (row.try_get("", "id")?, row.try_get("", "title")?);
            let update = match backend {
                DbBackend::Postgres => "UPDATE notes SET slug = $1 WHERE id = $2",
                _ => "UPDATE notes SET slug = ? WHERE id = ?",
            };
            let values: [Value; 2] = [slug(&title).into(), id.into()];
            let update = Statement::from_sql_and_values(backend, update, values);
            transaction.execute_raw(update).await?;
        }
        Ok(())
    }
}

/// `weekly-report` of `Weekly report!`.
fn slug(title: &str) -> String {
    let words = title.split(|character: char| !character.is_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("-")
}
