//! Reads.

use std::collections::HashMap;

use futures_util::stream::{self, Stream, TryStreamExt};
use sea_orm::sea_query::{Func, SimpleExpr, ValueType};
use sea_orm::{
    ColumnTrait, Condition, IdenStatic, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select,
};

use super::filter::Rows;
use super::key::{Key, KeyOf, not_found};
use super::{Deleted, Filter, Projection, Repository, RepositoryEntity, RepositoryError};
use crate::error::Error;
use crate::executor::Access;
use crate::executor::query::ALL;
use crate::page::{Page, PageRequest, Results, Sort, is_document};
use crate::policy::Action;
use crate::row::ModelOf;

/// The most rows that [`Repository::find_by`] returns.
pub const MAX_ROWS: u64 = 10_000;

/// The most keys of one [`Repository::find_many`].
pub const MAX_KEYS: usize = 1_000;

/// How many rows [`Repository::stream`] reads at once.
const STREAM_PAGE: u64 = 100;

impl<E: RepositoryEntity, X: RepositoryError> Repository<E, X> {
    /// Returns the row with this key, unless it is hidden.
    ///
    /// # Errors
    ///
    /// As [`Executor::fetch_all`](crate::Executor::fetch_all).
    pub async fn find(&self, key: impl Into<KeyOf<E>> + Send) -> Result<Option<E::Model>, X> {
        let key = &Key::of::<E>(key);
        self.operate(
            "find",
            Action::Read,
            Access::READ,
            |repository| async move { repository.find_by_key(key).await },
        )
        .await
    }

    /// Returns the row with this key.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; as [`Repository::find`].
    pub async fn get(&self, key: impl Into<KeyOf<E>> + Send) -> Result<E::Model, X> {
        let key = &Key::of::<E>(key);
        self.operate("get", Action::Read, Access::READ, |repository| async move {
            let found = repository.find_by_key(key).await?;
            Ok(found.ok_or_else(|| not_found::<E>(key))?)
        })
        .await
    }

    pub(super) async fn find_by_key(&self, key: &Key) -> Result<Option<E::Model>, X> {
        let plan = self.plan;
        let select = || E::find().filter(key.condition(plan));
        let values = || key.0.clone();
        if let (Some(user), Deleted::Hidden, false) =
            (self.own, self.deleted, self.is_own_by_relation())
        {
            let mut values = values();
            values.push(user.into());
            let build = || Ok(self.visible(Rows::Where(key.condition(plan))));
            return self
                .executor
                .fetch_optional(plan.find_own.with(values, build))
                .await;
        }
        if self.own.is_some() {
            return self
                .executor
                .fetch_optional(self.visible(Rows::Select(Box::new(select()))))
                .await;
        }
        match (self.deleted, plan.conventions.deleted_at) {
            (Deleted::Hidden, Some(deleted_at)) => {
                let build = || Ok(select().filter(deleted_at.is_null()));
                let found = self
                    .executor
                    .fetch_optional(plan.find.with(values(), build));
                found.await
            }
            (Deleted::Only, Some(_)) => {
                self.executor
                    .fetch_optional(self.visible(Rows::Select(Box::new(select()))))
                    .await
            }
            _ => {
                let all = plan.find_with_deleted.with(values(), || Ok(select()));
                self.executor.fetch_optional(all).await
            }
        }
    }

    /// Returns the rows with these keys, in the order of the keys, without those that are
    /// hidden or missing.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] for more than [`MAX_KEYS`], and for rows with more than
    /// [`MAX_PAGE_BYTES`](crate::page::MAX_PAGE_BYTES) of values; as [`Repository::find`].
    pub async fn find_many<K>(&self, keys: K) -> Result<Vec<E::Model>, X>
    where
        K: IntoIterator<Item: Into<KeyOf<E>>> + Send,
    {
        let keys: Vec<Key> = keys.into_iter().map(Key::of::<E>).collect();
        if keys.len() > MAX_KEYS {
            let problem = format!("must be at most {MAX_KEYS}, and are {}", keys.len());
            return Err(Error::field("keys", problem).into());
        }
        let keys = &keys;
        self.operate(
            "find_many",
            Action::Read,
            Access::READ,
            |repository| async move {
                if keys.is_empty() {
                    return Ok(Vec::new());
                }
                let plan = repository.plan;
                let select =
                    repository.visible(Rows::Where(Condition::all().add(Key::any(plan, keys))));
                let query = select.into_query();
                let executor = &repository.executor;
                let found = executor.read_rows::<E, ModelOf<E>>(query, ALL).await?;
                let rows = found.all::<E>("keys", "find fewer at once")?;
                let mut places: HashMap<Key, E::Model> = rows
                    .into_iter()
                    .map(|row| (Key::of_model(plan, &row), row))
                    .collect();
                Ok(keys.iter().filter_map(|key| places.remove(key)).collect())
            },
        )
        .await
    }

