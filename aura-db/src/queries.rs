//! Statements of an application's own, on a database or in a transaction.

use aura_orm::{RowOf, TypedStatement};
use chrono::{DateTime, Utc};
use entity::UserId;
use sea_orm::{ActiveModelTrait, DbBackend, StatementBuilder};

use crate::database::{Database, Transaction};
use crate::error::Error;
use crate::{Repository, RepositoryEntity};

macro_rules! queries {
    ($($handle:ident),+) => {
        $(impl $handle {
            /// Returns the present moment by the database's clock.
            #[must_use]
            pub fn now(&self) -> DateTime<Utc> {
                self.context.now()
            }

            /// Returns the kind of database.
            #[must_use]
            pub fn backend(&self) -> DbBackend {
                self.context.backend()
            }

            /// Returns the user on whose behalf this acts.
            #[must_use]
            pub fn actor(&self) -> Option<UserId> {
                self.context.actor()
            }

            /// Returns the repository of an entity of your own, which has what those of
            /// AURA's tables have: see [`RepositoryEntity`].
            #[must_use]
            pub fn repository<E: RepositoryEntity>(&self) -> Repository<E> {
                self.context.repository()
            }

            /// Runs a statement of your own and returns all its rows, however large they
            /// are: bound what is large by a LIMIT.
            ///
            /// ```
            /// use aura_db::entity::{RepositoryEntity, Role, users};
            /// use aura_db::sea_orm::{ColumnTrait, QueryFilter, QueryOrder};
            ///
            /// # async fn example(db: aura_db::Database) -> Result<(), aura_db::Error> {
            /// let admins = users::Entity::not_deleted()
            ///     .filter(users::COLUMN.role.eq(Role::Admin))
            ///     .order_by_asc(users::Column::Name);
            /// let admins: Vec<aura_db::User> = db.fetch_all(admins).await?;
            /// # Ok(()) }
            /// ```
            ///
            /// `find_with_related` returns each model with all that is related to it. An
            /// insert, update or delete of an entity returns the rows that it wrote.
            /// Soft-deleted rows are returned too, unless the query starts from
            /// [`RepositoryEntity::not_deleted`].
            ///
            /// # Errors
            ///
            /// [`Error::Inconsistent`] for a row that can't be read as the type;
            /// [`Error::Timeout`] when the statement takes longer than
            /// `DB_STATEMENT_TIMEOUT`; [`Error::Busy`], [`Error::Unavailable`];
            /// [`Error::Validation`], before anything is sent, for a text or JSON with the
            /// character U+0000 and for more values than a statement can have; of one that
            /// writes [`Error::Conflict`], [`Error::ForeignKey`], [`Error::NotNull`],
            /// [`Error::Check`] and [`Error::TooLong`]; and what else the database says of
            /// it.
            pub async fn fetch_all<Q: TypedStatement>(
                &self,
                query: Q,
            ) -> Result<Vec<RowOf<Q>>, Error> {
                let rows = self.context.fetch_all(query);
                self.context.count_own("fetch_all", rows).await
            }

            /// Runs a statement of your own and returns its first row, if there is one. No
            /// other row is read, except of `find_with_related`, which needs them all.
            ///
            /// # Errors
            ///
            /// As `fetch_all`.
            pub async fn fetch_optional<Q: TypedStatement>(
                &self,
                query: Q,
            ) -> Result<Option<RowOf<Q>>, Error> {
                let row = self.context.fetch_optional(query);
                self.context.count_own("fetch_optional", row).await
            }

            /// Runs a statement of your own and returns its first row, as `fetch_optional`.
            ///
            /// # Errors
            ///
            /// [`Error::NotFound`] when there is none, and as `fetch_all`.
            pub async fn fetch_one<Q: TypedStatement>(&self, query: Q) -> Result<RowOf<Q>, Error> {
                self.fetch_optional(query)
                    .await?
                    .ok_or_else(|| Error::not_found("row", "of the query"))
            }

            /// Runs an `INSERT`, `UPDATE` or `DELETE` of your own and returns the number of
            /// rows that it changed.
            ///
            /// # Errors
            ///
            /// As `fetch_all`.
            pub async fn execute<S: StatementBuilder + Send>(
                &self,
                statement: S,
            ) -> Result<u64, Error> {
                let statement = statement.build(&self.context.backend());
                let statement = aura_orm::Statement::classify(statement);
                let changed = self.context.execute(statement);
                self.context.count_own("execute", changed).await
            }

            /// Inserts any number of rows of one entity and returns their number, in one
            /// transaction: cut into statements of at most 1,000 rows, 8 MiB and as many
            /// values as the database takes. One statement of `Entity::insert_many` has
            /// none of these limits, and fails with more values than that.
            ///
            /// ```
            /// # mod reading {
            /// #     use aura_db::sea_orm::entity::prelude::*;
            /// #     #[sea_orm::model]
            /// #     #[derive(Clone, Debug, DeriveEntityModel)]
            /// #     #[sea_orm(table_name = "readings")]
            /// #     pub struct Model { #[sea_orm(primary_key)] pub id: i64, pub value: f64 }
            /// #     impl ActiveModelBehavior for ActiveModel {}
            /// # }
            /// use aura_db::sea_orm::ActiveValue::{NotSet, Set};
            ///
            /// # async fn example(db: aura_db::Database, values: Vec<f64>)
            /// # -> Result<(), aura_db::Error> {
            /// let rows = values.into_iter().map(|value| reading::ActiveModel {
            ///     id: NotSet,
            ///     value: Set(value),
            /// });
            /// let count = db.insert_many(rows).await?;
            /// # Ok(()) }
            /// ```
            ///
            /// A column that a row doesn't set has its default, also beside rows that set
            /// it. Hooks of `ActiveModelBehavior` don't run.
            ///
            /// # Errors
            ///
            /// As `fetch_all`, and then no row is inserted.
            pub async fn insert_many<A>(
                &self,
                rows: impl IntoIterator<Item = A> + Send,
            ) -> Result<u64, Error>
            where
                A: ActiveModelTrait + Send + Sync,
            {
                let count = self.context.insert_many(rows);
                self.context.count_own("insert_many", count).await
            }
        })+
    };
}

queries!(Database, Transaction);
