//! Many rows at once.

use std::io::Write;
use std::iter::Peekable;

use chrono::SecondsFormat;
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{DbErr, EntityTrait, IdenStatic, StatementBuilder, Value};
use sqlite_engine::Pace;

use crate::engine::Handle;
use crate::engine::session::built;
use crate::error::Error;

/// So many rows are sent at once: SQLite takes 32,766 values in a statement, and
/// no table has as many as 32 columns.
const MAX_ROWS: usize = 1_000;

/// And no more bytes of values, unless one row has: they are copied on their
/// way.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// A row, and of about how many bytes.
pub(crate) type Sized = (Vec<Value>, usize);

impl Handle {
    /// Inserts rows, the values in the order of the columns, and returns how
    /// many: by COPY on PostgreSQL, on a SQLite file by one statement that is run
    /// for each. The caller holds a transaction when they belong together.
    pub(crate) async fn insert_bulk<E: EntityTrait>(
        &self,
        columns: &[E::Column],
        rows: Box<dyn Iterator<Item = Sized> + Send + '_>,
    ) -> Result<u64, Error> {
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
    ) -> Result<u64, Error> {
        let table = E::default();
        if let Some(scope) = &self.scope {
            let guard = scope.open.session.read().await;
            let session = guard.as_ref().ok_or(Error::Ended)?;
            if session.takes_bulk() {
                let running = scope.open.enter(scope)?;
                let names: Vec<_> = columns.iter().map(IdenStatic::as_str).collect();
                let count = session.insert(table.table_name(), &names, rows).await;
                running.done(count.as_ref().copied());
                self.count_rows(*count.as_ref().unwrap_or(&0));
                return count;
            }
        }
        let mut insert = Query::insert();
        insert
            .into_table(table.table_ref())
            .columns(columns.iter().copied());
        for row in rows {
            insert
                .values(row.into_iter().map(Expr::val))
                .map_err(crate::repositories::unbuilt)?;
        }
        let statement = StatementBuilder::build(&insert, &self.backend());
        self.count_touched(built(statement), Pace::Long).await
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
pub(super) fn insert_one(table: &str, columns: &[&str]) -> String {
    let values = vec!["?"; columns.len()].join(", ");
    format!(
        r#"INSERT INTO "{table}" ({}) VALUES ({values})"#,
        list(columns)
    )
}

/// The COPY that takes what [`copied`] writes.
pub(super) fn copy_from(table: &str, columns: &[&str]) -> String {
    format!(r#"COPY "{table}" ({}) FROM STDIN"#, list(columns))
}

fn list(columns: &[&str]) -> String {
    format!(r#""{}""#, columns.join(r#"", ""#))
}

/// Rows in the text format of COPY
/// (<https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2>).
pub(super) fn copied(rows: &[Vec<Value>]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    for row in rows {
        for (index, value) in row.iter().enumerate() {
            if index > 0 {
                out.push(b'\t');
            }
            copy_value(&mut out, value)?;
        }
        out.push(b'\n');
    }
    Ok(out)
}

fn copy_value(out: &mut Vec<u8>, value: &Value) -> Result<(), Error> {
    // Nothing fails that writes into memory.
    let _ = match value {
        Value::BigInt(Some(number)) => write!(out, "{number}"),
        Value::Bool(Some(yes)) => write!(out, "{yes}"),
        Value::ChronoDateTimeUtc(Some(time)) => {
            out.write_all(time.to_rfc3339_opts(SecondsFormat::Micros, true).as_bytes())
        }
        Value::String(Some(text)) => {
            copy_text(out, text.as_bytes());
            Ok(())
        }
        Value::BigInt(None)
        | Value::Bool(None)
        | Value::ChronoDateTimeUtc(None)
        | Value::String(None) => out.write_all(br"\N"),
        other => {
            return Err(Error::Other {
                doing: "writing",
                source: DbErr::Type(format!("no way to copy a {:?}", other.array_type())),
            });
        }
    };
    Ok(())
}

fn copy_text(out: &mut Vec<u8>, mut text: &[u8]) {
    let special = |byte: &u8| matches!(byte, b'\\' | b'\n' | b'\r' | b'\t');
    while let Some(at) = text.iter().position(special) {
        out.extend_from_slice(&text[..at]);
        out.extend_from_slice(match text[at] {
            b'\n' => br"\n",
            b'\r' => br"\r",
            b'\t' => br"\t",
            _ => br"\\",
        });
        text = &text[at + 1..];
    }
    out.extend_from_slice(text);
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
    fn what_is_copied_is_one_line_for_each_row() {
        let rows = [
            vec![
                Value::from(7_i64),
                Value::from("a\tb\\N\r\nc"),
                Value::from(true),
            ],
            vec![Value::BigInt(None), Value::String(None), Value::Bool(None)],
        ];
        let text = String::from_utf8(copied(&rows).expect("known types")).expect("text");
        assert_eq!(text, "7\ta\\tb\\\\N\\r\\nc\ttrue\n\\N\t\\N\t\\N\n");
        assert!(copied(&[vec![Value::Float(Some(1.0))]]).is_err());
    }
}
