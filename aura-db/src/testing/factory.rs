//! Rows for tests.

use std::fmt;

use super::TestDatabase;
use crate::{Error, RepositoryEntity};

/// An entity whose rows [`TestDatabase::factory`] creates.
///
/// ```
/// # mod notes {
/// #     use aura_db::sea_orm::{self, entity::prelude::*};
/// #     #[sea_orm::model]
/// #     #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
/// #     #[sea_orm(table_name = "notes")]
/// #     pub struct Model {
/// #         #[sea_orm(primary_key)]
/// #         pub id: i64,
/// #         pub title: String,
/// #         pub owner_id: aura_db::UserId,
/// #     }
/// #     impl ActiveModelBehavior for ActiveModel {}
/// #     impl aura_db::RepositoryEntity for Entity {}
/// # }
/// use aura_db::Error;
/// use aura_db::sea_orm::Set;
/// use aura_db::testing::{Factory, TestDatabase};
///
/// impl Factory for notes::Entity {
///     fn row(number: u64) -> notes::ActiveModel {
///         notes::ActiveModel { title: Set(format!("note {number}")), ..Default::default() }
///     }
///
///     async fn associate(row: &mut notes::ActiveModel, db: &TestDatabase) -> Result<(), Error> {
///         if row.owner_id.is_not_set() {
///             row.owner_id = Set(db.new_user().await?.id);
///         }
///         Ok(())
///     }
/// }
///
/// # async fn example(db: TestDatabase) -> Result<(), Error> {
/// let note = db.factory::<notes::Entity>().create().await?;
/// let ada = db.user("ada").await?;
/// let hers = db
///     .factory::<notes::Entity>()
///     .with(|row| row.owner_id = Set(ada.id))
///     .create_many(3)
///     .await?;
/// # Ok(()) }
/// ```
pub trait Factory: RepositoryEntity {
    /// Returns a row that can be inserted, but for what [`Factory::associate`] sets. `number`
    /// counts the rows of this entity in the database, from 1: use it where values are unique.
    fn row(number: u64) -> Self::ActiveModel;

    /// Creates the rows that this one refers to and that the test hasn't set, and sets their
    /// keys. By default there are none.
    ///
    /// # Errors
    ///
    /// What creating them returns.
    fn associate(
        row: &mut Self::ActiveModel,
        db: &TestDatabase,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let _ = (row, db);
        async { Ok(()) }
    }
}

/// A change of a factory's row.
type Change<'a, E> = Box<dyn Fn(&mut <E as sea_orm::EntityTrait>::ActiveModel) + Send + Sync + 'a>;

/// Creates rows of an entity. From [`TestDatabase::factory`].
#[must_use]
pub struct RowFactory<'a, E: Factory> {
    db: &'a TestDatabase,
    changes: Vec<Change<'a, E>>,
}

impl<E: Factory> fmt::Debug for RowFactory<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowFactory")
            .field("table", &E::default().table_name())
            .field("changes", &self.changes.len())
            .finish_non_exhaustive()
    }
}

impl TestDatabase {
    /// Returns what creates rows of an entity.
    pub fn factory<E: Factory>(&self) -> RowFactory<'_, E> {
        RowFactory {
            db: self,
            changes: Vec::new(),
        }
    }
}

impl<'a, E: Factory> RowFactory<'a, E> {
    /// Changes the row before it is created; the last change counts.
    pub fn with(mut self, change: impl Fn(&mut E::ActiveModel) + Send + Sync + 'a) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Returns a row with all that it refers to, without inserting it.
    ///
    /// # Errors
    ///
    /// As [`Factory::associate`].
    pub async fn build(&self) -> Result<E::ActiveModel, Error> {
        let mut row = E::row(self.db.next_number::<E>());
        for change in &self.changes {
            change(&mut row);
        }
        E::associate(&mut row, self.db).await?;
        Ok(row)
    }

    /// Inserts a row with all that it refers to, through its
    /// [repository](crate::Database::repository).
    ///
    /// # Errors
    ///
    /// As [`Repository::insert`](crate::Repository::insert) and [`Factory::associate`].
    pub async fn create(&self) -> Result<E::Model, Error> {
        let row = self.build().await?;
        self.db.repository::<E>().insert(row).await
    }

    /// Inserts several rows, one after the other.
    ///
    /// # Errors
    ///
    /// As [`RowFactory::create`].
    pub async fn create_many(&self, count: usize) -> Result<Vec<E::Model>, Error> {
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            rows.push(self.create().await?);
        }
        Ok(rows)
    }
}
