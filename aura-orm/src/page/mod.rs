//! Pages of lists, and the order that they are in.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, SecondsFormat};
use sea_orm::sea_query::{ArrayType, Expr, LikeExpr, Order, SimpleExpr};
use sea_orm::{
    ColumnTrait, ColumnType, DbBackend, DbErr, EntityTrait, ExprTrait, ModelTrait, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, Select, Value,
};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::executor::Executor;
use crate::row::{EntityModel, ModelOf, RowDecoder, RowReader};
use crate::sqlite::{self, ValueRef};

/// The most rows that one page has.
pub const MAX_PAGE: u64 = 1_000;

/// A part of a list to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    size: u64,
    at: At,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Start,
    After(Cursor),
    Number(u64),
}

impl PageRequest {
    /// The first `size` rows.
    #[must_use]
    pub fn first(size: u64) -> Self {
        Self {
            size,
            at: At::Start,
        }
    }

    /// The `size` rows after the place that a list's [`Page::next`] marks: as
    /// fast at the end of a long list as at its start.
    #[must_use]
    pub fn after(cursor: Cursor, size: u64) -> Self {
        Self {
            size,
            at: At::After(cursor),
        }
    }

    /// A numbered page, from 1, with the total of rows. The database counts
    /// through all the rows before it; rows that come and go shift the others.
    #[must_use]
    pub fn number(number: u64, size: u64) -> Self {
        Self {
            size,
            at: At::Number(number),
        }
    }
}

impl PageRequest {
    /// Returns the LIMIT of the page's query: one row more than the page has, to see
    /// whether there is another page.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.size.saturating_add(1)
    }

    /// Returns the id after which the page begins, for a list that is sorted by id; on
    /// the first page one that no row has. `None` for a numbered page, and for one that
    /// will be refused.
    pub fn start_id<C: ColumnTrait>(&self, sorted: SortKey<C>) -> Option<i64> {
        if !(1..=MAX_PAGE).contains(&self.size) || !sorted.by_id() {
            return None;
        }
        match &self.at {
            At::Start if sorted.descending => Some(i64::MAX),
            At::Start => Some(i64::MIN),
            At::After(cursor) => {
                let mark = cursor.decode().filter(|mark| mark.0 == sorted.name())?;
                Some(mark.2)
            }
            At::Number(_) => None,
        }
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page begins, when there is one.
    pub next: Option<Cursor>,
    /// How many rows there are in all; only for [`PageRequest::number`].
    pub total: Option<u64>,
}

/// A place in a list, to hand to a client and take back. What is in it may
/// change; one that was made for another list or order is refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Cursor {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for Cursor {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// The longest cursor, in bytes. Ours have a text of at most 160 characters,
/// which take up to six bytes each in JSON, and a third more in base64.
const MAX_CURSOR: usize = 4_096;

/// What a cursor says: the list's order, and the row that it stands at.
#[derive(Serialize, Deserialize)]
struct CursorPayload(String, String, i64);

impl Cursor {
    fn encode(mark: &CursorPayload) -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(mark).unwrap_or_default()))
    }

    fn decode(&self) -> Option<CursorPayload> {
        if self.0.len() > MAX_CURSOR {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&self.0).ok()?;
        let mark: CursorPayload = serde_json::from_slice(&bytes).ok()?;
        // PostgreSQL can't compare with it.
        (!mark.1.contains('\0')).then_some(mark)
    }
}

/// A list's order: a column, and the id where it is the same. Only columns that
/// are never NULL, so that no place in the list is ambiguous.
#[derive(Debug, Clone, Copy)]
pub struct SortKey<C> {
    /// The column that the list is sorted by.
    pub by: C,
    /// The key, for rows that are the same in it.
    pub id: C,
    /// The opposite order, of both.
    pub descending: bool,
}

impl<C: ColumnTrait> SortKey<C> {
    fn name(self) -> String {
        let direction = if self.descending { "-" } else { "+" };
        format!("{}{direction}{}", self.by.entity_name(), self.by.as_str())
    }

    fn by_id(self) -> bool {
        self.by.as_str() == self.id.as_str()
    }

    fn by_time(self) -> bool {
        *self.by.def().get_column_type() == ColumnType::TimestampWithTimeZone
    }

    /// Whether the list is sorted by a time that is stored as text: SQLite compares
    /// the text, of which several forms mean the same time.
    fn by_text_of_time(self, backend: DbBackend) -> bool {
        backend == DbBackend::Sqlite && self.by_time()
    }

    fn after(self, mark: &CursorPayload, backend: DbBackend) -> Option<SimpleExpr> {
        let column = |column: C| Expr::col((column.entity_name(), column));
        let id = Expr::val(mark.2);
        let (left, right) = if self.by_id() {
            (column(self.id), id)
        } else {
            let key: Value = if self.by_text_of_time(backend) {
                let text = ValueRef::Text(mark.1.as_bytes());
                sqlite::value(text, &ArrayType::ChronoDateTimeUtc).ok()??;
                // As cursors had it before they held what is stored.
                mark.1.replace('Z', "+00:00").into()
            } else if self.by_time() {
                DateTime::parse_from_rfc3339(&mark.1).ok()?.to_utc().into()
            } else {
                mark.1.clone().into()
            };
            (
                Expr::tuple([column(self.by), column(self.id)]),
                Expr::tuple([Expr::val(key), id]),
            )
        };
        Some(if self.descending {
            left.lt(right)
        } else {
            left.gt(right)
        })
    }

