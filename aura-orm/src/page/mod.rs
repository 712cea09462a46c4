//! Pages of lists, and the order that they are in.

mod cursor;
mod sort;

use sea_orm::QueryFilter;
use sea_orm::sea_query::{Expr, LikeExpr, SimpleExpr};
use sea_orm::{
    ColumnTrait, EntityTrait, ExprTrait, IdenStatic, Iterable, ModelTrait, PrimaryKeyToColumn,
    QuerySelect, QueryTrait, Select, Value,
};
use serde::Serialize;

use self::sort::SortPlan;
use crate::error::Error;
use crate::executor::Executor;
use crate::executor::query::ALL;
use crate::fetched::Fetched;
use crate::row::unreadable::{FailedRow, ListRow};
use crate::row::{EntityModel, ModelOf, RowDecoder};
use crate::value::display_key;

pub use self::cursor::Cursor;
pub(crate) use self::sort::is_document;
pub use self::sort::{MAX_SORT_COLUMNS, Sort};

/// The most rows that one page has.
pub const MAX_PAGE: u64 = 1_000;

/// The most bytes of values that one page has, unless its first row has more; and every other
/// read of a repository that collects rows. Where they would be more, a page ends
/// ([`Page::cut`]), and the others say so.
pub const MAX_PAGE_BYTES: usize = 64 << 20;

/// The part of a list to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    size: u64,
    at: At,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Start,
    After(Cursor),
    Before(Cursor),
    Number(u64),
}

impl PageRequest {
    /// Requests the first `size` rows.
    #[must_use]
    pub fn first(size: u64) -> Self {
        Self {
            size,
            at: At::Start,
        }
    }

    /// Requests the `size` rows after the place that a list's [`Page::next`] marks: as
    /// fast at the end of a long list as at its start.
    #[must_use]
    pub fn after(cursor: Cursor, size: u64) -> Self {
        Self {
            size,
            at: At::After(cursor),
        }
    }

    /// Requests the `size` rows before the place that a list's [`Page::previous`] marks,
    /// in the list's order.
    #[must_use]
    pub fn before(cursor: Cursor, size: u64) -> Self {
        Self {
            size,
            at: At::Before(cursor),
        }
    }

    /// Requests a numbered page, from 1, with the total of rows. The database counts
    /// through all the rows before it; rows that come and go shift the others.
    #[must_use]
    pub fn number(number: u64, size: u64) -> Self {
        Self {
            size,
            at: At::Number(number),
        }
    }

    /// Returns the LIMIT of the page's query: one row more than the page has, to see
    /// whether there is another page.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.size.saturating_add(1)
    }

    /// Returns where the rows of the page begin, for a list that is sorted by a key that is
    /// an integer; `None` for another list, and for a page that will be refused.
    #[must_use]
    pub fn start<E: EntityTrait>(&self, sort: &Sort<E>) -> Option<PageStart> {
        if !(1..=MAX_PAGE).contains(&self.size) || !sort.is_by_key() {
            return None;
        }
        let descending = sort.is_descending();
        let first = if descending { i64::MAX } else { i64::MIN };
        let place = |cursor: &Cursor| {
            let place = cursor.decode().filter(|place| place.0 == sort.name())?;
            place.1.first()?.as_i64()
        };
        let (beyond, descending, skipped) = match &self.at {
            At::Start => (first, descending, 0),
            At::After(cursor) => (place(cursor)?, descending, 0),
            At::Before(cursor) => (place(cursor)?, !descending, 0),
            At::Number(number) => {
                let skipped = number.checked_sub(1)?.checked_mul(self.size)?;
                (first, descending, skipped)
            }
        };
        Some(PageStart {
            beyond,
            descending,
            rows: skipped.saturating_add(self.limit()),
        })
    }
}

