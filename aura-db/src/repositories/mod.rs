//! The repositories, one module each.

use aura_orm::{RowError, RowReader};
use chrono::{DateTime, NaiveDate, SubsecRound, TimeDelta, Utc};
use entity::{Document, DocumentError, RepositoryEntity};
use sea_orm::sea_query::{Expr, Query, SimpleExpr, UpdateStatement};
use sea_orm::{ActiveEnum, ColumnTrait, DbBackend, DbErr, Value};

use crate::context::Context;
use crate::error::Error;

pub mod agents;
mod batches;
pub mod executions;
pub(crate) mod filter;
pub mod logs;
mod own_page;
pub(crate) mod owned;
pub mod plugins;
pub mod sessions;
pub mod users;
pub mod workflows;

impl Context {
    /// An update of a managed table that already says when and by whom.
    pub(crate) fn audited_update<E: RepositoryEntity>(
        &self,
        now: DateTime<Utc>,
    ) -> UpdateStatement {
        let conventions = E::conventions();
        let mut update = Query::update().table(E::default().table_ref()).take();
        if let (Some(at), Some(by)) = (conventions.updated_at, conventions.updated_by) {
            update
                .value(at, now)
                .value(by, Value::from(self.actor().map(|user| user.0)));
        }
        update
    }
}

/// The first moment to the microsecond, which is as fine as rows are, that is
/// not before this one, and that both databases can compare with: PostgreSQL
/// has no year -5000, and to SQLite, which compares text, the year 10000 is
/// before 2026. No row is outside.
pub(crate) fn clamp_timestamp(time: DateTime<Utc>) -> DateTime<Utc> {
    let cut = time.trunc_subsecs(6);
    let whole = if cut < time {
        cut.checked_add_signed(TimeDelta::microseconds(1))
    } else {
        Some(cut)
    };
    // From the first moment of the year 1 to the end of 9999.
    let first = DateTime::UNIX_EPOCH - TimeDelta::days(719_162);
    let last = DateTime::UNIX_EPOCH + TimeDelta::days(2_932_897) - TimeDelta::microseconds(1);
    whole.unwrap_or(last).clamp(first, last)
}

/// The rows that can be read. Each of the others is logged as an error, with its
/// table, column and key.
pub(crate) fn readable<T>(rows: Vec<Result<T, RowError>>) -> Vec<T> {
    let readable = rows
        .into_iter()
        .filter_map(|row| row.map_err(|error| report(&error.into())).ok());
    readable.collect()
}

/// Logs a row that can't be read, and is passed over.
pub(crate) fn report(error: &Error) {
    let source = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(
        target: "aura_db::unreadable",
        source = source.as_deref(),
        "{error}; it is passed over"
    );
}

/// A document as the value of its column: SeaORM casts it by itself only where
/// it builds the statement from a row.
pub(crate) fn json_expr<C: ColumnTrait>(column: C, document: Option<&Document>) -> SimpleExpr {
    column.save_as(Expr::val(document.cloned()))
}

/// Sets a column to a document.
pub(crate) fn set_json<C: ColumnTrait>(
    update: &mut UpdateStatement,
    column: C,
    json: Option<&Document>,
) {
    update.value(column, json_expr(column, json));
}

/// A document of a row, parsed.
pub(crate) fn parsed<C: ColumnTrait>(
    column: C,
    id: i64,
    document: &Document,
) -> Result<serde_json::Value, Error> {
    document
        .json()
        .map_err(|error| unreadable(column, id, &error))
}

/// Refuses a document of a row that is no JSON at all, which something else
/// wrote around the database's own check.
pub(crate) fn ensure_valid_json<C: ColumnTrait>(
    column: C,
    id: i64,
    document: &Document,
) -> Result<(), Error> {
    document
        .read::<serde::de::IgnoredAny>()
        .map(|_| ())
        .map_err(|error| unreadable(column, id, &error))
}

fn unreadable<C: ColumnTrait>(column: C, id: i64, error: &DocumentError) -> Error {
    Error::Inconsistent(RowError {
        table: column.entity_name().to_string(),
        column: Some(column.as_str().to_owned()),
        id: Some(id),
        written: false,
        source: DbErr::Json(error.to_string()).into(),
    })
}

/// A statement that can't be built: a mistake of ours.
pub(crate) fn unbuilt(source: impl std::fmt::Display) -> DbErr {
    DbErr::Custom(source.to_string())
}

/// The day in UTC, as `2026-11-23`.
pub(crate) fn day<C: ColumnTrait>(column: C, backend: DbBackend) -> SimpleExpr {
    let table = column.entity_name().to_string();
    let column = column.as_str();
    // As text, because a bound value would make two different expressions of
    // the one that is selected and grouped by.
    Expr::cust(match backend {
        DbBackend::Postgres => {
            format!(r#"to_char("{table}"."{column}" AT TIME ZONE 'UTC', 'YYYY-MM-DD')"#)
        }
        _ => format!(r#"substr("{table}"."{column}", 1, 10)"#),
    })
}

/// A [`day`]; `None` when the time is none that this build can read, as `infinity`.
pub(crate) fn read_day(cells: &mut RowReader<'_>) -> Result<Option<NaiveDate>, DbErr> {
    Ok(read_text(cells)?.and_then(|day| day.parse().ok()))
}

/// A word of a closed set; `None` when this build doesn't know it.
pub(crate) fn read_word<T: ActiveEnum<Value = String>>(
    cells: &mut RowReader<'_>,
) -> Result<Option<T>, DbErr> {
    Ok(read_text(cells)?.and_then(|word| T::try_from_value(&word).ok()))
}

/// A text; `None` of what is none, which SQLite stores in any column.
fn read_text(cells: &mut RowReader<'_>) -> Result<Option<String>, DbErr> {
    match cells.next_value() {
        Err(DbErr::Type(_)) => Ok(None),
        text => text,
    }
}

/// A number that is not negative. (A clock that was set back between start and
/// end makes a time so.)
pub(crate) fn read_unsigned(cells: &mut RowReader<'_>) -> Result<u64, DbErr> {
    let number: i64 = cells.next_value()?;
    Ok(u64::try_from(number).unwrap_or(0))
}
