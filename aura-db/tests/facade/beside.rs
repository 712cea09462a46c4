//! An application's own migrations and tables beside ours.

use aura_db::sea_orm::{FromQueryResult, Statement};
use aura_db::{Config, Database, Error, NewWorkflow, PageRequest, WorkflowFilter};
use sea_orm_migration::prelude::*;
use testdb::TestDb;

use crate::support::{open, user};

testdb::both!(empty: own_migrations_live_beside_ours);

#[derive(DeriveMigrationName)]
struct CreateNotes;

#[async_trait::async_trait]
impl MigrationTrait for CreateNotes {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let notes = Table::create()
            .table("app_notes")
            .col(
                ColumnDef::new("id")
                    .big_integer()
                    .not_null()
                    .auto_increment()
                    .primary_key(),
            )
            .col(ColumnDef::new("text").text().not_null())
            .col(ColumnDef::new("workflow_id").big_integer().not_null())
            .foreign_key(
                ForeignKey::create()
                    .from("app_notes", "workflow_id")
                    .to("workflows", "id")
                    .on_delete(ForeignKeyAction::Cascade),
            )
            .take();
        manager.create_table(notes).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("app_notes").take())
            .await
    }
}

#[derive(FromQueryResult, serde::Deserialize)]
struct Note {
    text: String,
}

struct AppMigrator;

impl MigratorTrait for AppMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(CreateNotes)]
    }
}

async fn own_migrations_live_beside_ours(test: TestDb) {
    let mut config: Config = test.config();
    config.synchronize = true;
    let db = Database::connect(config).await.expect("migrated");
    AppMigrator::up(&*db.seaorm().writer().await.expect("open"), None)
        .await
        .expect("its own step");

    let ada = user(&db, "ada").await;
    let new = NewWorkflow::new("x").owner(ada.id);
    let flow = db.workflows().create(new).await.expect("created");
    let note = Query::insert()
        .into_table("app_notes")
        .columns(["text", "workflow_id"])
        .values_panic(["remember".into(), flow.id.0.into()])
        .take();
    // Ours and theirs in one transaction.
    db.transaction(|tx| {
        let note = note.clone();
        async move {
            tx.execute(note).await?;
            tx.workflows().activate(flow.id).await?;
            Ok::<_, Error>(())
        }
    })
    .await
    .expect("committed");
    let notes = Statement::from_string(db.backend(), "SELECT text FROM app_notes");
    let notes = db
        .fetch_all(Note::find_by_statement(notes))
        .await
        .expect("rows");
    assert_eq!(notes[0].text, "remember");

    // Our tools look at our tables only, and ours don't disturb theirs.
    let differences = aura_db::migration::check(&db.seaorm().reader().await.expect("open"))
        .await
        .expect("checked");
    assert!(differences.is_empty(), "{differences:?}");
    db.clone().close().await;
    let db = open(&test).await;
    assert_eq!(
        AppMigrator::get_pending_migrations(&*db.seaorm().writer().await.expect("open"))
            .await
            .expect("read")
            .len(),
        0
    );
    let list = db
        .workflows()
        .list(WorkflowFilter::new(), PageRequest::first(1))
        .await;
    assert_eq!(list.expect("a list").items[0].id, flow.id);
    AppMigrator::down(&*db.seaorm().writer().await.expect("open"), None)
        .await
        .expect("its own step");
    db.close().await;
}
