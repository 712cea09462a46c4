//! Statements are counted once each, and alike on both databases.

use std::panic::{AssertUnwindSafe, catch_unwind};

use aura_db::entity::users;
use aura_db::sea_orm::{QueryFilter, Set, sea_query::Query};
use aura_db::testing::{QueryCount, TestDatabase};
use aura_db::{
    Error, NewWorkflow, PageRequest, RepositoryEntity, Sort, WorkflowFilter, assert_queries,
};

use crate::notes::{self, runner};

#[aura_db::test(migrations = runner)]
async fn statements_count_once(db: TestDatabase) -> Result<(), Error> {
    let ada = db.user("ada").await?;
    let mine = db.acting_as(ada.id);
    let notes = mine.repository::<notes::Entity>();
    let row = |title: &str| notes::ActiveModel {
        title: Set(title.to_owned()),
        ..Default::default()
    };

    // Of repositories, of an application's entities and of AURA's.
    let note = assert_queries!(db, 1, async { notes.insert(row("a")).await })?;
    assert_queries!(db, 1, async {
        notes.insert_many(["b", "c", "d"].map(row)).await
    })?;
    assert_queries!(db, 1, async { notes.get(note.id).await })?;
    let page = PageRequest::first(2);
    assert_queries!(db, 1, async {
        notes.list((), &Sort::default(), page).await
    })?;
    assert_queries!(db, 1, async { db.users().get(ada.id).await })?;

    // Own ones.
    let all = users::Entity::not_deleted().filter(users::COLUMN.name.eq("ada"));
    assert_queries!(db, 1, async { db.fetch_all(all.clone()).await })?;
    assert_queries!(db, 1, async { db.fetch_one(all).await })?;
    let update = Query::update()
        .table(notes::Entity)
        .value(notes::Column::Title, "e")
        .cond_where(notes::COLUMN.id.eq(note.id))
        .take();
    assert_queries!(db, 1, async { db.execute(update).await })?;
    assert_queries!(db, 1, async { db.insert_many(["f", "g"].map(row)).await })?;

    // In transactions, without their BEGIN, COMMIT and savepoints.
    let note = &note;
    assert_queries!(db, 2, async {
        mine.transaction(|tx| async move {
            tx.repository::<notes::Entity>().get(note.id).await?;
            tx.transaction(
                |tx| async move { tx.repository::<notes::Entity>().delete(note.id).await },
            )
            .await
        })
        .await
    })?;

    // With the question for the role.
    let hers = db.restricted_to(&ada).repository::<notes::Entity>();
    assert_queries!(db, 2, async { hers.count(()).await })?;

    // One that fails, and one that is refused before it is sent.
    let taken = assert_queries!(db, <= 2, async { notes.insert(row("b")).await });
    assert!(matches!(taken, Err(Error::Conflict { .. })));
    let empty = assert_queries!(db, 0, async { notes.insert(row("")).await });
    assert!(matches!(empty, Err(Error::Validation(_))));
    Ok(())
}

#[aura_db::test]
async fn a_query_for_each_row_is_listed(db: TestDatabase) -> Result<(), Error> {
    let ada = db.user("ada").await?;
    let flows = db.acting_as(ada.id).workflows();
    for name in ["a", "b", "c"] {
        flows.create(NewWorkflow::new(name)).await?;
    }
    let count = QueryCount::start(&db);
    let all = db
        .workflows()
        .list(WorkflowFilter::default(), PageRequest::first(50))
        .await?;
    for flow in &all.items {
        db.users().get(flow.owner_id).await?;
    }
    let queries = count.get();
    let message = |check: &dyn Fn()| {
        let panic = catch_unwind(AssertUnwindSafe(check)).expect_err("a panic");
        *panic.downcast::<String>().expect("a message")
    };
    count.assert_exactly(queries);
    count.assert_at_most(queries);
    for (message, expected) in [
        (
            message(&|| count.assert_exactly(2)),
            "expected 2 statements",
        ),
        (
            message(&|| count.assert_at_most(2)),
            "expected at most 2 statements",
        ),
        (
            message(&|| count.assert_exactly(99)),
            "expected 99 statements",
        ),
    ] {
        assert!(message.starts_with(expected), "{message}");
        for line in [
            "    3 × SELECT ",
            "    3 × users.get",
            "    1 × workflows.list",
        ] {
            assert!(message.contains(line), "{line}: {message}");
        }
        assert!(!message.contains("'ada'"), "without values: {message}");
    }
    Ok(())
}

#[aura_db::test]
async fn databases_are_counted_apart(db: TestDatabase) -> Result<(), Error> {
    let other = TestDatabase::sqlite().await?;
    let ada = other.user("ada").await?;
    let count = QueryCount::start(&db);
    let tasks = (0..4).map(|_| {
        let other = other.clone();
        tokio::spawn(async move { other.users().get(ada.id).await })
    });
    assert_queries!(other, 4, async {
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("no panic")?;
        }
        Ok::<_, Error>(())
    })?;
    assert_eq!(count.get(), 0);
    Ok(())
}
