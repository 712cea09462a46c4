//! An application's own migrations and tables beside ours.

use aura_db::entity::WorkflowId;
use aura_db::migration::columns::Columns;
use aura_db::migration::{DbBackend, Migration, Plan, Runner, State};
use aura_db::sea_orm::Set;
use aura_db::{Database, Error, NewWorkflow, PageRequest, RepositoryEntity, WorkflowFilter};
use testdb::TestDb;

use crate::support::{open, user};

testdb::both!(empty: own_migrations_live_beside_ours);

struct CreateNotes;

impl Migration for CreateNotes {
    fn name(&self) -> &'static str {
        "m20261201_000001_create_notes"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["app_notes"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        let mut table = columns.table("app_notes");
        table
            .col(columns.text("text").not_null())
            .col(columns.integer("workflow_id").not_null())
            .foreign_key(&mut columns.cascade("app_notes", "workflow_id", "workflows"));
        columns.sql(&table, &[columns.index("app_notes", &["workflow_id"])])
    }
}

mod notes {
    use aura_db::entity::WorkflowId;
    use aura_db::sea_orm::{self, entity::prelude::*};

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "app_notes")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub(crate) id: i64,
        pub(crate) text: String,
        pub(crate) workflow_id: WorkflowId,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl RepositoryEntity for notes::Entity {}

/// What a service and its tool share.
fn app() -> Runner {
    Runner::builder()
        .after(aura_db::migration::runner())
        .steps(vec![Box::new(CreateNotes)])
        .entity(notes::Entity)
        .build()
}

fn note(workflow: WorkflowId) -> notes::ActiveModel {
    notes::ActiveModel {
        text: Set("remember".to_owned()),
        workflow_id: Set(workflow),
        ..Default::default()
    }
}

async fn own_migrations_live_beside_ours(test: TestDb) {
    // A service applies both, and connects.
    let done = app().up(&test.config()).await.expect("applied");
    assert_eq!(done.len(), testdb::steps() + 1);
    let db = Database::connect(test.config()).await.expect("connected");

    let ada = user(&db, "ada").await;
    let new = NewWorkflow::new("x").owner(ada.id);
    let flow = db.workflows().create(new).await.expect("created");
    // Ours and theirs in one transaction.
    let note = db
        .transaction(|tx| async move {
            let note = tx
                .repository::<notes::Entity>()
                .insert(note(flow.id))
                .await?;
            tx.workflows().activate(flow.id).await?;
            Ok::<_, Error>(note)
        })
        .await
        .expect("committed");
    let notes = db.repository::<notes::Entity>();
    assert_eq!(notes.get(note.id).await.expect("found"), note);

    // Our tools look at our tables only, and ours don't disturb theirs.
    let reader = db.seaorm().reader().await.expect("open");
    let differences = aura_db::migration::check(&reader).await.expect("checked");
    assert_eq!(differences, []);
    assert_eq!(app().state(&reader).await.expect("a state"), State::Current);
    drop(reader);
    assert_eq!(app().entity_changes().await.expect("compared"), []);
    db.clone().close().await;

    let db = open(&test).await;
    assert_eq!(app().up(&test.config()).await.expect("nothing to do"), []);
    let list = db
        .workflows()
        .list(WorkflowFilter::new(), PageRequest::first(1))
        .await;
    assert_eq!(list.expect("a list").items[0].id, flow.id);
    let run = app().run(&test.config(), Plan::Reset, |_| {}).await;
    assert_eq!(run.expect("reversed").len(), 1);
    let left = db.workflows().get(flow.id).await.expect("it is ours");
    assert_eq!(left.id, flow.id);
    db.close().await;
}
