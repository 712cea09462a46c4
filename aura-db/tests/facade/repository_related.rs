//! Related rows of an application's own entities, for all rows of a list by one query.

use aura_db::sea_orm::entity::prelude::*;
use aura_db::sea_orm::{ActiveValue::Set, IntoActiveModel};
use aura_db::{Database, Deleted, RepositoryEntity};
use testdb::TestDb;

use crate::support::{open, own_types, refused};

testdb::both!(migrated:
    rows_have_their_related_rows,
    related_rows_have_theirs,
    soft_deleted_related_rows_are_hidden,
    too_many_rows_are_refused,
);

mod shelf {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "shelves")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(super) room: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(super) number: i32,
    }

    impl ActiveModelBehavior for ActiveModel {}

    impl Related<super::book::Entity> for Entity {
        fn to() -> RelationDef {
            <super::book::Entity as Related<Entity>>::to().rev()
        }
    }
}

mod book {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "books")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub(super) id: i64,
        pub(super) title: String,
        pub(super) room: Option<String>,
        pub(super) number: Option<i32>,
    }

    impl ActiveModelBehavior for ActiveModel {}

    impl Related<super::shelf::Entity> for Entity {
        fn to() -> RelationDef {
            Entity::belongs_to(super::shelf::Entity)
                .from((Column::Room, Column::Number))
                .to((super::shelf::Column::Room, super::shelf::Column::Number))
                .into()
        }
    }

    impl Related<super::label::Entity> for Entity {
        fn to() -> RelationDef {
            super::book_label::Entity::belongs_to(super::label::Entity)
                .from(super::book_label::Column::LabelId)
                .to(super::label::Column::Id)
                .into()
        }

        fn via() -> Option<RelationDef> {
            let via: RelationDef = super::book_label::Entity::belongs_to(Entity)
                .from(super::book_label::Column::BookId)
                .to(Column::Id)
                .into();
            Some(via.rev())
        }
    }
}

mod label {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "labels")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub(super) id: i64,
        pub(super) text: String,
        pub(super) deleted_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

mod book_label {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "book_labels")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(super) book_id: i64,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(super) label_id: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl RepositoryEntity for shelf::Entity {}
impl RepositoryEntity for book::Entity {}
impl RepositoryEntity for label::Entity {}
impl RepositoryEntity for book_label::Entity {}

/// Shelf a 1 has the books x and y, a 2 none and b 1 the book z; w stands on none. x has
/// the labels new and old, z has old.
async fn with_books(test: &TestDb) -> Database {
    let db = open(test).await;
    let (key, time) = own_types(&db);
    for table in [
        "shelves (room text NOT NULL, number integer NOT NULL, PRIMARY KEY (room, number))"
            .to_owned(),
        format!("books (id {key}, title text NOT NULL, room text, number integer)"),
        format!("labels (id {key}, text text NOT NULL, deleted_at {time})"),
        "book_labels (book_id bigint NOT NULL, label_id bigint NOT NULL,
         PRIMARY KEY (book_id, label_id))"
            .to_owned(),
    ] {
        test.execute(&format!("CREATE TABLE {table}")).await;
    }
    for (room, number) in [("a", 1), ("a", 2), ("b", 1)] {
        let room = room.to_owned();
        let row = shelf::Model { room, number }
            .into_active_model()
            .reset_all();
        let shelves = db.repository::<shelf::Entity>();
        shelves.insert(row).await.expect("inserted");
    }
    let mut labels = Vec::new();
    for text in ["old", "new"] {
        let row = label::ActiveModel {
            text: Set(text.to_owned()),
            ..Default::default()
        };
        let labels_of = db.repository::<label::Entity>();
        labels.push(labels_of.insert(row).await.expect("inserted").id);
    }
    for (title, shelf, labelled) in [
        ("x", Some(("a", 1)), &labels[..]),
        ("y", Some(("a", 1)), &[][..]),
        ("z", Some(("b", 1)), &labels[..1]),
        ("w", None, &[][..]),
    ] {
        let row = book::ActiveModel {
            title: Set(title.to_owned()),
            room: Set(shelf.map(|(room, _)| room.to_owned())),
            number: Set(shelf.map(|(_, number)| number)),
            ..Default::default()
        };
        let book = db.repository::<book::Entity>().insert(row).await;
        let book_id = book.expect("inserted").id;
        for label_id in labelled {
            let label_id = *label_id;
            let row = book_label::Model { book_id, label_id };
            let row = row.into_active_model().reset_all();
            let labels_of = db.repository::<book_label::Entity>();
            labels_of.insert(row).await.expect("inserted");
        }
    }
    db
}

