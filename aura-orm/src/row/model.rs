//! Reads rows as the models of any entity.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::marker::PhantomData;

use sea_orm::{
    ActiveModelTrait, ColumnTrait, DbErr, EntityTrait, IdenStatic, Iterable, ModelTrait,
    PrimaryKeyToColumn, TryIntoModel, Value,
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

/// Reads the models of a tuple of entities that are joined: of the first, and of each
/// other where there is one.
#[derive(Debug)]
pub struct JoinedModels<T>(PhantomData<T>);

/// Reads the models of an entity, each with all its models of another.
#[derive(Debug)]
pub struct RelatedModels<E, F>(PhantomData<(E, F)>);

/// Reads the models of two entities.
#[derive(Debug)]
pub struct TwoRequiredModels<E, F>(PhantomData<(E, F)>);

impl<E: EntityModel> RowDecoder for ModelOf<E> {
    type Row = E::Model;

    fn decode(cells: &mut RowReader<'_>) -> Result<E::Model, DbErr> {
        read::<E>(cells, Side::Alone)
    }
}

macro_rules! joined {
    ($(($($other:ident $side:ident),+));+ $(;)?) => {
        $(impl<E: EntityModel, $($other: EntityModel),+> RowDecoder
            for JoinedModels<(E, $($other),+)>
        {
            type Row = (E::Model, $(Option<$other::Model>),+);

            fn decode(cells: &mut RowReader<'_>) -> Result<Self::Row, DbErr> {
                Ok((
                    read::<E>(cells, Side::A)?,
                    $(read_optional::<$other>(cells, Side::$side)?),+
                ))
            }
        })+
    };
}

joined! {
    (F B);
    (F B, G C);
    (F B, G C, H D);
    (F B, G C, H D, I E);
    (F B, G C, H D, I E, J F);
}

impl<E: EntityModel, F: EntityModel> RowDecoder for RelatedModels<E, F> {
    type Row = (E::Model, Vec<F::Model>);

    const CONSOLIDATES: bool = true;

    fn decode(cells: &mut RowReader<'_>) -> Result<Self::Row, DbErr> {
        let (model, related) = JoinedModels::<(E, F)>::decode(cells)?;
        Ok((model, related.into_iter().collect()))
    }

    fn consolidate(rows: Vec<Self::Row>) -> Vec<Self::Row> {
        let mut places = HashMap::new();
        let mut models: Vec<Self::Row> = Vec::new();
        for (model, related) in rows {
            let key = E::PrimaryKey::iter().map(|key| model.get(key.into_column()));
            match places.entry(key.collect::<Vec<Value>>()) {
                Entry::Vacant(place) => {
                    place.insert(models.len());
                    models.push((model, related));
                }
                Entry::Occupied(place) => models[*place.get()].1.extend(related),
            }
        }
        models
    }
}

impl<E: EntityModel, F: EntityModel> RowDecoder for TwoRequiredModels<E, F> {
    type Row = (E::Model, F::Model);

    fn decode(cells: &mut RowReader<'_>) -> Result<Self::Row, DbErr> {
        Ok((read::<E>(cells, Side::A)?, read::<F>(cells, Side::B)?))
    }
}

/// Which of a join's entities is read; `SeaORM` selects the columns of each under
/// aliases.
#[derive(Debug, Clone, Copy)]
enum Side {
    Alone,
    A,
    B,
    C,
    D,
    E,
    F,
}

/// The prefix of each side's aliases.
const PREFIXES: [&str; 7] = ["", "A_", "B_", "C_", "D_", "E_", "F_"];

/// The number of sides.
pub(super) const SIDES: usize = PREFIXES.len();

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
        let prefix = PREFIXES[side as usize];
        let is_named = |at: usize, column: E::Column| {
            let name = cells.name(at);
            name.and_then(|name| name.strip_prefix(prefix)) == Some(column.as_str())
        };
        let mut columns = E::Column::iter().enumerate();
        if columns.all(|(index, column)| is_named(first + index, column)) {
            return Ok(Self::InOrder(first));
        }
        let positions = E::Column::iter().map(|column| {
            let found = (0..cells.len()).find(|at| is_named(*at, column));
            found.ok_or_else(|| {
                DbErr::Custom(format!(
                    "the query selects no column {prefix}{}, which a row of {} has; select all \
                     columns, or read the rows as another type",
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
        let declared = || {
            let declared = column.def().get_column_type().clone();
            (declared, format!("{}'s type", column.as_str()))
        };
        cells.read_cell(at, &kind, declared, |value| row.try_set(column, value).ok())?;
    }
    row.try_into_model()
}

/// Reads a model, unless the outer join found none: all its cells are NULL.
fn read_optional<E: EntityModel>(
    cells: &mut RowReader<'_>,
    side: Side,
) -> Result<Option<E::Model>, DbErr> {
    let positions = positions::<E>(cells, side)?;
    let mut columns = E::Column::iter().enumerate();
    if columns.all(|(index, _)| cells.is_null(positions.at(index))) {
        return Ok(None);
    }
    read_at::<E>(cells, positions).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RowError;

    #[allow(unreachable_pub, reason = "the macro makes others")]
    mod shelf {
        use sea_orm::entity::prelude::*;

        #[sea_orm::model]
        #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
        #[sea_orm(table_name = "shelf")]
        pub struct Model {
            #[sea_orm(primary_key, auto_increment = false)]
            pub room: String,
            #[sea_orm(primary_key, auto_increment = false)]
            pub number: i32,
        }

        impl ActiveModelBehavior for ActiveModel {}
    }

    fn shelf(room: &str, number: i32) -> shelf::Model {
        let room = room.to_owned();
        shelf::Model { room, number }
    }

    #[test]
    fn rows_of_a_key_of_two_columns_are_merged() {
        type Related = RelatedModels<shelf::Entity, shelf::Entity>;
        let row = |room, number, related: &[i32]| {
            let related = related.iter().map(|number| shelf("c", *number));
            (shelf(room, number), related.collect::<Vec<_>>())
        };
        let rows = [
            row("b", 1, &[7]),
            row("a", 1, &[]),
            row("b", 2, &[8]),
            row("b", 1, &[9]),
            row("b", 1, &[7]),
        ];
        let merged = [row("b", 1, &[7, 9, 7]), row("a", 1, &[]), row("b", 2, &[8])];
        assert_eq!(Related::consolidate(rows.to_vec()), merged);
        // With errors too, which come last.
        let failed = || RowError {
            table: "shelf".to_owned(),
            column: None,
            id: None,
            written: false,
            source: DbErr::Type(String::new()).into(),
        };
        let mut rows: Vec<_> = rows.into_iter().map(Ok).collect();
        rows.insert(1, Err(failed()));
        let mut consolidated = Result::<Related, RowError>::consolidate(rows);
        assert!(consolidated.pop().is_some_and(|last| last.is_err()));
        let consolidated: Result<Vec<_>, _> = consolidated.into_iter().collect();
        assert_eq!(consolidated.expect("read"), merged);
    }

    #[test]
    fn sides_have_slots_and_aliases_of_their_own() {
        use Side::{A, Alone, B, C, D, E, F};
        let prefixes = [Alone, A, B, C, D, E, F].map(|side| PREFIXES[side as usize]);
        assert_eq!(prefixes, PREFIXES);
    }
}
