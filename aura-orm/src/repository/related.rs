//! Rows of other entities, for all rows of a list by one query.

use std::collections::HashMap;
use std::marker::PhantomData;

use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, DbErr, Iterable, PrimaryKeyToColumn, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, Related,
};

use super::filter::Rows;
use super::key::Key;
use super::read::{MAX_KEYS, MAX_ROWS};
use super::{Repository, RepositoryEntity, RepositoryError};
use crate::error::Error;
use crate::executor::Access;
use crate::executor::query::ALL;
use crate::policy::Action;
use crate::row::{EntityModel, ModelOf, RowDecoder, RowReader};

/// Reads a row of `F` and, behind it, the key of the row of `E` that it belongs to.
struct RelatedTo<E, F>(PhantomData<(E, F)>);

impl<E: EntityModel, F: EntityModel> RowDecoder for RelatedTo<E, F> {
    type Row = (Key, F::Model);

    fn decode(cells: &mut RowReader<'_>) -> Result<Self::Row, DbErr> {
        let model = ModelOf::<F>::decode(cells)?;
        let key = E::PrimaryKey::iter().map(|key| cells.next_column::<E>(key.into_column()));
        Ok((Key(key.collect::<Result<_, DbErr>>()?), model))
    }
}

impl<E: RepositoryEntity, X: RepositoryError> Repository<E, X> {
    /// Returns for each of these rows all its rows of a related entity, in the order of
    /// their keys, by one query for all. Soft-deleted rows are hidden. Rows that are related
    /// through a third table are found too.
    ///
    /// Call it again on what it returns for the next level.
    ///
    /// # Errors
    ///
    /// [`Error::Validation`] for more than [`MAX_KEYS`] rows, and when more than [`MAX_ROWS`]
    /// are related to them, or more than [`MAX_PAGE_BYTES`](crate::page::MAX_PAGE_BYTES) of
    /// values; as [`Repository::find`].
    pub async fn load_many<F>(&self, rows: &[E::Model]) -> Result<Vec<Vec<F::Model>>, X>
    where
        E: Related<F>,
        F: RepositoryEntity,
    {
        if rows.len() > MAX_KEYS {
            let problem = format!("must be at most {MAX_KEYS}, and are {}", rows.len());
            return Err(Error::field("rows", problem).into());
        }
        let keys: Vec<Key> = rows
            .iter()
            .map(|row| Key::of_model(self.plan, row))
            .collect();
        let keys = &keys;
        let related = self
            .operate(
                "load_many",
                Action::Read,
                Access::READ,
                |repository| async move { repository.related::<F>(keys).await },
            )
            .await?;
        let mut of: HashMap<Key, Vec<F::Model>> = HashMap::new();
        for (key, row) in related {
            of.entry(key).or_default().push(row);
        }
        // A row may be there twice.
        Ok(keys
            .iter()
            .map(|key| of.get(key).cloned().unwrap_or_default())
            .collect())
    }

    /// Returns for each of these rows the row of a related entity that it belongs to, or
    /// has one of, by one query for all.
    ///
    /// # Errors
    ///
    /// As [`Repository::load_many`].
    pub async fn load_one<F>(&self, rows: &[E::Model]) -> Result<Vec<Option<F::Model>>, X>
    where
        E: Related<F>,
        F: RepositoryEntity,
    {
        let related = self.load_many::<F>(rows).await?;
        Ok(related
            .into_iter()
            .map(|rows| rows.into_iter().next())
            .collect())
    }

    async fn related<F>(&self, keys: &[Key]) -> Result<Vec<(Key, F::Model)>, X>
    where
        E: Related<F>,
        F: RepositoryEntity,
    {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let others = self.other::<F>()?;
        let mut select = others.visible(Rows::Select(Box::new(E::find_related())));
        select = select.filter(Key::any(self.plan, keys));
        for (index, column) in self.plan.key.iter().enumerate() {
            let key = Expr::col((column.entity_name(), *column));
            select = select.expr_as(key, format!("related_to_{index}"));
        }
        for column in &others.plan.key {
            select = select.order_by_asc(*column);
        }
        let query = select.limit(MAX_ROWS + 1).into_query();
        let found = self
            .executor
            .read_rows::<F, RelatedTo<E, F>>(query, ALL)
            .await?;
        let rows = found.all::<F>("rows", "load those of fewer at once")?;
        if rows.len() as u64 > MAX_ROWS {
            let problem = format!(
                "have more than {MAX_ROWS} related rows of {}; load those of fewer at once",
                F::default().table_name()
            );
            return Err(Error::field("rows", problem).into());
        }
        Ok(rows)
    }
}
