//! Counts and other aggregates of the rows of a select.

use sea_orm::sea_query::{Alias, Asterisk, Expr, Query, SimpleExpr, ValueType};
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QuerySelect, QueryTrait, Select};

use super::query::ScalarOf;
use crate::error::Error;
use crate::executor::Executor;
use crate::typed_statement::{distinct, select};

/// The name of a select as a table.
const ROWS: &str = "selected";

impl<X: From<Error> + Send + 'static> Executor<X> {
    /// Returns the number of rows of a select: with DISTINCT, GROUP BY, LIMIT or OFFSET of
    /// those that it returns.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`].
    pub async fn count<E: EntityTrait>(&self, query: Select<E>) -> Result<u64, X> {
        let of = |_| Expr::col(Asterisk).count();
        let count: Option<i64> = self.aggregate(query, None, of).await?;
        Ok(count.unwrap_or(0).try_into().unwrap_or(0))
    }

    /// Returns an aggregate of the rows that a select returns, `of` a column.
    pub(crate) async fn aggregate<T, E>(
        &self,
        query: Select<E>,
        column: Option<E::Column>,
        of: impl Fn(SimpleExpr) -> SimpleExpr,
    ) -> Result<Option<T>, X>
    where
        T: Send + 'static,
        Option<T>: ValueType,
        E: EntityTrait,
    {
        let backend = self.backend();
        let column_or_1 = || match column {
            Some(column) => Expr::col((column.entity_name(), column)),
            None => Expr::val(1_i64),
        };
        let plain = query.clone().select_only().expr(of(column_or_1()));
        let mut plain = plain.into_query();
        // Servers refuse an order of what isn't selected.
        plain.clear_order_by();
        let mut statement = select(&plain, backend);
        if distinct::is_of_returned_rows(statement.sql()) {
            let mut rows = if distinct::is_distinct(statement.sql()) {
                query.into_query()
            } else {
                let query = query.select_only();
                let query = match column {
                    Some(column) => query.column(column),
                    None => query.expr(Expr::val(1_i64)),
                };
                query.into_query()
            };
            if !distinct::is_limited(statement.sql()) {
                rows.clear_order_by();
            }
            let value = match column {
                Some(column) => of(Expr::col((Alias::new(ROWS), column))),
                None => of(Expr::val(1_i64)),
            };
            let outer = Query::select().expr(value).from_subquery(rows, ROWS).take();
            statement = select(&outer, backend);
            distinct::compare_json::<E>(&mut statement, backend);
        }
        let mut found = self.rows::<ScalarOf<E, T>>(statement, 1).await?.rows;
        Ok(found.pop().flatten())
    }
}
