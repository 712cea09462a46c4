//! Numbers about executions, counted by the database.

use aura_orm::{RowDecoder, RowReader, TypedQuery};
use std::time::Duration;

use chrono::NaiveDate;
use entity::{Action, ExecutionStatus, executions};
use sea_orm::sea_query::{Expr, Query, SelectStatement, SimpleExpr};
use sea_orm::{
    ColumnTrait, DbBackend, DbErr, ExprTrait, IdenStatic, Order, QueryFilter, QuerySelect,
    QueryTrait,
};
use serde::Serialize;

use super::{ExecutionFilter, Executions, op};
use crate::error::Error;
use crate::repositories::{day, read_day, read_unsigned, read_word};

/// Numbers about executions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct ExecutionStats {
    /// How many there are.
    pub total: u64,
    /// How many of each status; a status that none has is left out.
    pub by_status: Vec<(ExecutionStatus, u64)>,
    /// How many have a status that this build doesn't know.
    pub other: u64,
    /// How long those that ended took on average, from the first start to the
    /// end, to the microsecond. One whose times this build can't read is left out.
    pub average: Option<Duration>,
    /// 95 of 100 took at most so long (nearest rank).
    pub p95: Option<Duration>,
    /// By the day on which they were queued, in UTC, oldest first; a day
    /// without any is left out, and so are those whose time this build can't read.
    pub per_day: Vec<ExecutionDay>,
}

/// The executions of one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExecutionDay {
    /// The day, in UTC.
    pub day: NaiveDate,
    /// How many were queued.
    pub total: u64,
    /// How many of them ended well.
    pub success: u64,
    /// How many of them failed.
    pub error: u64,
    /// How many of them are dead.
    pub dead: u64,
}

impl Executions {
    /// Numbers about the executions that the filter leaves.
    ///
    /// Fails with [`Error::Validation`] when the filter can't be used.
    pub async fn stats(&self, filter: ExecutionFilter) -> Result<ExecutionStats, Error> {
        let filter = &filter;
        self.0
            .read(op("stats", Action::Read), |h| async move {
                let backend = h.backend();
                let select = || filter.0.select(&h).map(QuerySelect::select_only);

                let by_status = select()?
                    .column(executions::Column::Status)
                    .expr_as(count(), "n")
                    .group_by(executions::Column::Status)
                    .into_query();
                let (mut known, mut other) = (Vec::new(), 0);
                for OfStatus(status, n) in
                    h.fetch_all(TypedQuery::<OfStatus>::of(by_status)).await?
                {
                    match status {
                        Some(status) => known.push((status, n)),
                        None => other += n,
                    }
                }
                known.sort_by_key(|(status, _)| *status as u8);

                let took = select()?
                    .expr_as(micros(backend), "took")
                    .filter(is_time(executions::Column::StartedAt, backend))
                    .filter(is_time(executions::Column::FinishedAt, backend))
                    .into_query();
                let times = h
                    .fetch_all(TypedQuery::<Times>::of(times(took, backend)))
                    .await?
                    .pop();

                let per_day = select()?
                    .expr_as(day(executions::Column::CreatedAt, backend), "day")
                    .expr_as(count(), "n")
                    .expr_as(count_of(ExecutionStatus::Success), "success")
                    .expr_as(count_of(ExecutionStatus::Error), "error")
                    .expr_as(count_of(ExecutionStatus::Dead), "dead")
                    .group_by(day(executions::Column::CreatedAt, backend))
                    .into_query()
                    .order_by_expr(day(executions::Column::CreatedAt, backend), Order::Asc)
                    .take();
                let per_day = h.fetch_all(TypedQuery::<Day>::of(per_day)).await?;
                Ok(ExecutionStats {
                    total: known.iter().map(|(_, n)| n).sum::<u64>() + other,
                    by_status: known,
                    other,
                    average: times.as_ref().map(|times| times.average),
                    p95: times.as_ref().map(|times| times.p95),
                    per_day: per_day.into_iter().flatten().collect(),
                })
            })
            .await
    }
}

fn count() -> SimpleExpr {
    Expr::col(executions::Column::Id).count()
}

