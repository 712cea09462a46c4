//! Statements of an application's own, on a database or in a transaction.

use aura_orm::{RowOf, TypedStatement};
use chrono::{DateTime, Utc};
use entity::UserId;
use sea_orm::{DbBackend, StatementBuilder};

use crate::database::{Database, Transaction};
use crate::error::Error;

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

            /// Runs a statement of your own and returns all its rows.
            ///
            /// ```
            /// use aura_db::entity::{Live, Role, users};
            /// use aura_db::sea_orm::{ColumnTrait, QueryFilter, QueryOrder};
            ///
            /// # async fn example(db: aura_db::Database) -> Result<(), aura_db::Error> {
            /// let admins = users::Entity::live()
            ///     .filter(users::COLUMN.role.eq(Role::Admin))
            ///     .order_by_asc(users::Column::Name);
            /// let admins: Vec<aura_db::User> = db.fetch_all(admins).await?;
            /// # Ok(()) }
            /// ```
            ///
            /// `find_with_related` returns each model with all that is related to it. An
            /// insert, update or delete of an entity returns the rows that it wrote.
            /// Soft-deleted rows are returned too, unless the query starts from
            /// [`entity::Live::live`].
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
        })+
    };
}

queries!(Database, Transaction);
