//! Writes a new migration and lists it.

use std::path::{Path, PathBuf};

use terminal::{BAD, WARN};

use super::output::Output;
use super::template::step;
use crate::migration::{EntityChange, Error, Runner};

/// Prints what of the schema that the steps make is not as the entities declare it. Returns
/// the exit code: 1 when there is something.
pub(super) async fn check(runner: &Runner, output: &Output) -> Result<u8, Error> {
    let changes = runner.entity_changes().await?;
    for change in &changes {
        output.line(format_args!("  {BAD}{}{BAD:#}", change.difference));
    }
    output.line(match changes.len() {
        0 => "The steps make what the entities declare.".to_owned(),
        1 => "One difference.".to_owned(),
        more => format!("{more} differences."),
    });
    output.object(&serde_json::json!({ "changes": changes }));
    Ok(u8::from(!changes.is_empty()))
}

/// The step to write.
pub(super) struct Target<'a> {
    pub(super) runner: &'a Runner,
    /// The folder of the package.
    pub(super) package: &'a Path,
    pub(super) name: &'a str,
}

impl Target<'_> {
    /// Writes a step that brings the schema to what the entities declare. What it would
    /// delete stands there as a comment unless `drop` is set.
    pub(super) async fn write_from_entities(
        &self,
        drop: bool,
        output: &Output,
    ) -> Result<(), Error> {
        check_name(self.name)?;
        let mut changes = self.runner.entity_changes().await?;
        if changes.is_empty() {
            output.line("Nothing to do: the steps make what the entities declare.");
            output.object(&serde_json::json!({ "path": null, "changes": [] }));
            return Ok(());
        }
        if drop {
            for change in &mut changes {
                change.drops = false;
            }
        }
        self.write(Some(&changes), output)
    }

    /// Writes a step: an empty one, or one of these changes.
    pub(super) fn write(
        &self,
        changes: Option<&[EntityChange]>,
        output: &Output,
    ) -> Result<(), Error> {
        check_name(self.name)?;
        let now = chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now());
        let module = format!("m{}_{}", now.format("%Y%m%d_%H%M%S"), self.name);
        let path = write(self.package, self.name, &module, changes)?;
        output.line(format_args!("Wrote {}", path.display()));
        let mut object = serde_json::json!({ "path": path, "name": module });
        let verb = if let Some(changes) = changes {
            for change in changes {
                output.line(format_args!("  {}", change.difference));
                if let Some(decide) = &change.decide {
                    output.line(format_args!("  {WARN}decide{WARN:#}     {decide}"));
                }
            }
            object["changes"] = serde_json::json!(changes);
            "look at"
        } else {
            "fill in"
        };
        output.line(format_args!(
            "Next: {verb} `up` and `down`, then run `{0} up` and `{0} snapshot`.",
            self.runner.tool()
        ));
        output.object(&object);
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let usable = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|character| {
            character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_'
        });
    if usable {
        Ok(())
    } else {
        Err(Error::Name(name.to_owned()))
    }
}

fn write(
    package: &Path,
    name: &str,
    module: &str,
    changes: Option<&[EntityChange]>,
) -> Result<PathBuf, Error> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source| Error::Generate { path, source }
    };
    std::fs::metadata(package).map_err(failed(package))?;
    let manifest = std::fs::read_to_string(package.join("Cargo.toml"));
    let library = library(&manifest.unwrap_or_default());
    let folder = package.join("src/migrations");
    std::fs::create_dir_all(&folder).map_err(failed(&folder))?;
    let list = folder.join("mod.rs");
    let text = match std::fs::read_to_string(&list) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => empty_list(&library),
        text => text.map_err(failed(&list))?,
    };
    let listed = listed(&text, name, module);
    let path = folder.join(format!("{module}.rs"));
    let mut file = std::fs::File::create_new(&path).map_err(failed(&path))?;
    std::io::Write::write_all(&mut file, step(&library, name, module, changes).as_bytes())
        .map_err(failed(&path))?;
    std::fs::write(&list, listed).map_err(failed(&list))?;
    Ok(path)
}

/// Returns the crate of ours that the package depends on, as code names it.
fn library(manifest: &str) -> String {
    const NAMES: [&str; 2] = ["aura-db", "aura-orm"];
    let is_named = |name: &&&str| {
        let mut lines = manifest.lines();
        lines.any(|line| line.trim_start().starts_with(**name))
    };
    let name = NAMES.iter().find(is_named).unwrap_or(&NAMES[0]);
    name.replace('-', "_")
}

fn empty_list(library: &str) -> String {
    format!(
        r"//! The steps, oldest first; one that was released is never edited.

use {library}::migration::Migration;

/// Returns all steps, in the order in which they are applied.
pub fn all() -> Vec<Box<dyn Migration>> {{
    vec![
    ]
}}
"
    )
}

/// Returns the list with the module behind the newest one, in both places.
fn listed(text: &str, name: &str, module: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let declaration = format!("mod {module};");
    if let Some(last) = lines.iter().rposition(|line| line.starts_with("mod m")) {
        lines.insert(last + 1, declaration);
    } else {
        let after = lines.iter().rposition(|line| line.starts_with("use "));
        let at = after.map_or(0, |line| line + 1);
        lines.splice(at..at, [String::new(), declaration]);
    }
    if let Some(end) = lines.iter().rposition(|line| line.trim() == "]") {
        lines.insert(
            end,
            format!(
                "        Box::new({module}::{}),",
                super::template::type_name(name)
            ),
        );
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests;
