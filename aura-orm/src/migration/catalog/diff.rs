//! What stands between two schemas.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::normal::normal;
use super::{Catalog, Column, ForeignKey, Index, Table};

/// One difference between the live schema and the expected one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Missing, extra or different.
    pub kind: Kind,
    /// The table, or the domain.
    pub table: String,
    /// What of the table: `column role`, `index uq_users_email`; empty for the
    /// table itself, `domain` for a domain.
    pub what: String,
    /// How it is, and how it should be.
    pub detail: String,
}

/// In which way something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It should be there.
    Missing,
    /// It should not be there.
    Extra,
    /// It is there, and not as it should be.
    Different,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Missing => "missing",
            Kind::Extra => "extra",
            Kind::Different => "different",
        };
        write!(f, "{kind:9}  {}", self.table)?;
        if !self.what.is_empty() {
            write!(f, "  {}", self.what)?;
        }
        if !self.detail.is_empty() {
            write!(f, "  ({})", self.detail)?;
        }
        Ok(())
    }
}

/// Lists what of `live` is not as in `expected`. Triggers and indexes that an application has
/// added to our tables are its own, except a unique index, which refuses rows of ours.
#[must_use]
pub fn differences(live: &Catalog, expected: &Catalog) -> Vec<Difference> {
    let mut found = Vec::new();
    for (name, table) in &expected.tables {
        match live.tables.get(name) {
            Some(live) => compare(name, live, table, &mut found),
            None => found.push(difference(
                Kind::Missing,
                name,
                String::new(),
                String::new(),
            )),
        }
    }
    for name in live
        .tables
        .keys()
        .filter(|name| !expected.tables.contains_key(*name))
    {
        found.push(difference(Kind::Extra, name, String::new(), String::new()));
    }
    for (name, kind) in &expected.domains {
        let (what, detail) = match live.domains.get(name) {
            Some(live) if live == kind => continue,
            Some(live) => (Kind::Different, change(live, kind)),
            None => (Kind::Missing, String::new()),
        };
        found.push(difference(what, name, "domain".to_owned(), detail));
    }
    found
}

fn difference(kind: Kind, table: &str, what: String, detail: String) -> Difference {
    Difference {
        kind,
        table: table.to_owned(),
        what,
        detail,
    }
}

fn compare(table: &str, live: &Table, expected: &Table, found: &mut Vec<Difference>) {
    entries(table, "column", &columns(live), &columns(expected), found);
    if live.primary_key != expected.primary_key {
        let detail = change(
            &live.primary_key.join(", "),
            &expected.primary_key.join(", "),
        );
        found.push(difference(
            Kind::Different,
            table,
            "primary key".to_owned(),
            detail,
        ));
    }
    let indexes = live.indexes.iter();
    let indexes =
        indexes.filter(|(name, index)| index.unique || expected.indexes.contains_key(*name));
    let indexes = indexes.map(plain);
    let expected_indexes = expected.indexes.iter().map(plain);
    entries(
        table,
        "index",
        &indexes.collect(),
        &expected_indexes.collect(),
        found,
    );
    entries(
        table,
        "foreign key",
        &live.foreign_keys,
        &expected.foreign_keys,
        found,
    );
    for (kind, noun, these, those) in [
        (Kind::Missing, "check", &expected.checks, &live.checks),
        (Kind::Extra, "check", &live.checks, &expected.checks),
        (Kind::Missing, "trigger", &expected.triggers, &live.triggers),
        (Kind::Missing, "", &expected.extra, &live.extra),
        (Kind::Extra, "", &live.extra, &expected.extra),
    ] {
        let those: BTreeSet<String> = those.iter().map(|text| normal(text)).collect();
        for name in these.iter().filter(|text| !those.contains(&normal(text))) {
            found.push(difference(
                kind,
                table,
                format!("{noun} {name}").trim_start().to_owned(),
                String::new(),
            ));
        }
    }
}

/// Returns the columns of a table. The time of a statement on SQLite had three digits of fraction
/// in earlier versions, which is no difference to report: `MicrosecondTimes` changes it.
fn columns(table: &Table) -> BTreeMap<String, Column> {
    let mut columns = table.columns.clone();
    for default in columns
        .values_mut()
        .filter_map(|column| column.default.as_mut())
    {
        *default = default.replace("%f000+00:00", "%f+00:00");
    }
    columns
}

/// Returns an index whose condition is in the words of a schema and of its restored dump alike.
fn plain((name, index): (&String, &Index)) -> (String, Index) {
    let mut index = index.clone();
    index.predicate = index.predicate.as_deref().map(normal);
    (name.clone(), index)
}

fn entries<T: PartialEq + fmt::Display>(
    table: &str,
    noun: &str,
    live: &BTreeMap<String, T>,
    expected: &BTreeMap<String, T>,
    found: &mut Vec<Difference>,
) {
    for (name, expected) in expected {
        let what = format!("{noun} {name}");
        match live.get(name) {
            None => found.push(difference(Kind::Missing, table, what, String::new())),
            Some(live) if live != expected => {
                let detail = change(&live.to_string(), &expected.to_string());
                found.push(difference(Kind::Different, table, what, detail));
            }
            Some(_) => {}
        }
    }
    for name in live.keys().filter(|name| !expected.contains_key(*name)) {
        found.push(difference(
            Kind::Extra,
            table,
            format!("{noun} {name}"),
            String::new(),
        ));
    }
}

fn change(live: &str, expected: &str) -> String {
    format!("is {live}; expected {expected}")
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}",
            self.kind,
            if self.nullable { "" } else { " not null" }
        )?;
        match &self.default {
            Some(default) => write!(f, " default {default}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}on ({})",
            if self.unique { "unique " } else { "" },
            self.columns.join(", ")
        )?;
        if let Some(predicate) = &self.predicate {
            write!(f, " where {predicate}")?;
        }
        extra(f, self.extra.as_deref())
    }
}

impl fmt::Display for ForeignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            table,
            columns,
            on_delete,
            on_update,
            extra: note,
        } = self;
        let columns = columns.join(", ");
        write!(
            f,
            "to {table} ({columns}) on delete {on_delete} on update {on_update}"
        )?;
        extra(f, note.as_deref())
    }
}

fn extra(f: &mut fmt::Formatter<'_>, note: Option<&str>) -> fmt::Result {
    note.map_or(Ok(()), |note| write!(f, " ({note})"))
}