    /// Returns all rows of a filter, in the order of the key, or in its own.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] when there are more than [`MAX_ROWS`], or they have more than
    /// [`MAX_PAGE_BYTES`](crate::page::MAX_PAGE_BYTES) of values: take [`Repository::list`]
    /// or [`Repository::stream`]. As [`Repository::find`].
    pub async fn find_by(&self, filter: impl Filter<E>) -> Result<Vec<E::Model>, X> {
        let rows = &filter.into_rows();
        self.operate(
            "find_by",
            Action::Read,
            Access::READ,
            |repository| async move {
                let mut select = repository.by_key(repository.visible(rows.clone()));
                if let Rows::Where(_) = rows {
                    select = select.limit(MAX_ROWS + 1);
                }
                // A select may have a limit of its own.
                let most = usize::try_from(MAX_ROWS)
                    .unwrap_or(usize::MAX)
                    .saturating_add(1);
                let query = select.into_query();
                let found = repository
                    .executor
                    .read_rows::<E, ModelOf<E>>(query, most)
                    .await?;
                let rows = found.all::<E>("filter", "use `list` or `stream`")?;
                if rows.len() as u64 > MAX_ROWS {
                    let problem = format!(
                        "has more than {MAX_ROWS} rows of {}; use `list` or `stream`",
                        E::default().table_name()
                    );
                    return Err(Error::field("filter", problem).into());
                }
                Ok(rows)
            },
        )
        .await
    }

    /// Returns the first row of a filter, in the order of the key, or in its own.
    ///
    /// # Errors
    ///
    /// As [`Repository::find`].
    pub async fn first(&self, filter: impl Filter<E>) -> Result<Option<E::Model>, X> {
        let rows = &filter.into_rows();
        self.operate(
            "first",
            Action::Read,
            Access::READ,
            |repository| async move {
                let select = repository.by_key(repository.visible(rows.clone()));
                repository.executor.fetch_optional(select).await
            },
        )
        .await
    }

    /// Returns whether a filter has a row.
    ///
    /// # Errors
    ///
    /// As [`Repository::find`].
    pub async fn exists(&self, filter: impl Filter<E>) -> Result<bool, X> {
        let rows = &filter.into_rows();
        self.operate(
            "exists",
            Action::Read,
            Access::READ,
            |repository| async move {
                repository
                    .executor
                    .exists(repository.visible(rows.clone()))
                    .await
            },
        )
        .await
    }

    /// Returns the number of rows of a filter: of a select with DISTINCT, GROUP BY or LIMIT,
    /// of those that it returns. The database reads all of them, or an index.
    ///
    /// # Errors
    ///
    /// As [`Repository::find`].
    pub async fn count(&self, filter: impl Filter<E>) -> Result<u64, X> {
        let rows = &filter.into_rows();
        self.operate(
            "count",
            Action::Read,
            Access::READ,
            |repository| async move {
                repository
                    .executor
                    .count(repository.visible(rows.clone()))
                    .await
            },
        )
        .await
    }

    /// Returns the sum of a column, `None` of no values.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] for documents; [`Error::Row`] for a sum that the type can't hold;
    /// as [`Repository::find`].
    pub async fn sum<T>(&self, column: E::Column, filter: impl Filter<E>) -> Result<Option<T>, X>
    where
        T: Send + 'static,
        Option<T>: ValueType,
    {
        self.aggregate("sum", column, |cell| Func::sum(cell).into(), filter)
            .await
    }

    /// Returns the mean of a column, `None` of no values.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] for documents; as [`Repository::find`].
    pub async fn avg(&self, column: E::Column, filter: impl Filter<E>) -> Result<Option<f64>, X> {
        self.aggregate("avg", column, |cell| Func::avg(cell).into(), filter)
            .await
    }

    /// Returns the least value of a column, `None` of no values.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] for documents; as [`Repository::find`].
    pub async fn min<T>(&self, column: E::Column, filter: impl Filter<E>) -> Result<Option<T>, X>
    where
        T: Send + 'static,
        Option<T>: ValueType,
    {
        self.aggregate("min", column, |cell| Func::min(cell).into(), filter)
            .await
    }

