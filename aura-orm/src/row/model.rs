//! Reads rows as the models of any entity.

use std::marker::PhantomData;

use sea_orm::{
    ActiveModelTrait, DbErr, EntityTrait, IdenStatic, Iterable, ModelTrait, TryIntoModel,
};

use super::{RowDecoder, RowReader};

/// An entity whose models can be read: every entity that is derived.
pub trait EntityModel: EntityTrait<Model: Send, ActiveModel: TryIntoModel<Self::Model>> {}

impl<E> EntityModel for E
where
    E: EntityTrait<Model: Send>,
    E::ActiveModel: TryIntoModel<E::Model>,
{
}

/// Reads the models of an entity. The columns are found by their names at the first row
/// of a result, and by position in the others.
#[derive(Debug)]
pub struct ModelOf<E>(PhantomData<E>);

/// Reads the models of two entities, the second only where there is one.
#[derive(Debug)]
pub struct TwoModels<E, F>(PhantomData<(E, F)>);

/// Reads the models of two entities.
#[derive(Debug)]
pub struct TwoRequiredModels<E, F>(PhantomData<(E, F)>);

impl<E: EntityModel> RowDecoder for ModelOf<E> {
    type Row = E::Model;

    fn decode(cells: &mut RowReader<'_>) -> Result<E::Model, DbErr> {
        read::<E>(cells, Side::Alone)
    }
}

impl<E: EntityModel, F: EntityModel> RowDecoder for TwoModels<E, F> {
    type Row = (E::Model, Option<F::Model>);

    fn decode(cells: &mut RowReader<'_>) -> Result<Self::Row, DbErr> {
        let left = read::<E>(cells, Side::Left)?;
        let right = if is_absent::<F>(cells)? {
            None
        } else {
            Some(read::<F>(cells, Side::Right)?)
        };
        Ok((left, right))
    }
}

impl<E: EntityModel, F: EntityModel> RowDecoder for TwoRequiredModels<E, F> {
    type Row = (E::Model, F::Model);

    fn decode(cells: &mut RowReader<'_>) -> Result<Self::Row, DbErr> {
        Ok((
            read::<E>(cells, Side::Left)?,
            read::<F>(cells, Side::Right)?,
        ))
    }
}

/// Which of a join's entities is read; `SeaORM` selects the columns of both under
/// aliases.
#[derive(Debug, Clone, Copy)]
enum Side {
    Alone,
    Left,
    Right,
}

impl Side {
    fn prefix(self) -> &'static str {
        match self {
            Self::Alone => "",
            Self::Left => "A_",
            Self::Right => "B_",
        }
    }
}

/// Where the columns of an entity stand.
#[derive(Debug)]
pub(super) enum Positions {
    /// From this one on, in the entity's order.
    InOrder(usize),
    /// Each, in the entity's order.
    Of(Box<[usize]>),
}

impl Positions {
    fn of<E: EntityTrait>(cells: &RowReader<'_>, side: Side) -> Result<Self, DbErr> {
        let first = cells.next;
        let is_named = |at: usize, column: E::Column| {
            let name = cells.name(at);
            name.and_then(|name| name.strip_prefix(side.prefix())) == Some(column.as_str())
        };
        let mut columns = E::Column::iter().enumerate();
        if columns.all(|(index, column)| is_named(first + index, column)) {
            return Ok(Self::InOrder(first));
        }
        let positions = E::Column::iter().map(|column| {
            let found = (0..cells.len()).find(|at| is_named(*at, column));
            found.ok_or_else(|| {
                DbErr::Type(format!(
                    "the query selects no column {}{}, which a row of {} has; select all columns, \
                     or read the rows as another type",
                    side.prefix(),
                    column.as_str(),
                    E::default().table_name()
                ))
            })
        });
        Ok(Self::Of(positions.collect::<Result<_, _>>()?))
    }

    fn at(&self, index: usize) -> usize {
        match self {
            Self::InOrder(first) => first + index,
            Self::Of(positions) => positions.get(index).copied().unwrap_or(usize::MAX),
        }
    }
}

fn positions<'r, E: EntityTrait>(
    cells: &RowReader<'r>,
    side: Side,
) -> Result<&'r Positions, DbErr> {
    let slot = &cells.columns.positions[side as usize];
    if let Some(positions) = slot.get() {
        return Ok(positions);
    }
    let positions = Positions::of::<E>(cells, side)?;
    Ok(slot.get_or_init(|| positions))
}

impl RowReader<'_> {
    /// Reads the next cells, which are the columns of an entity in its own order.
    ///
    /// # Errors
    ///
    /// [`DbErr::Type`] for a cell that holds something else.
    pub fn next_model<E: EntityModel>(&mut self) -> Result<E::Model, DbErr> {
        read_at::<E>(self, &Positions::InOrder(self.next))
    }
}

fn read<E: EntityModel>(cells: &mut RowReader<'_>, side: Side) -> Result<E::Model, DbErr> {
    let positions = positions::<E>(cells, side)?;
    read_at::<E>(cells, positions)
}

fn read_at<E: EntityModel>(
    cells: &mut RowReader<'_>,
    positions: &Positions,
) -> Result<E::Model, DbErr> {
    cells.table = E::default().table_name();
    cells.first = positions.at(0);
    let mut row = <E::ActiveModel as ActiveModelTrait>::default();
    for (index, column) in E::Column::iter().enumerate() {
        let at = positions.at(index);
        // Past the cell, as errors expect it.
        cells.next = at + 1;
        let kind = <E::Model as ModelTrait>::get_value_type(column);
        let value = cells.value(at, &kind)?;
        if row.try_set(column, value).is_err() {
            return Err(cells.mismatch(at, &format!("{}'s type", column.as_str())));
        }
    }
    row.try_into_model()
}

/// Returns whether an outer join found no row: all cells of the entity are NULL.
fn is_absent<E: EntityModel>(cells: &RowReader<'_>) -> Result<bool, DbErr> {
    let positions = positions::<E>(cells, Side::Right)?;
    let mut columns = E::Column::iter().enumerate();
    Ok(columns.all(|(index, _)| cells.is_null(positions.at(index))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_have_slots_of_their_own() {
        let slots = [Side::Alone, Side::Left, Side::Right].map(|side| side as usize);
        assert_eq!(slots, [0, 1, 2]);
    }
}
