//! Numbers about log entries, counted by the database.

use aura_orm::{RowDecoder, RowReader, TypedQuery};
use std::collections::BTreeMap;

use chrono::NaiveDate;
use entity::{Action, LogLevel, logs};
use sea_orm::sea_query::Expr;
use sea_orm::{DbErr, ExprTrait, QuerySelect, QueryTrait};
use serde::Serialize;

use super::{LogFilter, Logs, op};
use crate::error::Error;
use crate::repositories::{day, read_day, read_unsigned, read_word};

/// Numbers about log entries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct LogStats {
    /// How many there are.
    pub total: u64,
    /// How many of each level; a level that none has is left out.
    pub by_level: Vec<(LogLevel, u64)>,
    /// How many have a level that this build doesn't know.
    pub other: u64,
    /// By day in UTC, oldest first; a day without any is left out, and so are those whose
    /// time this build can't read.
    pub per_day: Vec<LogDay>,
}

/// The entries of one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogDay {
    /// The day, in UTC.
    pub day: NaiveDate,
    /// How many entries it has.
    pub total: u64,
}

impl Logs {
    /// Numbers about the entries that the filter leaves.
    ///
    /// Fails with [`Error::Validation`] when the text can't be used.
    pub async fn stats(&self, filter: LogFilter) -> Result<LogStats, Error> {
        let filter = &filter;
        self.0
            .read(op("stats", Action::Read), |h| async move {
                let day = day(logs::Column::CreatedAt, h.backend());
                // In one statement, so that the numbers are about the same
                // entries.
                let counts = filter
                    .0
                    .select(&h)?
                    .select_only()
                    .column(logs::Column::Level)
                    .expr_as(day.clone(), "day")
                    .expr_as(Expr::col(logs::Column::Id).count(), "n")
                    .group_by(logs::Column::Level)
                    .group_by(day)
                    .into_query();
                let (mut total, mut other) = (0, 0);
                let mut levels = BTreeMap::new();
                let mut days = BTreeMap::new();
                for Counted { level, day, n } in
                    h.fetch_all(TypedQuery::<Counted>::of(counts)).await?
                {
                    total += n;
                    match level {
                        Some(level) => levels.entry(level as u8).or_insert((level, 0)).1 += n,
                        None => other += n,
                    }
                    if let Some(day) = day {
                        *days.entry(day).or_insert(0) += n;
                    }
                }
                Ok(LogStats {
                    total,
                    by_level: levels.into_values().collect(),
                    other,
                    per_day: days
                        .into_iter()
                        .map(|(day, total)| LogDay { day, total })
                        .collect(),
                })
            })
            .await
    }
}

struct Counted {
    level: Option<LogLevel>,
    day: Option<NaiveDate>,
    n: u64,
}

impl RowDecoder for Counted {
    type Row = Self;

    fn decode(cells: &mut RowReader<'_>) -> Result<Self, DbErr> {
        Ok(Self {
            level: read_word(cells)?,
            day: read_day(cells)?,
            n: read_unsigned(cells)?,
        })
    }
}
