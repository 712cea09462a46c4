//! Numbers about log entries, counted by the database.

use chrono::NaiveDate;
use entity::{Action, LogLevel, logs};
use sea_orm::sea_query::Expr;
use sea_orm::{DbErr, ExprTrait, Order, QueryResult, QuerySelect, QueryTrait};
use serde::Serialize;

use super::{LogFilter, Logs, op};
use crate::engine::run::{Rows, Shape};
use crate::error::Error;
use crate::repositories::{day, day_of, unsigned};

/// Numbers about log entries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct LogStats {
    /// How many there are.
    pub total: u64,
    /// How many of each level; a level that none has is left out.
    pub by_level: Vec<(LogLevel, u64)>,
    /// By day in UTC, oldest first; a day without any is left out.
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
                let select = || filter.select(&h).map(QuerySelect::select_only);
                let count = || Expr::col(logs::Column::Id).count();
                let by_level = select()?
                    .column(logs::Column::Level)
                    .expr_as(count(), "n")
                    .group_by(logs::Column::Level)
                    .into_query();
                let mut by_level: Vec<_> = h
                    .shaped::<OfLevel>(Rows::of("logs", by_level))
                    .await?
                    .into_iter()
                    .map(|row| (row.0, row.1))
                    .collect();
                by_level.sort_by_key(|(level, _)| *level as u8);
                let day = day(logs::Column::CreatedAt, h.backend());
                let per_day = select()?
                    .expr_as(day.clone(), "day")
                    .expr_as(count(), "n")
                    .group_by(day.clone())
                    .into_query()
                    .order_by_expr(day, Order::Asc)
                    .take();
                Ok(LogStats {
                    total: by_level.iter().map(|(_, n)| n).sum(),
                    by_level,
                    per_day: h.shaped(Rows::of("logs", per_day)).await?,
                })
            })
            .await
    }
}

struct OfLevel(LogLevel, u64);

impl Shape for OfLevel {
    fn read(row: &QueryResult) -> Result<Self, DbErr> {
        Ok(Self(row.try_get("", "level")?, unsigned(row, "n")?))
    }
}

impl Shape for LogDay {
    fn read(row: &QueryResult) -> Result<Self, DbErr> {
        Ok(Self {
            day: day_of(row)?,
            total: unsigned(row, "n")?,
        })
    }
}