fn count_of(status: ExecutionStatus) -> SimpleExpr {
    Expr::expr(
        sea_orm::sea_query::CaseStatement::new()
            .case(executions::COLUMN.status.eq(status), Expr::val(1_i64)),
    )
    .count()
}

/// Returns that a time is none of those that have no distance to others: NULL, `infinity`, and
/// on SQLite what is no time at all.
fn is_time(column: executions::Column, backend: DbBackend) -> SimpleExpr {
    let column = column.as_str();
    Expr::cust(match backend {
        DbBackend::Postgres => format!(r#"isfinite("executions"."{column}")"#),
        _ => format!(r#"unixepoch(substr("executions"."{column}", 1, 19)) IS NOT NULL"#),
    })
}

/// From start to end, in microseconds. SQLite's date functions round to
/// milliseconds, so the fraction is read from the text.
fn micros(backend: DbBackend) -> SimpleExpr {
    Expr::cust(match backend {
        DbBackend::Postgres => {
            r#"CAST(EXTRACT(EPOCH FROM "executions"."finished_at" - "executions"."started_at") * 1000000 AS bigint)"#
        }
        _ => {
            r#"(unixepoch(substr("executions"."finished_at", 1, 19)) - unixepoch(substr("executions"."started_at", 1, 19))) * 1000000
            + CASE substr("executions"."finished_at", 20, 1) WHEN '.' THEN
                CAST(substr(replace(substr("executions"."finished_at", 21), '+00:00', '000000'), 1, 6) AS INTEGER) ELSE 0 END
            - CASE substr("executions"."started_at", 20, 1) WHEN '.' THEN
                CAST(substr(replace(substr("executions"."started_at", 21), '+00:00', '000000'), 1, 6) AS INTEGER) ELSE 0 END"#
        }
    })
}

/// Sum, count and the 95th percentile of a column `took`, in one row, or none.
fn times(took: SelectStatement, backend: DbBackend) -> SelectStatement {
    let ranked = Query::select()
        .column("took")
        .expr_as(Expr::cust("row_number() OVER (ORDER BY took)"), "place")
        .expr_as(Expr::cust("count(*) OVER ()"), "n")
        .expr_as(
            Expr::cust(match backend {
                // The sum of bigints is a numeric.
                DbBackend::Postgres => "CAST(sum(took) OVER () AS bigint)",
                _ => "sum(took) OVER ()",
            }),
            "total",
        )
        .from_subquery(took, "times")
        .take();
    Query::select()
        .columns(["total", "n", "took"])
        .from_subquery(ranked, "ranked")
        .and_where(Expr::cust("place = (95 * n + 99) / 100"))
        .take()
}

struct OfStatus(Option<ExecutionStatus>, u64);

impl RowDecoder for OfStatus {
    type Row = Self;

    fn decode(cells: &mut RowReader<'_>) -> Result<Self, DbErr> {
        Ok(Self(read_word(cells)?, read_unsigned(cells)?))
    }
}

struct Times {
    average: Duration,
    p95: Duration,
}

impl RowDecoder for Times {
    type Row = Self;

    fn decode(cells: &mut RowReader<'_>) -> Result<Self, DbErr> {
        let (total, n) = (read_unsigned(cells)?, read_unsigned(cells)?);
        Ok(Self {
            average: Duration::from_micros(total / std::cmp::Ord::max(n, 1)),
            p95: Duration::from_micros(read_unsigned(cells)?),
        })
    }
}

/// Reads an [`ExecutionDay`], unless it is of those whose time can't be read.
struct Day;

impl RowDecoder for Day {
    type Row = Option<ExecutionDay>;

    fn decode(cells: &mut RowReader<'_>) -> Result<Self::Row, DbErr> {
        let Some(day) = read_day(cells)? else {
            return Ok(None);
        };
        Ok(Some(ExecutionDay {
            day,
            total: read_unsigned(cells)?,
            success: read_unsigned(cells)?,
            error: read_unsigned(cells)?,
            dead: read_unsigned(cells)?,
        }))
    }
}
