//! PostgreSQL's schema, from `pg_catalog`: unlike `information_schema` it shows
//! every table to every user.

use sea_orm::{ConnectionTrait, DbErr, QueryResult};

use super::{Catalog, Column, ForeignKey, Index, Table, rows};
use crate::migration::error::{Context, Error};

/// The tables of the connection's schema.
const OURS: &str = "FROM pg_catalog.pg_class t \
    JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace AND n.nspname = current_schema()";

pub(super) async fn read<C: ConnectionTrait>(
    connection: &C,
    tables: &[&str],
    domains: &[&str],
) -> Result<Catalog, Error> {
    let mut catalog = Catalog::default();
    let mut add = |row: &QueryResult,
                   put: &dyn Fn(&QueryResult, &mut Table) -> Result<(), DbErr>|
     -> Result<(), DbErr> {
        let name: String = row.try_get("", "table_name")?;
        if tables.contains(&name.as_str()) {
            put(row, catalog.tables.entry(name).or_default())?;
        }
        Ok(())
    };
    for (sql, put) in [
        (
            columns(),
            &column as &dyn Fn(&QueryResult, &mut Table) -> Result<(), DbErr>,
        ),
        (indexes(), &index),
        (constraints(), &constraint),
        (triggers(), &trigger),
        (traits(), &table_trait),
    ] {
        for row in rows(connection, sql).await? {
            add(&row, put).context("reading the schema")?;
        }
    }
    for row in rows(connection, domains_sql()).await? {
        let (name, kind) = domain(&row).context("reading the schema")?;
        if domains.contains(&name.as_str()) {
            catalog.domains.insert(name, kind);
        }
    }
    Ok(catalog)
}

fn domains_sql() -> String {
    "SELECT t.typname::text AS name, format_type(t.typbasetype, t.typtypmod) \
       || CASE WHEN t.typnotnull THEN ' not null' ELSE '' END \
       || coalesce((SELECT string_agg(' ' || pg_get_constraintdef(c.oid), '' ORDER BY c.conname) \
            FROM pg_catalog.pg_constraint c WHERE c.contypid = t.oid AND c.contype = 'c'), '') AS kind \
     FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
     WHERE n.nspname = current_schema() AND t.typtype = 'd'"
        .to_owned()
}

fn domain(row: &QueryResult) -> Result<(String, String), DbErr> {
    Ok((row.try_get("", "name")?, row.try_get("", "kind")?))
}

fn columns() -> String {
    format!(
        "SELECT t.relname::text AS table_name, a.attname::text AS name, \
         format_type(a.atttypid, a.atttypmod) \
           || coalesce(' collate ' || nullif(c.collname::text, 'default'), '') \
           || CASE a.attidentity WHEN '' THEN '' WHEN 'd' THEN ' identity' ELSE ' identity always' END AS kind, \
         NOT a.attnotnull AS nullable, pg_get_expr(d.adbin, d.adrelid) AS default_value \
         {OURS} JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped \
         LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation \
         LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum \
         WHERE t.relkind IN ('r', 'p')"
    )
}

fn column(row: &QueryResult, table: &mut Table) -> Result<(), DbErr> {
    let column = Column {
        kind: row.try_get("", "kind")?,
        nullable: row.try_get("", "nullable")?,
        default: row.try_get("", "default_value")?,
    };
    table.columns.insert(row.try_get("", "name")?, column);
    Ok(())
}

/// The columns of an index whose collation isn't the column's, and whose operator class isn't
/// the default one. `pg_get_indexdef` prints neither of a single column. The vectors of
/// `pg_index` count from 0.
const COLLATIONS: &str = "(SELECT string_agg(concat_ws(' ', a.attname, \
       CASE WHEN c.oid <> a.attcollation THEN 'collate ' || c.collname END, \
       CASE WHEN NOT o.opcdefault THEN o.opcname END), ', ' ORDER BY k) \
     FROM generate_series(0, x.indnkeyatts - 1) k \
     JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[k] \
     JOIN pg_catalog.pg_opclass o ON o.oid = x.indclass[k] \
     LEFT JOIN pg_catalog.pg_collation c ON c.oid = x.indcollation[k] \
     WHERE c.oid <> a.attcollation OR NOT o.opcdefault)";

/// The options 0 and 3 of a column are ascending and descending, with NULLs where they are by
/// default.
fn indexes() -> String {
    format!(
        "SELECT t.relname::text AS table_name, i.relname::text AS name, x.indisunique AS is_unique, x.indisprimary AS is_primary, \
         array_to_string(array(SELECT pg_get_indexdef(x.indexrelid, k, true) \
             || CASE x.indoption[k - 1] WHEN 3 THEN ' DESC' ELSE '' END \
           FROM generate_series(1, x.indnkeyatts) k ORDER BY k), E'\\n') AS columns, \
         nullif(concat_ws(', ', nullif(m.amname, 'btree'), \
           CASE WHEN x.indoption::int[] <@ ARRAY[0, 3] THEN NULL ELSE 'order ' || x.indoption::text END, \
           CASE WHEN x.indnatts > x.indnkeyatts THEN 'with included columns' END, \
           CASE WHEN NOT x.indimmediate THEN 'deferrable' END, \
           CASE WHEN to_jsonb(x) ->> 'indnullsnotdistinct' = 'true' THEN 'nulls not distinct' END, \
           {COLLATIONS}, \
           CASE WHEN NOT x.indisready THEN 'not ready' END, \
           CASE WHEN NOT x.indisvalid THEN 'not valid' END), '') AS extra, \
         pg_get_expr(x.indpred, x.indrelid) AS predicate \
         {OURS} JOIN pg_catalog.pg_index x ON x.indrelid = t.oid JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid \
         JOIN pg_catalog.pg_am m ON m.oid = i.relam"
    )
}

