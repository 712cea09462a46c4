//! Steps in Rust.

use migration::{
    DataMigration, DatabaseTransaction, DbBackend, Direction, Error, Migration, Plan, StepError,
    async_trait,
};
use sea_orm::{ConnectionTrait, Statement};
use testdb::TestDb;

use crate::support::{APP, app, app_with, refused, run};

testdb::both!(migrated:
    steps_in_rust_are_part_of_the_run,
    a_failing_step_in_rust_takes_the_run_back,
);

pub(crate) struct FillSlugs;

impl Migration for FillSlugs {
    fn name(&self) -> &'static str {
        "m20261203_000001_fill_slugs"
    }

    fn up(&self, _: DbBackend) -> Vec<String> {
        vec!["ALTER TABLE notes ADD COLUMN words bigint".to_owned()]
    }

    fn down(&self, _: DbBackend) -> Vec<String> {
        vec!["ALTER TABLE notes DROP COLUMN words".to_owned()]
    }

    fn data(&self) -> Option<&dyn DataMigration> {
        Some(self)
    }
}

#[async_trait]
impl DataMigration for FillSlugs {
    async fn up(&self, transaction: &DatabaseTransaction) -> Result<(), StepError> {
        let backend = transaction.get_database_backend();
        let rows = transaction
            .query_all_raw(Statement::from_string(
                backend,
                "SELECT id, title FROM notes",
            ))
            .await?;
        for row in rows {
            let (id, title): (i64, String) = (row.try_get("", "id")?, row.try_get("", "title")?);
            if title == "bad" {
                return Err(format!("note {id} has a bad title").into());
            }
            let slug = title.to_lowercase().replace(' ', "-");
            let words = title.split(' ').count();
            let sql = format!("UPDATE notes SET slug = '{slug}', words = {words} WHERE id = {id}");
            transaction.execute_unprepared(&sql).await?;
        }
        Ok(())
    }

    async fn down(&self, transaction: &DatabaseTransaction) -> Result<(), StepError> {
        transaction
            .execute_unprepared("UPDATE notes SET slug = NULL WHERE words > 0")
            .await?;
        Ok(())
    }
}

async fn steps_in_rust_are_part_of_the_run(db: TestDb) {
    db.fill().await;
    run(&app(), &db, Plan::Up(None)).await;
    db.execute("INSERT INTO notes (title, workflow_id) VALUES ('Two Words', 1)")
        .await;
    let app = app_with(vec![Box::new(FillSlugs)], migration::runner());
    let done = run(&app, &db, Plan::Up(None)).await;
    assert_eq!(done[0].direction, Direction::Up);
    let line = "SELECT slug || ' ' || words AS line FROM notes";
    assert_eq!(db.lines(line).await, ["two-words 2"]);
    run(&app, &db, Plan::Down(1)).await;
    let line = "SELECT coalesce(slug, 'none') AS line FROM notes";
    assert_eq!(db.lines(line).await, ["none"]);
}

async fn a_failing_step_in_rust_takes_the_run_back(db: TestDb) {
    db.fill().await;
    run(&app(), &db, Plan::Up(None)).await;
    db.execute("INSERT INTO notes (title, workflow_id) VALUES ('good', 1), ('bad', 1)")
        .await;
    let before = db.dump(&["notes", APP]).await;
    let app = app_with(vec![Box::new(FillSlugs)], migration::runner());
    let error = refused(&app, &db, Plan::Up(None)).await;
    let Error::Step { name, source } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(name, "m20261203_000001_fill_slugs");
    assert_eq!(source.to_string(), "note 2 has a bad title");
    assert_eq!(db.dump(&["notes", APP]).await, before);
}
