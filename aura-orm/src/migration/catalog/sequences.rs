//! Sequences that stand behind their columns, as after rows were copied with their ids.

use sea_orm::{ConnectionTrait, DbBackend};

use super::{Difference, Kind, rows};
use crate::migration::error::{Context, Error};

/// The sequences of columns that lead an index, which makes the look at the greatest value
/// short, where the role may read both.
const SEQUENCES: &str = "SELECT t.relname::text AS table_name, a.attname::text AS name, \
      quote_ident(t.relname) AS quoted_table, quote_ident(a.attname) AS quoted_name, \
      s.seqrelid::regclass::text AS sequence, s.seqincrement AS increment \
    FROM pg_catalog.pg_class t \
    JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace AND n.nspname = current_schema() \
    JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped \
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::regclass \
      AND d.refobjid = t.oid AND d.refobjsubid = a.attnum \
      AND d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('a', 'i') \
    JOIN pg_catalog.pg_sequence s ON s.seqrelid = d.objid AND s.seqincrement > 0 \
    WHERE t.relkind IN ('r', 'p') \
      AND EXISTS (SELECT 1 FROM pg_catalog.pg_index x \
        WHERE x.indrelid = t.oid AND x.indisvalid AND x.indpred IS NULL AND x.indkey[0] = a.attnum) \
      AND has_table_privilege(t.oid, 'SELECT') AND has_sequence_privilege(s.seqrelid, 'SELECT') \
    ORDER BY t.relname, a.attnum";

/// Finds the sequences of these tables whose next value a row has already, or a greater one:
/// inserts fail until they are past it. SQLite counts on from the greatest key.
pub(in crate::migration) async fn behind<C: ConnectionTrait>(
    connection: &C,
    tables: &[&str],
) -> Result<Vec<Difference>, Error> {
    const CONTEXT: &str = "reading the sequences";
    let mut found = Vec::new();
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(found);
    }
    for row in rows(connection, SEQUENCES.to_owned()).await? {
        let text = |name| row.try_get::<String>("", name).context(CONTEXT);
        let (table, name, sequence) = (text("table_name")?, text("name")?, text("sequence")?);
        if !tables.contains(&table.as_str()) {
            continue;
        }
        let (quoted_table, quoted_name) = (text("quoted_table")?, text("quoted_name")?);
        let increment: i64 = row.try_get("", "increment").context(CONTEXT)?;
        // The table before its sequence, which may go on meanwhile.
        let sql = format!(
            "SELECT m.greatest, s.next FROM \
               (SELECT max({quoted_name})::bigint AS greatest FROM {quoted_table}) m, \
               LATERAL (SELECT CASE WHEN is_called THEN last_value + {increment} ELSE last_value END \
                 AS next FROM {sequence} WHERE m.greatest IS NOT NULL) s"
        );
        for row in rows(connection, sql).await? {
            let greatest: i64 = row.try_get("", "greatest").context(CONTEXT)?;
            let next: i64 = row.try_get("", "next").context(CONTEXT)?;
            if next <= greatest {
                found.push(Difference {
                    kind: Kind::Different,
                    table: table.clone(),
                    what: format!("sequence of {name}"),
                    detail: format!(
                        "gives {next} next, and a row has {greatest}: run SELECT \
                         setval('{}', {greatest})",
                        sequence.replace('\'', "''")
                    ),
                });
            }
        }
    }
    Ok(found)
}
