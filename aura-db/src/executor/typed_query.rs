//! Queries of the caller's own.

use sea_orm::sea_query::StringLen;
use sea_orm::{
    ColumnTrait, ColumnType, DbBackend, DbErr, EntityTrait, FromQueryResult, Iden, Iterable,
    QueryResult, QueryTrait, RuntimeErr, Select, Selector, SelectorRaw, SelectorTrait, Statement,
};

use crate::error::Error;
use crate::executor::row::beyond_time;
use crate::executor::statement::select;

/// A query whose rows have a type: [`Select`] of an entity,
/// `.into_model::<M>()` and `.into_tuple::<T>()` of one, and the same of raw
/// SQL with bound values.
pub trait Fetch: Send {
    /// What a row is read as.
    type Row: Send;

    /// The statement for this backend.
    fn statement(self, backend: DbBackend) -> Statement;

    /// Reads a row.
    fn decode(row: QueryResult) -> Result<Self::Row, Error>;
}

/// Reads the rows of a query.
pub(crate) fn decode_all<Q: Fetch>(rows: Vec<QueryResult>) -> Result<Vec<Q::Row>, Error> {
    let decode = |row: QueryResult| {
        if let Some((column, error)) = row.try_as_pg_row().and_then(beyond_time) {
            let (column, id) = (Some(column.to_owned()), row.try_get("", "id").ok());
            return Err(undecoded("a query", column, id, error));
        }
        Q::decode(row)
    };
    rows.into_iter().map(decode).collect()
}

impl<E: EntityTrait> Fetch for Select<E>
where
    E::Model: Send,
{
    type Row = E::Model;

    fn statement(self, backend: DbBackend) -> Statement {
        select(&self.into_query(), backend)
    }

    fn decode(row: QueryResult) -> Result<E::Model, Error> {
        E::Model::from_query_result(&row, "").map_err(|source| {
            let column = broken_column::<E>(&row, &source);
            let id = row.try_get("", "id").ok();
            undecoded(E::default().table_name(), column, id, source)
        })
    }
}

impl<S> Fetch for Selector<S>
where
    S: SelectorTrait + Send,
    S::Item: Send,
{
    type Row = S::Item;

    fn statement(self, backend: DbBackend) -> Statement {
        self.into_statement(backend)
    }

    fn decode(row: QueryResult) -> Result<S::Item, Error> {
        let id = row.try_get("", "id").ok();
        S::from_raw_query_result(row).map_err(|source| undecoded("a query", None, id, source))
    }
}

impl<S> Fetch for SelectorRaw<S>
where
    S: SelectorTrait + Send,
    S::Item: Send,
{
    type Row = S::Item;

    fn statement(self, _: DbBackend) -> Statement {
        self.into_statement()
    }

    fn decode(row: QueryResult) -> Result<S::Item, Error> {
        <Selector<S> as Fetch>::decode(row)
    }
}

/// A row that can't be read.
fn undecoded(table: &str, column: Option<String>, id: Option<i64>, source: DbErr) -> Error {
    Error::Inconsistent {
        table: table.to_owned(),
        column,
        id,
        source,
    }
}

/// Which column a row's error is about. The driver names it; an enum's error
/// only quotes the word that it doesn't know.
fn broken_column<E: EntityTrait>(row: &QueryResult, error: &DbErr) -> Option<String> {
    if let DbErr::Query(RuntimeErr::SqlxError(error)) = error
        && let sqlx::Error::ColumnDecode { index, .. } = &**error
    {
        return Some(index.trim_matches('"').to_owned());
    }
    let message = error.to_string();
    E::Column::iter().find_map(|column| {
        let word: String = row.try_get("", &column.to_string()).ok()?;
        let words = ColumnType::String(StringLen::N(16));
        let closed_set = *column.def().get_column_type() == words;
        (closed_set && message.contains(&word)).then(|| column.to_string())
    })
}