/// Where the rows of a page begin. From [`PageRequest::start`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageStart {
    /// The id beyond which they begin; on a first page one that no row has.
    pub beyond: i64,
    /// Whether they are read from the highest id to the lowest: a page before another is
    /// read against the order of its list.
    pub descending: bool,
    /// The most rows that the page's query reads, with those that a numbered page skips.
    pub rows: u64,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page begins, when there is one.
    pub next: Option<Cursor>,
    /// Where the page before ends, unless this one is known to be the first.
    pub previous: Option<Cursor>,
    /// How many rows there are in all; only for [`PageRequest::number`].
    pub total: Option<u64>,
    /// Whether it has fewer rows than were asked for and than there are, because they would
    /// have more than [`MAX_PAGE_BYTES`]. `next`, or `previous` of a page
    /// [before](PageRequest::before) another, marks where it ends: go on from there, also
    /// after a page by number.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// The rows of the page that this build can't read, as those that a newer version wrote.
    /// They are not in `items`, and count in the size of the page.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<UnreadableRow>,
}

/// A row that a [`Page`] leaves out, because this build can't read it. It holds none of the
/// row's values but the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnreadableRow {
    /// The table.
    pub table: String,
    /// The row's key; of a key of several columns each, with commas between. `None` when it
    /// can't be read either, or the rows of the list are without it.
    pub key: Option<String>,
    /// The column that can't be read, when it is known.
    pub column: Option<String>,
}

/// A [`Page`], with an error in the place of each row that can't be read.
pub(crate) struct Results<T> {
    pub(crate) rows: Vec<Result<T, FailedRow>>,
    pub(crate) next: Option<Cursor>,
    previous: Option<Cursor>,
    total: Option<u64>,
    pub(crate) cut: bool,
}

/// The rows of a page in the order in which they are read.
struct SortedRows<T> {
    rows: Vec<Placed<T>>,
    /// Whether others follow.
    more: bool,
    /// Whether they are fewer than the page would have.
    cut: bool,
}

/// A row of a list, with the stored texts of the times that it is sorted by.
type Placed<T> = Result<(T, Vec<Option<String>>), FailedRow>;

/// A row that can stand in a list.
pub trait SortableRow<C>: Sized {
    /// How it is read.
    type Decoder: RowDecoder<Row = Self>;