fn titles(books: &[book::Model]) -> Vec<&str> {
    books.iter().map(|book| &*book.title).collect()
}

fn texts(labels: &[label::Model]) -> Vec<&str> {
    labels.iter().map(|label| &*label.text).collect()
}

async fn rows_have_their_related_rows(test: TestDb) {
    let db = with_books(&test).await;
    let shelves = db.repository::<shelf::Entity>();
    let books = db.repository::<book::Entity>();
    // Many.
    let rows = shelves.find_by(()).await.expect("read");
    let loaded = shelves
        .load_many::<book::Entity>(&rows)
        .await
        .expect("read");
    let loaded: Vec<_> = loaded.iter().map(|books| titles(books)).collect();
    assert_eq!(loaded, [vec!["x", "y"], vec![], vec!["z"]]);
    // One, and none.
    let all = books.find_by(()).await.expect("read");
    let loaded = books.load_one::<shelf::Entity>(&all).await.expect("read");
    let places: Vec<_> = loaded
        .iter()
        .map(|shelf| shelf.as_ref().map(|shelf| (&*shelf.room, shelf.number)))
        .collect();
    assert_eq!(
        places,
        [Some(("a", 1)), Some(("a", 1)), Some(("b", 1)), None]
    );
    // Many to many.
    let loaded = books.load_many::<label::Entity>(&all).await.expect("read");
    let loaded: Vec<_> = loaded.iter().map(|labels| texts(labels)).collect();
    assert_eq!(loaded, [vec!["old", "new"], vec![], vec!["old"], vec![]]);
    // Of rows in any order, also twice, and in a transaction.
    let twice = [all[2].clone(), all[0].clone(), all[2].clone()];
    let loaded = db
        .transaction(|tx| {
            let twice = twice.clone();
            async move {
                let books = tx.repository::<book::Entity>();
                books.load_many::<label::Entity>(&twice).await
            }
        })
        .await
        .expect("read");
    let loaded: Vec<_> = loaded.iter().map(|labels| texts(labels)).collect();
    assert_eq!(loaded, [vec!["old"], vec!["old", "new"], vec!["old"]]);
    let none = books.load_many::<label::Entity>(&[]).await.expect("read");
    assert!(none.is_empty());
}

async fn related_rows_have_theirs(test: TestDb) {
    let db = with_books(&test).await;
    let shelves = db.repository::<shelf::Entity>();
    let rows = shelves.find_by(()).await.expect("read");
    let books = shelves
        .load_many::<book::Entity>(&rows)
        .await
        .expect("read");
    let flat = books.concat();
    let labels = db.repository::<book::Entity>();
    let labels = labels
        .load_many::<label::Entity>(&flat)
        .await
        .expect("read");
    let labelled: Vec<_> = flat
        .iter()
        .zip(&labels)
        .map(|(book, labels)| (&*book.title, texts(labels)))
        .collect();
    assert_eq!(
        labelled,
        [("x", vec!["old", "new"]), ("y", vec![]), ("z", vec!["old"])]
    );
}

async fn soft_deleted_related_rows_are_hidden(test: TestDb) {
    let db = with_books(&test).await;
    let labels = db.repository::<label::Entity>();
    let old = labels.first(label::COLUMN.text.eq("old")).await;
    labels
        .delete(old.expect("read").expect("there").id)
        .await
        .expect("deleted");
    let books = db.repository::<book::Entity>();
    let all = books.find_by(()).await.expect("read");
    let loaded = books.load_many::<label::Entity>(&all).await.expect("read");
    let loaded: Vec<_> = loaded.iter().map(|labels| texts(labels)).collect();
    assert_eq!(loaded, [vec!["new"], vec![], vec![], vec![]]);
    assert_eq!(
        labels.deleted(Deleted::Only).count(()).await.expect("read"),
        1
    );
}

async fn too_many_rows_are_refused(test: TestDb) {
    let db = with_books(&test).await;
    let books = db.repository::<book::Entity>();
    let row = books.find_by(()).await.expect("read").remove(0);
    let rows = vec![row; 1_001];
    assert_eq!(
        refused(books.load_many::<label::Entity>(&rows).await),
        ["rows"]
    );
}
