//! An application with two tables, and what is asked of its runner.

use migration::columns::Columns;
use migration::{Done, Error, Migration, Plan, Runner, State};
use sea_orm::{DbBackend, DbErr};
use testdb::TestDb;

pub(crate) const APP: &str = "notes_migrations";
pub(crate) const NOTES: &str = "m20261201_000001_create_notes";
pub(crate) const TAGS: &str = "m20261202_000001_create_tags";

pub(crate) struct CreateNotes;

impl Migration for CreateNotes {
    fn name(&self) -> &'static str {
        NOTES
    }

    fn tables(&self) -> &'static [&'static str] {
        &["notes"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        let mut table = columns.table("notes");
        table
            .col(columns.text("title").not_null())
            .col(columns.text("slug"))
            .col(columns.integer("workflow_id").not_null())
            .foreign_key(&mut columns.cascade("notes", "workflow_id", "workflows"));
        columns.sql(&table, &[columns.index("notes", &["workflow_id"])])
    }
}

pub(crate) struct CreateTags;

impl Migration for CreateTags {
    fn name(&self) -> &'static str {
        TAGS
    }

    fn tables(&self) -> &'static [&'static str] {
        &["tags"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        let mut table = columns.table("tags");
        table
            .col(columns.text("name").not_null())
            .col(columns.integer("note_id").not_null())
            .foreign_key(&mut columns.cascade("tags", "note_id", "notes"));
        columns.sql(&table, &[columns.index("tags", &["note_id"])])
    }
}

/// A step of SQL.
pub(crate) struct Sql(pub(crate) &'static str, pub(crate) &'static str);

impl Migration for Sql {
    fn name(&self) -> &'static str {
        self.0
    }

    fn up(&self, _: DbBackend) -> Vec<String> {
        vec![self.1.to_owned()]
    }

    fn down(&self, _: DbBackend) -> Vec<String> {
        Vec::new()
    }
}

pub(crate) fn steps() -> Vec<Box<dyn Migration>> {
    vec![Box::new(CreateNotes), Box::new(CreateTags)]
}

pub(crate) fn app() -> Runner {
    app_with(Vec::new(), migration::runner())
}

pub(crate) fn app_with(more: Vec<Box<dyn Migration>>, base: Runner) -> Runner {
    Runner::builder()
        .tool("notes")
        .history(APP)
        .after(base)
        .steps(steps().into_iter().chain(more).collect())
        .build()
}

pub(crate) async fn run(runner: &Runner, db: &TestDb, plan: Plan) -> Vec<Done> {
    let done = runner.run(&db.config(), plan, |_| {}).await;
    done.unwrap_or_else(|error| panic!("{plan:?}: {error:?}"))
}

pub(crate) async fn refused(runner: &Runner, db: &TestDb, plan: Plan) -> Error {
    let result = runner.run(&db.config(), plan, |_| {}).await;
    result.expect_err("it is refused")
}

pub(crate) async fn state(runner: &Runner, db: &TestDb) -> State {
    let outside = db.outside().await;
    let state = runner.state(&outside).await;
    let closed: Result<(), DbErr> = outside.close().await;
    closed.expect("it closes");
    state.expect("a state")
}

pub(crate) fn names(done: &[Done]) -> Vec<String> {
    done.iter().map(|step| step.name.clone()).collect()
}