fn index(row: &QueryResult, table: &mut Table) -> Result<(), DbErr> {
    let columns: String = row.try_get("", "columns")?;
    let columns: Vec<String> = columns.split('\n').map(str::to_owned).collect();
    if row.try_get("", "is_primary")? {
        table.primary_key = columns;
    } else {
        let index = Index {
            columns,
            unique: row.try_get("", "is_unique")?,
            predicate: row.try_get("", "predicate")?,
            extra: row.try_get("", "extra")?,
        };
        table.indexes.insert(row.try_get("", "name")?, index);
    }
    Ok(())
}

fn constraints() -> String {
    let attributes = |table: &str, keys: &str| {
        format!(
            "array_to_string(array(SELECT a.attname::text FROM unnest({keys}) WITH ORDINALITY k(attnum, place) \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = {table} AND a.attnum = k.attnum ORDER BY k.place), ', ')"
        )
    };
    format!(
        "SELECT t.relname::text AS table_name, c.contype::text AS kind, pg_get_constraintdef(c.oid, true) AS definition, \
         {} AS columns, CASE WHEN p.relnamespace <> t.relnamespace THEN p.relnamespace::regnamespace || '.' ELSE '' END \
           || p.relname AS parent, {} AS parents, c.confdeltype::text AS on_delete, c.confupdtype::text AS on_update, \
         nullif(concat_ws(', ', CASE WHEN NOT c.convalidated THEN 'not valid' END, \
           CASE WHEN c.condeferrable THEN 'deferrable' END, \
           CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgconstraint = c.oid \
             AND g.tgenabled NOT IN ('O', 'A')) THEN 'not enforced: its triggers are disabled' END), '') AS extra \
         {OURS} JOIN pg_catalog.pg_constraint c ON c.conrelid = t.oid AND c.contype IN ('c', 'f') \
         LEFT JOIN pg_catalog.pg_class p ON p.oid = c.confrelid ORDER BY c.conname",
        attributes("c.conrelid", "c.conkey"),
        attributes("c.confrelid", "c.confkey"),
    )
}

fn constraint(row: &QueryResult, table: &mut Table) -> Result<(), DbErr> {
    let kind: String = row.try_get("", "kind")?;
    if kind == "c" {
        table.checks.insert(row.try_get("", "definition")?);
        return Ok(());
    }
    let parents: String = row.try_get("", "parents")?;
    let key = ForeignKey {
        table: row.try_get("", "parent")?,
        columns: parents.split(", ").map(str::to_owned).collect(),
        on_delete: action(&row.try_get::<String>("", "on_delete")?),
        on_update: action(&row.try_get::<String>("", "on_update")?),
        extra: row.try_get("", "extra")?,
    };
    let columns: String = row.try_get("", "columns")?;
    table.add_foreign_key(&columns, key);
    Ok(())
}

fn triggers() -> String {
    format!(
        "SELECT t.relname::text AS table_name, \
         g.tgname || CASE WHEN g.tgenabled IN ('O', 'A') THEN '' ELSE ' (disabled)' END AS name \
         {OURS} JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal"
    )
}

fn trigger(row: &QueryResult, table: &mut Table) -> Result<(), DbErr> {
    table.triggers.insert(row.try_get("", "name")?);
    Ok(())
}

/// What keeps rows out, hides or rewrites them, or loses them after a crash.
fn traits() -> String {
    let of = |what: &str, from: &str| {
        format!("SELECT t.relname::text AS table_name, ({what})::text AS name {OURS} {from}")
    };
    [
        of(
            "'row-level security' || CASE WHEN t.relforcerowsecurity THEN ', forced' ELSE '' END",
            "WHERE t.relrowsecurity",
        ),
        of(
            "'unlogged'",
            "WHERE t.relpersistence = 'u' AND t.relkind = 'r'",
        ),
        of(
            "'rule ' || r.rulename",
            "JOIN pg_catalog.pg_rewrite r ON r.ev_class = t.oid WHERE t.relkind IN ('r', 'p')",
        ),
        of(
            "'exclusion constraint ' || c.conname",
            "JOIN pg_catalog.pg_constraint c ON c.conrelid = t.oid AND c.contype = 'x'",
        ),
        of(
            "'inherited by ' || h.inhrelid::regclass",
            "JOIN pg_catalog.pg_inherits h ON h.inhparent = t.oid WHERE t.relkind = 'r'",
        ),
    ]
    .join(" UNION ALL ")
}

fn table_trait(row: &QueryResult, table: &mut Table) -> Result<(), DbErr> {
    table.extra.insert(row.try_get("", "name")?);
    Ok(())
}

/// <https://www.postgresql.org/docs/current/catalog-pg-constraint.html>
fn action(code: &str) -> String {
    match code {
        "a" => "NO ACTION",
        "r" => "RESTRICT",
        "c" => "CASCADE",
        "n" => "SET NULL",
        "d" => "SET DEFAULT",
        other => other,
    }
    .to_owned()
}
