//! What the generator can't know: which Rust type a column has beyond its SQL
//! type, and what a relation is called. One table, applied to generated code
//! whose every field stands on its own line.

use std::collections::BTreeSet;

use crate::Failure;

/// In every table: the generated type, and ours.
const TYPES: &[(&str, &str)] = &[
    ("DateTimeWithTimeZone", "DateTimeUtc"),
    ("Json", "Document"),
];

/// In every table: columns that refer to a row of another.
const REFERENCES: &[(&str, &str)] = &[
    ("user_id", "UserId"),
    ("owner_id", "UserId"),
    ("created_by", "UserId"),
    ("updated_by", "UserId"),
    ("workflow_id", "WorkflowId"),
    ("plugin_id", "PluginId"),
    ("execution_id", "ExecutionId"),
    ("limit_id", "ExecutionLimitId"),
];

/// One table each: columns and their types.
const COLUMNS: &[(&str, &[(&str, &str)])] = &[
    (
        "users",
        &[
            ("id", "UserId"),
            ("hashed_password", "PasswordHash"),
            ("role", "Role"),
        ],
    ),
    ("sessions", &[("id", "SessionId"), ("token", "TokenHash")]),
    ("plugins", &[("id", "PluginId")]),
    (
        "workflows",
        &[("id", "WorkflowId"), ("status", "WorkflowStatus")],
    ),
    ("workflow_versions", &[("id", "WorkflowVersionId")]),
    (
        "executions",
        &[
            ("id", "ExecutionId"),
            ("mode", "ExecutionMode"),
            ("status", "ExecutionStatus"),
        ],
    ),
    ("execution_attempts", &[("id", "ExecutionAttemptId")]),
    ("execution_limits", &[("id", "ExecutionLimitId")]),
    ("logs", &[("id", "LogId"), ("level", "LogLevel")]),
    ("agents", &[("id", "AgentId")]),
];

/// One table each: relations to one row, and what they are called.
const RELATIONS: &[(&str, &[(&str, &str)])] = &[
    ("sessions", &[("users", "user")]),
    ("workflows", &[("users", "owner")]),
    ("agents", &[("users", "owner")]),
    (
        "workflow_plugins",
        &[("workflows", "workflow"), ("plugins", "plugin")],
    ),
    ("workflow_versions", &[("workflows", "workflow")]),
    ("executions", &[("workflows", "workflow")]),
    ("execution_attempts", &[("executions", "execution")]),
    (
        "execution_limits",
        &[("workflows", "workflow"), ("users", "owner")],
    ),
    (
        "logs",
        &[("workflows", "workflow"), ("executions", "execution")],
    ),
];

/// Unique indexes of a part of the rows, which an entity can't say.
const PARTIAL: &[&str] = &["uq_executions_workflow_id_idempotency_key"];

/// Types that are secrets, and stay out of what is serialized.
const SECRETS: &[&str] = &["PasswordHash", "TokenHash"];

/// Types whose values are bound as text and cast to what the column takes.
const CAST: &[(&str, &str)] = &[("Document", "json_text")];

fn of(
    table: &str,
    list: &[(&str, &[(&'static str, &'static str)])],
) -> Vec<(&'static str, &'static str)> {
    list.iter()
        .filter(|(name, _)| *name == table)
        .flat_map(|(_, entries)| entries.iter().copied())
        .collect()
}

/// The refined code of one generated file. Fails when the table above names
/// something that the schema no longer has.
pub(crate) fn refine(file: &str, code: &str) -> Result<String, Failure> {
    let Some(table) = file.strip_suffix(".rs").filter(|name| *name != "mod") else {
        return Ok(code.to_owned());
    };
    let columns = of(table, COLUMNS);
    let relations = of(table, RELATIONS);
    let mut used = Vec::new();
    let mut imports = BTreeSet::new();
    let is_partial = |line: &str| {
        let mut names = PARTIAL.iter();
        line.contains("unique_key") && names.any(|name| line.contains(name))
    };
    let lines = code.lines().filter(|line| !is_partial(line));
    let lines = lines.map(|line| {
        let Some((name, kind)) = field(line) else {
            return line.to_owned();
        };
        if let Some((_, renamed)) = relations
            .iter()
            .find(|(old, _)| *old == name && kind.starts_with("BelongsTo<"))
        {
            used.push(name.to_owned());
            return format!("    pub {renamed}: {kind},");
        }
        let mut kind = kind.to_owned();
        if let Some((_, refined)) = columns
            .iter()
            .chain(REFERENCES)
            .find(|(column, _)| *column == name)
        {
            used.push(name.to_owned());
            imports.insert(*refined);
            kind = if kind.starts_with("Option<") {
                format!("Option<{refined}>")
            } else {
                (*refined).to_owned()
            };
        }
        for (generated, refined) in TYPES {
            if kind.contains(generated) && *refined == "Document" {
                imports.insert(*refined);
            }
            kind = kind.replace(generated, refined);
        }
        let secret = if SECRETS.contains(&kind.as_str()) {
            "    #[serde(skip_serializing)]\n"
        } else {
            ""
        };
        let cast = CAST.iter().find(|(cast, _)| kind.contains(cast));
        let cast = cast.map_or(String::new(), |(_, to)| {
            format!("    #[sea_orm(save_as = \"{to}\")]\n")
        });
        format!("{secret}{cast}    pub {name}: {kind},")
    });
    let refined = documents_last(lines.collect()).join("\n") + "\n";
    for (name, _) in columns.iter().chain(&relations) {
        if !used.iter().any(|used| used == name) {
            return Err(format!(
                "xtask/src/refine.rs refines {table}.{name}, which the schema doesn't have"
            )
            .into());
        }
    }
    let imports = imports.into_iter().collect::<Vec<_>>().join(", ");
    Ok(refined.replacen(
        "use sea_orm::entity::prelude::*;\n",
        &format!("use sea_orm::entity::prelude::*;\n\nuse crate::types::{{{imports}}};\n"),
        1,
    ))
}

/// Documents behind the other columns, also those that were added later, as they are read.
fn documents_last(lines: Vec<String>) -> Vec<String> {
    let is_relation = |line: &String| {
        ["HasOne<", "HasMany<", "BelongsTo<"]
            .map(|kind| line.contains(kind))
            .contains(&true)
    };
    let is_field =
        |line: &String| line.contains("    pub ") && line.contains(": ") && !is_relation(line);
    let is_document = |line: &String| is_field(line) && line.contains("Document");
    let last = lines
        .iter()
        .rposition(|line| is_field(line) && !is_document(line));
    let Some(last) = last else {
        return lines;
    };
    let mut rest = lines.into_iter();
    let (documents, mut before): (Vec<_>, Vec<_>) =
        rest.by_ref().take(last + 1).partition(is_document);
    before.extend(documents);
    before.extend(rest);
    before
}

/// The name and type of a field that stands on this line.
fn field(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("    pub ")?
        .strip_suffix(',')?
        .split_once(": ")
}
