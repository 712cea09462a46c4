//! Tables whose keys aren't numbers that count up.

use aura_db::migration::{CreateTable, Runner};
use aura_db::sea_orm::{self, Set, entity::prelude::*};
use aura_db::testing::TestDatabase;
use aura_db::{Error, RepositoryEntity};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tags")]
struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    id: Uuid,
    text: String,
}

impl ActiveModelBehavior for ActiveModel {}

impl RepositoryEntity for Entity {}

fn runner() -> Runner {
    let create = CreateTable::new("m20261201_tags", &["tags"], |columns| {
        let mut table = columns.table_by("tags", columns.uuid("id"));
        table.col(columns.text("text").not_null());
        columns.sql(&table, &[])
    });
    Runner::builder().steps(vec![Box::new(create)]).build()
}

#[aura_db::test(migrations = runner)]
async fn a_uuid_is_a_key(db: TestDatabase) -> Result<(), Error> {
    let tags = db.repository::<Entity>();
    let tag = ActiveModel {
        id: Set(Uuid::from_u128(7)),
        text: Set("x".to_owned()),
    };
    let inserted = tags.insert(tag.clone()).await?;
    assert_eq!(tags.get(Uuid::from_u128(7)).await?, inserted);
    assert_eq!(tags.find(Uuid::from_u128(8)).await?, None);
    let taken = tags.insert(tag).await;
    assert!(matches!(taken, Err(Error::Conflict { columns, .. }) if columns == ["id"]));
    Ok(())
}

#[aura_db::test(migrations = runner)]
async fn nothing_else_is_a_uuid(db: TestDatabase) -> Result<(), Error> {
    let sql = "INSERT INTO tags (id, text) VALUES ('short', 'x')";
    let insert = sea_orm::Statement::from_string(db.backend(), sql);
    let refused = db.fetch_all(aura_db::TypedQuery::<()>::sql(insert)).await;
    assert!(refused.is_err(), "{refused:?}");
    let missing = ActiveModel {
        text: Set("x".to_owned()),
        ..Default::default()
    };
    let missing = db.repository::<Entity>().insert(missing).await;
    assert!(matches!(missing, Err(Error::NotNull { column, .. }) if column == "id"));
    Ok(())
}