    /// Returns the cursor of a row; `text` is the stored text of the time that the
    /// list is sorted by, where that is text.
    fn mark<T: SortableRow<C>>(self, row: &T, text: Option<&String>) -> Result<Cursor, Error> {
        let key = match row.cell(self.by) {
            _ if self.by_id() => String::new(),
            Value::ChronoDateTimeUtc(Some(time)) => match text {
                Some(text) => text.clone(),
                None => time.to_rfc3339_opts(SecondsFormat::Micros, true),
            },
            Value::String(Some(text)) => text,
            _ => return Err(self.unmarked()),
        };
        let Value::BigInt(Some(id)) = row.cell(self.id) else {
            return Err(self.unmarked());
        };
        Ok(Cursor::encode(&CursorPayload(self.name(), key, id)))
    }

    fn unmarked(self) -> Error {
        Error::Other {
            context: "marking a place in a list",
            source: format!("{} can't be a cursor", self.name()).into(),
        }
    }
}

/// A row that can stand in a list.
pub trait SortableRow<C>: Sized {
    /// How it is read.
    type Decoder: RowDecoder<Row = Self>;

    /// What is in a column of it.
    fn cell(&self, column: C) -> Value;
}

impl<M> SortableRow<<M::Entity as EntityTrait>::Column> for M
where
    M: ModelTrait<Entity: EntityModel<Model = M>>,
{
    type Decoder = ModelOf<M::Entity>;

    fn cell(&self, column: <M::Entity as EntityTrait>::Column) -> Value {
        self.get(column)
    }
}

/// Reads a row and, behind it, the stored text of the time that the list is sorted by.
struct WithText<D>(std::marker::PhantomData<D>);

impl<D: RowDecoder> RowDecoder for WithText<D> {
    type Row = (D::Row, String);

    fn decode(cells: &mut RowReader<'_>) -> Result<Self::Row, DbErr> {
        Ok((D::decode(cells)?, cells.next_value()?))
    }
}

impl<X: From<Error> + Send + 'static> Executor<X> {
    /// Returns a page of a select, which has its filters and columns already.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] for a page of no rows or more than [`MAX_PAGE`], and for a
    /// cursor of another list; as [`Executor::fetch_all`].
    pub async fn page<E, T>(
        &self,
        select: Select<E>,
        sorted: SortKey<E::Column>,
        page: PageRequest,
    ) -> Result<Page<T>, X>
    where
        E: EntityTrait,
        T: SortableRow<E::Column>,
    {
        if !(1..=MAX_PAGE).contains(&page.size) {
            let problem = format!("must be between 1 and {MAX_PAGE}, and is {}", page.size);
            return Err(Error::field("page.size", problem).into());
        }
        let size = usize::try_from(page.size).unwrap_or(usize::MAX);
        let order = if sorted.descending {
            Order::Desc
        } else {
            Order::Asc
        };
        let mut query = select.clone();
        if !sorted.by_id() {
            query = query.order_by(sorted.by, order.clone());
        }
        query = query.order_by(sorted.id, order).limit(page.limit());
        let mut total = None;
        match page.at {
            At::Start => {}
            At::After(cursor) => {
                let place = cursor
                    .decode()
                    .filter(|mark| mark.0 == sorted.name())
                    .and_then(|mark| sorted.after(&mark, self.backend()));
                let Some(place) = place else {
                    let problem = "must be the `next` of a list in the same order";
                    return Err(Error::field("page.after", problem).into());
                };
                query = query.filter(place);
            }
            At::Number(number) => {
                let before = number
                    .checked_sub(1)
                    .and_then(|pages| pages.checked_mul(page.size));
                // More is no number to either database.
                let Some(before) = before.filter(|before| i64::try_from(*before).is_ok()) else {
                    let problem = "must be a page number, from 1";
                    return Err(Error::field("page.number", problem).into());
                };
                query = query.offset(before);
                total = Some(self.count(select).await?);
            }
        }
        let with_text = sorted.by_text_of_time(self.backend());
        if with_text {
            query = query.expr(Expr::col((sorted.by.entity_name(), sorted.by)));
        }
        let query = query.into_query();
        let (mut items, texts): (Vec<T>, Vec<String>) = if with_text {
            let rows = self.read_rows::<WithText<T::Decoder>>(query).await?;
            rows.into_iter().unzip()
        } else {
            (self.read_rows::<T::Decoder>(query).await?, Vec::new())
        };
        let more = items.len() > size;
        items.truncate(size);
        let last = items.last().filter(|_| more);
        let next = last.map(|row| sorted.mark(row, texts.get(size - 1)));
        Ok(Page {
            next: next.transpose()?,
            items,
            total,
        })
    }
}

/// Returns the condition that a column holds this text, without ASCII case. Wildcards in
/// the text are escaped.
pub fn contains_ci<C: ColumnTrait>(column: C, text: &str) -> SimpleExpr {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character.to_ascii_lowercase());
    }
    pattern.push('%');
    // `lower` is ASCII on SQLite, and on PostgreSQL for our columns, which
    // collate "C".
    Expr::expr(sea_orm::sea_query::Func::lower(Expr::col((
        column.entity_name(),
        column,
    ))))
    .like(LikeExpr::new(pattern).escape('\\'))
}
