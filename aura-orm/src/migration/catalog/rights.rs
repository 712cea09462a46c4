//! Rights that a role lacks.

use sea_orm::{ConnectionTrait, DbBackend};

use super::{Difference, Kind, rows};
use crate::migration::error::{Context, Error};

/// For each table what the role needs and lacks, as a GRANT names it, and whether it may
/// write there. The sequence of an identity column needs no right of its own.
const RIGHTS: &str = "SELECT t.relname::text AS table_name, quote_ident(current_user) AS role, \
      bool_or(r.granted AND r.writes) AS writes, \
      string_agg(r.name, ', ' ORDER BY r.place) FILTER (WHERE NOT r.granted AND r.place < 5) \
        || ' ON ' || t.oid::regclass AS missing, \
      string_agg(r.name, ', ') FILTER (WHERE NOT r.granted AND r.place = 5) AS sequences \
    FROM pg_catalog.pg_class t \
    JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace AND n.nspname = current_schema() \
    CROSS JOIN LATERAL ( \
      SELECT place, name, place > 1 AS writes, has_table_privilege(t.oid, name) AS granted \
      FROM (VALUES (1, 'SELECT'), (2, 'INSERT'), (3, 'UPDATE'), (4, 'DELETE')) AS p (place, name) \
      UNION ALL \
      SELECT 5, 'USAGE ON SEQUENCE ' || s.oid::regclass, FALSE, has_sequence_privilege(s.oid, 'USAGE') \
      FROM pg_catalog.pg_depend d \
      JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S' \
      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype = 'a' \
        AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = t.oid \
    ) AS r \
    WHERE t.relkind IN ('r', 'p') GROUP BY t.oid, t.relname ORDER BY t.relname";

/// Finds the rights that the role lacks on these tables, when it may write to one of them:
/// one that may not only looks. SQLite has no roles.
pub(in crate::migration) async fn missing<C: ConnectionTrait>(
    connection: &C,
    tables: &[&str],
) -> Result<Vec<Difference>, Error> {
    const CONTEXT: &str = "reading the rights of the role";
    let mut found = Vec::new();
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(found);
    }
    let mut writes = false;
    for row in rows(connection, RIGHTS.to_owned()).await? {
        let table: String = row.try_get("", "table_name").context(CONTEXT)?;
        if !tables.contains(&table.as_str()) {
            continue;
        }
        let role: String = row.try_get("", "role").context(CONTEXT)?;
        writes |= row.try_get::<bool>("", "writes").context(CONTEXT)?;
        for name in ["missing", "sequences"] {
            let missing: Option<String> = row.try_get("", name).context(CONTEXT)?;
            if let Some(missing) = missing {
                found.push(Difference {
                    kind: Kind::Missing,
                    table: table.clone(),
                    what: format!("rights of {role}"),
                    detail: format!("run GRANT {missing} TO {role}"),
                });
            }
        }
    }
    Ok(if writes { found } else { Vec::new() })
}