    /// Returns the greatest value of a column, `None` of no values.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] for documents; as [`Repository::find`].
    pub async fn max<T>(&self, column: E::Column, filter: impl Filter<E>) -> Result<Option<T>, X>
    where
        T: Send + 'static,
        Option<T>: ValueType,
    {
        self.aggregate("max", column, |cell| Func::max(cell).into(), filter)
            .await
    }

    async fn aggregate<T>(
        &self,
        name: &'static str,
        column: E::Column,
        of: fn(SimpleExpr) -> SimpleExpr,
        filter: impl Filter<E>,
    ) -> Result<Option<T>, X>
    where
        T: Send + 'static,
        Option<T>: ValueType,
    {
        if is_document::<E>(column) {
            let problem = format!("{} holds documents, which have no order", column.as_str());
            return Err(Error::field("column", problem).into());
        }
        let rows = &filter.into_rows();
        self.operate(name, Action::Read, Access::READ, |repository| async move {
            let select = repository.visible(rows.clone());
            let (executor, column) = (&repository.executor, Some(column));
            executor.aggregate(select, column, of).await
        })
        .await
    }

    /// Returns a page of the rows of a filter.
    ///
    /// # Errors
    ///
    /// As [`Executor::page`](crate::Executor::page).
    pub async fn list(
        &self,
        filter: impl Filter<E>,
        sort: &Sort<E>,
        page: PageRequest,
    ) -> Result<Page<E::Model>, X> {
        let (rows, page) = (&filter.into_rows(), &page);
        self.operate(
            "list",
            Action::Read,
            Access::READ,
            |repository| async move {
                let (select, page) = (repository.visible(rows.clone()), page.clone());
                repository.executor.page(select, sort, page).await
            },
        )
        .await
    }

    /// Returns a page of the rows of a filter, of each the columns of a type.
    ///
    /// # Errors
    ///
    /// As [`Executor::page`](crate::Executor::page).
    pub async fn list_as<T: Projection<E> + Send>(
        &self,
        filter: impl Filter<E>,
        sort: &Sort<E>,
        page: PageRequest,
    ) -> Result<Page<T>, X> {
        let (rows, page) = (&filter.into_rows(), &page);
        self.operate(
            "list",
            Action::Read,
            Access::READ,
            |repository| async move {
                let select = repository.visible(rows.clone());
                let select = select.select_only().columns(T::columns());
                repository.executor.page(select, sort, page.clone()).await
            },
        )
        .await
    }

    /// Returns the rows of a filter one after the other, in the order of the key. They are
    /// read page by page, and nothing is open between two pages: rows that are written
    /// meanwhile behind the present place are seen, and the end of the stream is as fast
    /// as its start.
    ///
    /// A row that can't be read is an error in its place, and the stream goes on behind it;
    /// behind any other error it ends.
    pub fn stream<F: Filter<E>>(
        &self,
        filter: F,
    ) -> impl Stream<Item = Result<E::Model, X>> + Send + use<E, X, F> {
        let start = Some((PageRequest::first(STREAM_PAGE), STREAM_PAGE));
        let (repository, select) = (self.clone(), filter.into_rows().into_select());
        let pages = stream::try_unfold(start, move |page| {
            let (repository, select) = (repository.clone(), select.clone());
            async move {
                let Some((page, size)) = page else {
                    return Ok::<_, X>(None);
                };
                let page = repository.list_results(&select, &page).await?;
                // As many as fitted: what doesn't fit would be read in vain.
                let size = if page.cut {
                    page.rows.len() as u64
                } else {
                    STREAM_PAGE.min(size * 2)
                };
                let next = page.next;
                let next = next.map(|next| (PageRequest::after(next, size), size));
                let rows = page.rows.into_iter();
                let rows = rows.map(|row| row.map_err(|row| Error::Row(row.error).into()));
                Ok(Some((stream::iter(rows), next)))
            }
        });
        pages.try_flatten()
    }

    /// Returns a page in the order of the key, with an error in the place of each row that
    /// can't be read.
    async fn list_results(
        &self,
        select: &Select<E>,
        page: &PageRequest,
    ) -> Result<Results<E::Model>, X> {
        self.operate(
            "list",
            Action::Read,
            Access::READ,
            |repository| async move {
                let select = repository.visible(select.clone().into_rows());
                let (sort, page) = (Sort::default(), page.clone());
                let executor = &repository.executor;
                executor
                    .page_results(select.clone(), select, &sort, page)
                    .await
            },
        )
        .await
    }

    /// Sorts a select by the key, where its own order leaves rows in any.
    fn by_key(&self, mut select: Select<E>) -> Select<E> {
        for column in &self.plan.key {
            select = select.order_by_asc(*column);
        }
        select
    }
}
