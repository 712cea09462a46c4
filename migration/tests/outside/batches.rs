//! Steps that change rows in batches.

use std::sync::{Arc, Mutex};

use migration::{
    BatchMigration, DatabaseTransaction, Event, Migration, Plan, Runner, StepError, async_trait,
};
use sea_orm::{ConnectionTrait, DbBackend};
use testdb::TestDb;

use crate::{APP, TABLE, app, names, refused, run};

testdb::both!(migrated: rows_are_changed_in_batches);

/// A hundred things, of which each batch doubles ten.
struct Double {
    fails_behind: i64,
}

impl Migration for Double {
    fn name(&self) -> &'static str {
        "m3_double"
    }

    /// Only where all is done.
    fn up(&self, _: DbBackend) -> Vec<String> {
        vec!["CREATE TABLE doubled AS SELECT count(*) AS things FROM things WHERE a < 0".to_owned()]
    }

    fn transactional(&self) -> bool {
        false
    }

    fn batches(&self) -> Option<&dyn BatchMigration> {
        Some(self)
    }
}

#[async_trait]
impl BatchMigration for Double {
    async fn batch(
        &self,
        transaction: &DatabaseTransaction,
        after: Option<String>,
    ) -> Result<Option<String>, StepError> {
        let after = after.map_or(Ok(0), |after| after.parse::<i64>())?;
        // Negative ones are done.
        let last = after + 10;
        let sql = format!("UPDATE things SET a = -2 * a WHERE a > {after} AND a <= {last}");
        transaction.execute_unprepared(&sql).await?;
        if after == self.fails_behind {
            return Err("a fault".into());
        }
        Ok((last < 100).then(|| last.to_string()))
    }
}

async fn rows_are_changed_in_batches(db: TestDb) {
    run(&app(&[&TABLE]), &db, Plan::Up(None)).await;
    let things = (1..=100).map(|thing| format!("({thing})"));
    let things = things.collect::<Vec<_>>().join(", ");
    db.execute(&format!("INSERT INTO things VALUES {things}"))
        .await;
    let with = |fails_behind| {
        let steps: Vec<Box<dyn Migration>> =
            vec![Box::new(&TABLE), Box::new(Double { fails_behind })];
        let runner = Runner::builder().history(APP).after(migration::runner());
        runner.steps(steps).build()
    };
    let error = refused(&with(30), &db, Plan::Up(None)).await;
    assert!(error.to_string().contains("a fault"), "{error}");
    let done = "SELECT CAST(count(*) AS text) AS line FROM things WHERE a < 0";
    assert_eq!(db.lines(done).await, ["30"], "the batches before stay");

    let seen = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::clone(&seen);
    let on_event = move |event: Event<'_>| {
        if let Event::Batch { name, number } = event {
            events
                .lock()
                .expect("a list")
                .push((name.to_owned(), number));
        }
    };
    let ran = with(-1).run(&db.config(), Plan::Up(None), on_event).await;
    assert_eq!(names(&ran.expect("it goes on")), ["m3_double"]);
    let sum = "SELECT CAST(sum(a) AS text) AS line FROM things";
    assert_eq!(db.lines(sum).await, ["-10100"], "each once");
    let counted = "SELECT CAST(things AS text) AS line FROM doubled";
    assert_eq!(
        db.lines(counted).await,
        ["100"],
        "the statements come behind"
    );
    let seen = seen.lock().expect("a list");
    assert_eq!(seen.last(), Some(&("m3_double".to_owned(), 9)));
}