    /// Returns what is in a column of it.
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

impl<X: From<Error> + Send + 'static> Executor<X> {
    /// Returns a page of a select, which has its filters and columns already. A LIMIT and
    /// an OFFSET of its own are replaced. Rows that can't be read are in
    /// [`Page::unreadable`]. A page of more than [`MAX_PAGE_BYTES`] ends early
    /// ([`Page::cut`]).
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] for a page of no rows or more than [`MAX_PAGE`], for a
    /// cursor of another list, and for columns without an order; [`Error::Row`] when no row
    /// can be read, as without a column; [`Error::Other`] when the next or the previous page
    /// would begin at a row whose values can't stand in a cursor; as [`Executor::fetch_all`].
    pub async fn page<E, T>(
        &self,
        select: Select<E>,
        sort: &Sort<E>,
        page: PageRequest,
    ) -> Result<Page<T>, X>
    where
        E: EntityTrait,
        T: SortableRow<E::Column>,
    {
        self.page_of(select.clone(), select, sort, page).await
    }

    /// Returns a page as [`Executor::page`] does, of a select that has the rows of this page
    /// and maybe no others; `all` has all rows of the list, for its total.
    ///
    /// # Errors
    ///
    /// As [`Executor::page`].
    pub async fn page_of<E, T>(
        &self,
        select: Select<E>,
        all: Select<E>,
        sort: &Sort<E>,
        page: PageRequest,
    ) -> Result<Page<T>, X>
    where
        E: EntityTrait,
        T: SortableRow<E::Column>,
    {
        let results = self.page_results(select, all, sort, page).await?;
        let (mut items, mut unreadable) = (Vec::with_capacity(results.rows.len()), Vec::new());
        for row in results.rows {
            match row {
                Ok(row) => items.push(row),
                Err(row) => unreadable.push(UnreadableRow {
                    key: key_of::<E>(&row),
                    table: row.error.table,
                    column: row.error.column,
                }),
            }
        }
        Ok(Page {
            items,
            next: results.next,
            previous: results.previous,
            total: results.total,
            cut: results.cut,
            unreadable,
        })
    }

    /// As [`Executor::page_of`], with an error in the place of each row that can't be read.
    pub(crate) async fn page_results<E, T>(
        &self,
        select: Select<E>,
        all: Select<E>,
        sort: &Sort<E>,
        page: PageRequest,
    ) -> Result<Results<T>, X>
    where
        E: EntityTrait,
        T: SortableRow<E::Column>,
    {
        if !(1..=MAX_PAGE).contains(&page.size) {
            let problem = format!("must be between 1 and {MAX_PAGE}, and is {}", page.size);
            return Err(Error::field("page.size", problem).into());
        }
        let backend = self.backend();
        let backwards = matches!(page.at, At::Before(_));
        let plan = sort.plan(backwards)?;
        let mut query = plan.order(select).limit(page.limit());
        let mut total = None;
        let mut at_start = false;
        match &page.at {
            At::Start => at_start = true,
            At::After(cursor) | At::Before(cursor) => {
                let Some(place) = plan.beyond(cursor, backend) else {
                    let (field, end) = if backwards {
                        ("page.before", "previous")
                    } else {
                        ("page.after", "next")
                    };
                    let problem = format!("must be the `{end}` of a list in the same order");
                    return Err(Error::field(field, problem).into());
                };
                query = query.filter(place);
            }
            At::Number(number) => {
                let before = number
                    .checked_sub(1)
                    .and_then(|pages| pages.checked_mul(page.size));
                // Larger offsets overflow the databases' integers.
                let Some(before) = before.filter(|before| i64::try_from(*before).is_ok()) else {
                    let problem = "must be a page number, from 1";
                    return Err(Error::field("page.number", problem).into());
                };
                at_start = before == 0;
                query = query.offset(before);
                total = Some(self.count(all.limit(None).offset(None)).await?);
            }
        }
        let SortedRows {
            mut rows,
            more,
            cut,
        } = self.sorted_rows::<E, T>(query, &plan, page.size).await?;
        if backwards {
            rows.reverse();
        }
        let cursor = |row: Option<&Placed<T>>| {
            let cursor = row.map(|row| match row {
                Ok((row, texts)) => plan.cursor(row, texts, backend),
                Err(row) => plan.cursor_at(row, backend),
            });
            cursor.transpose()
        };
        let (has_previous, has_next) = if backwards {
            (more, true)
        } else {
            (!at_start, more)
        };
        Ok(Results {
            next: cursor(rows.last().filter(|_| has_next))?,
            previous: cursor(rows.first().filter(|_| has_previous))?,
            rows: rows.into_iter().map(|row| Ok(row?.0)).collect(),
            total,
            cut,
        })
    }

    /// Returns at most `size` rows with the texts of their places.
    async fn sorted_rows<E, T>(
        &self,
        mut query: Select<E>,
        plan: &SortPlan<E::Column>,
        size: u64,
    ) -> Result<SortedRows<T>, X>
    where
        E: EntityTrait,
        T: SortableRow<E::Column>,
    {
        let texts = plan.texts(self.backend());
        for column in &texts {
            query = query.expr(Expr::col((column.entity_name(), *column)));
        }
        let query = query.into_query();
        let Fetched { mut rows, cut } = match texts.len() {
            0 => {
                self.read_rows::<E, ListRow<T::Decoder, 0>>(query, ALL)
                    .await?
            }
            1 => {
                self.read_rows::<E, ListRow<T::Decoder, 1>>(query, ALL)
                    .await?
            }
            2 => {
                self.read_rows::<E, ListRow<T::Decoder, 2>>(query, ALL)
                    .await?
            }
            3 => {
                self.read_rows::<E, ListRow<T::Decoder, 3>>(query, ALL)
                    .await?
            }
            _ => {
                let problem = "may hold at most 3 times";
                return Err(Error::field("sort", problem).into());
            }
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let more = cut || rows.len() > size;
        rows.truncate(size);
        let cut = cut && rows.len() < size;
        Ok(SortedRows { rows, more, cut })
    }
}

/// Returns the key of a row that can't be read, as errors name it.
fn key_of<E: EntityTrait>(row: &FailedRow) -> Option<String> {
    let columns = E::PrimaryKey::iter().map(PrimaryKeyToColumn::into_column);
    let values = columns.map(|column: E::Column| {
        let kind = <E::Model as ModelTrait>::get_value_type(column);
        row.cell(column.as_str())?.value(&kind)
    });
    let values: Vec<Value> = values.collect::<Option<_>>()?;
    Some(display_key(&values))
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
