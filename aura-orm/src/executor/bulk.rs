//! Many rows at once.

use std::borrow::Cow;
use std::iter::Peekable;

use chrono::SecondsFormat;
use sea_orm::{ColumnTrait, ColumnType, DbBackend, EntityTrait, IdenStatic, Value};

use crate::error::Error;
use crate::executor::Executor;
use crate::executor::check::ensure_storable;
use crate::executor::tx_connection::TxConnection;
use crate::statement::{Statement, StatementKind};

/// So many rows are sent at once: SQLite takes 32,766 values in a statement, and
/// no table has as many as 32 columns.
pub(super) const MAX_ROWS: usize = 1_000;

/// And no more bytes of values, unless one row has: they are copied on their
/// way.
pub(super) const MAX_BYTES: usize = 8 * 1024 * 1024;

/// A row, and of about how many bytes.
pub type SizedRow = (Vec<Value>, usize);

impl<X: From<Error> + Send + 'static> Executor<X> {
    /// Inserts rows, the values in the order of the columns, and returns how
    /// many: on SQLite by one statement that is run for each, on PostgreSQL by
    /// one that takes an array for each column. The caller holds a transaction.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] outside of a transaction, and as [`Executor::fetch_all`].
    pub async fn insert_bulk<E: EntityTrait>(
        &self,
        columns: &[E::Column],
        rows: Box<dyn Iterator<Item = SizedRow> + Send + '_>,
    ) -> Result<u64, X> {
        let mut count = 0;
        let mut rows = rows.peekable();
        while rows.peek().is_some() {
            count += self.insert_batch::<E>(columns, batch(&mut rows)).await?;
        }
        Ok(count)
    }

    async fn insert_batch<E: EntityTrait>(
        &self,
        columns: &[E::Column],
        rows: Vec<Vec<Value>>,
    ) -> Result<u64, X> {
        if self.backend() == DbBackend::Postgres {
            let arrays = array_literals(&rows)?;
            let sql = insert_arrays::<E>(columns, &rows);
            let statement = Statement::new(StatementKind::BulkWrite, sql, arrays);
            return self.execute(statement).await;
        }
        self.insert_each(insert_one::<E>(columns), rows).await
    }

    /// Runs an insert of one row for each of these, on SQLite in a transaction, and returns
    /// the number of rows.
    pub(super) async fn insert_each(&self, sql: String, rows: Vec<Vec<Value>>) -> Result<u64, X> {
        let scope = self.scope.as_ref().ok_or(Error::Ended)?;
        for row in &rows {
            ensure_storable(row)?;
        }
        // One statement, as on PostgreSQL.
        self.shared.stats.count_statement(&sql);
        let run = async |connection: &TxConnection| connection.insert_each(sql, rows).await;
        let count = scope.run(run, |count| *count).await?;
        self.count_rows(count);
        Ok(count)
    }
}

/// The next rows, as many as are sent at once; at least one, if there is one.
fn batch<R>(rows: &mut Peekable<impl Iterator<Item = (R, usize)>>) -> Vec<R> {
    let mut batch = Vec::new();
    let mut bytes = 0_usize;
    while let Some((row, size)) = rows.next_if(|(_, size)| {
        batch.is_empty() || batch.len() < MAX_ROWS && bytes.saturating_add(*size) <= MAX_BYTES
    }) {
        bytes = bytes.saturating_add(size);
        batch.push(row);
    }
    batch
}

/// An insert of one row, for SQLite.
fn insert_one<E: EntityTrait>(columns: &[E::Column]) -> String {
    let values = vec!["?"; columns.len()].join(", ");
    format!("{} VALUES ({values})", insert_into::<E>(columns))
}

fn insert_into<E: EntityTrait>(columns: &[E::Column]) -> String {
    let names: Vec<_> = columns.iter().map(IdenStatic::as_str).collect();
    let table = E::default().table_name();
    format!(r#"INSERT INTO "{table}" ("{}")"#, names.join(r#"", ""#))
}

/// An insert of as many rows as the arrays are long, for PostgreSQL. It is the same
/// for any number. (COPY is no faster into tables with these indexes, and sends its
/// end in a message of its own, which waits 40 ms for an acknowledgement where the
/// driver leaves Nagle's algorithm on.)
fn insert_arrays<E: EntityTrait>(columns: &[E::Column], rows: &[Vec<Value>]) -> String {
    let mut cells = Vec::new();
    let mut arrays = Vec::new();
    let mut names = Vec::new();
    let first = rows.first().map_or(&[][..], Vec::as_slice);
    for (index, (column, value)) in columns.iter().zip(first).enumerate() {
        let (name, place) = (column.as_str(), index + 1);
        cells.push(match column.def().get_column_type() {
            ColumnType::JsonBinary => format!(r#"CAST(i."{name}" AS jsonb)"#),
            ColumnType::Json => format!(r#"CAST(i."{name}" AS json_text)"#),
            _ => format!(r#"i."{name}""#),
        });
        arrays.push(format!("CAST(${place} AS {}[])", type_of(value)));
        names.push(format!(r#""{name}""#));
    }
    format!(
        "{} SELECT {} FROM unnest({}) AS i ({})",
        insert_into::<E>(columns),
        cells.join(", "),
        arrays.join(", "),
        names.join(", ")
    )
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::BigInt(_) => "bigint",
        Value::Bool(_) => "boolean",
        Value::ChronoDateTimeUtc(_) => "timestamptz",
        _ => "text",
    }
}

/// The columns of these rows, as PostgreSQL writes arrays
/// (<https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>).
///
/// # Errors
///
/// [`Error::Other`] for a value that isn't an integer, text, boolean or time.
pub fn array_literals(rows: &[Vec<Value>]) -> Result<Vec<Value>, Error> {
    let width = rows.first().map_or(0, Vec::len);
    let mut arrays = vec![String::from("{"); width];
    for row in rows {
        for (array, value) in arrays.iter_mut().zip(row) {
            if array.len() > 1 {
                array.push(',');
            }
            push_item(array, text_of(value)?.as_deref());
        }
    }
    Ok(arrays
        .into_iter()
        .map(|array| Value::from(array + "}"))
        .collect())
}

/// A value as PostgreSQL reads it.
fn text_of(value: &Value) -> Result<Option<Cow<'_, str>>, Error> {
    Ok(match value {
        Value::BigInt(number) => number.map(|number| number.to_string().into()),
        Value::Bool(yes) => yes.map(|yes| if yes { "t" } else { "f" }.into()),
        Value::ChronoDateTimeUtc(time) => {
            time.map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true).into())
        }
        Value::String(text) => text.as_deref().map(Into::into),
        other => {
            return Err(Error::Other {
                context: "writing",
                source: format!("no array of {:?}", other.array_type()).into(),
            });
        }
    })
}

fn push_item(array: &mut String, text: Option<&str>) {
    let Some(text) = text else {
        array.push_str("NULL");
        return;
    };
    array.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(['"', '\\']) {
        array.push_str(&rest[..at]);
        array.push('\\');
        array.push_str(&rest[at..=at]);
        rest = &rest[at + 1..];
    }
    array.push_str(rest);
    array.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_with_its_rows_or_bytes() {
        const MIB: usize = 1024 * 1024;
        let sizes = |sizes: &[usize]| {
            let rows: Vec<_> = sizes.iter().map(|size| ((), *size)).collect();
            let mut rows = rows.into_iter().peekable();
            let mut lengths = Vec::new();
            while rows.peek().is_some() {
                lengths.push(batch(&mut rows).len());
            }
            lengths
        };
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&[1; 2_001]), [1_000, 1_000, 1]);
        assert_eq!(sizes(&[4 * MIB, 4 * MIB, 1]), [2, 1]);
        assert_eq!(sizes(&[1, 16 * MIB, 1, usize::MAX, 1]), [1, 1, 1, 1, 1]);
    }

    #[test]
    fn arrays_hold_anything() {
        let rows = [
            vec![
                Value::from(7_i64),
                Value::from(r#"a"b\c,{}"#),
                Value::from(true),
            ],
            vec![Value::BigInt(None), Value::String(None), Value::Bool(None)],
            vec![Value::from(-1_i64), Value::from(""), Value::from(false)],
            vec![Value::from(0_i64), Value::from("NULL"), Value::from(false)],
        ];
        let expected = [
            r#"{"7",NULL,"-1","0"}"#,
            r#"{"a\"b\\c,{}",NULL,"","NULL"}"#,
            r#"{"t",NULL,"f","f"}"#,
        ];
        let arrays = array_literals(&rows).expect("known types");
        assert_eq!(arrays, expected.map(Value::from));
        assert!(array_literals(&[vec![Value::Float(Some(1.0))]]).is_err());
    }
}
