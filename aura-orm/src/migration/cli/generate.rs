//! Writes a new, empty migration and lists it.

use std::path::{Path, PathBuf};

use super::output::Output;
use crate::migration::{Error, Runner};

pub(super) fn run(runner: &Runner, name: &str, output: &Output) -> Result<(), Error> {
    let package = runner.settings.path("")?;
    let now = chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now());
    let module = format!("m{}_{name}", now.format("%Y%m%d_%H%M%S"));
    let path = write(&package, name, &module)?;
    output.line(format_args!("Wrote {}", path.display()));
    output.line(format_args!(
        "Next: fill in `up` and `down`, then run `{0} up` and `{0} snapshot`.",
        runner.tool()
    ));
    output.object(&serde_json::json!({ "path": path, "name": module }));
    Ok(())
}

fn write(package: &Path, name: &str, module: &str) -> Result<PathBuf, Error> {
    let usable = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|character| {
            character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_'
        });
    if !usable {
        return Err(Error::Name(name.to_owned()));
    }
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
    std::io::Write::write_all(&mut file, template(&library, name, module).as_bytes())
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
            format!("        Box::new({module}::{}),", type_name(name)),
        );
    }
    lines.join("\n") + "\n"
}

/// `AddTags` of `add_tags`.
fn type_name(name: &str) -> String {
    let words = name.split('_').filter(|word| !word.is_empty());
    words
        .map(|word| word[..1].to_uppercase() + &word[1..])
        .collect()
}

fn template(library: &str, name: &str, module: &str) -> String {
    let title = name.replace('_', " ");
    let step = type_name(name);
    format!(
        r#"//! To {title}: why?

use {library}::migration::{{DbBackend, Migration}};

pub(super) struct {step};

impl Migration for {step} {{
    fn name(&self) -> &'static str {{
        "{module}"
    }}

    // A step that creates tables lists them, so that `fresh` and `check` know them, and
    // that `down` asks before it drops their rows:
    //     fn tables(&self) -> &'static [&'static str]
    // and one whose `down` drops columns lists their tables in
    //     fn destroys(&self) -> &'static [&'static str]

    fn up(&self, backend: DbBackend) -> Vec<String> {{
        // `{library}::migration::columns::Columns::of(backend)` spells columns, indexes and
        // foreign keys the same on both backends.
        let _ = backend;
        Vec::new()
    }}

    fn down(&self, backend: DbBackend) -> Vec<String> {{
        let _ = backend;
        Vec::new()
    }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(dependency: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let manifest = format!("[dependencies]\n{dependency} = \"1\"\n");
        std::fs::write(folder.path().join("Cargo.toml"), manifest).expect("a manifest");
        std::fs::create_dir_all(folder.path().join("src")).expect("a folder");
        folder
    }

    fn list(folder: &Path) -> String {
        std::fs::read_to_string(folder.join("src/migrations/mod.rs")).expect("a list")
    }

    #[test]
    fn a_new_step_is_written_and_listed_last() {
        let folder = package("aura-orm");
        let migrations = folder.path().join("src/migrations");
        std::fs::create_dir(&migrations).expect("a folder");
        let before = "mod m1_old;\n\npub(crate) fn all() {\n    vec![\n        Box::new(m1_old::Old),\n    ]\n}\n";
        std::fs::write(migrations.join("mod.rs"), before).expect("a list");
        let path = write(folder.path(), "add_tags", "m2_add_tags").expect("written");
        let step = std::fs::read_to_string(path).expect("a step");
        assert!(step.contains("\"m2_add_tags\""), "{step}");
        assert!(step.contains("use aura_orm::migration::"), "{step}");
        assert!(step.contains("impl Migration for AddTags {"), "{step}");
        assert_eq!(
            list(folder.path()),
            "mod m1_old;\nmod m2_add_tags;\n\npub(crate) fn all() {\n    vec![\n        Box::new(m1_old::Old),\n        Box::new(m2_add_tags::AddTags),\n    ]\n}\n"
        );
    }

    #[test]
    fn the_first_step_makes_the_list() {
        let folder = package("aura-db");
        write(folder.path(), "create_notes", "m1_create_notes").expect("written");
        write(folder.path(), "add_tags", "m2_add_tags").expect("written");
        let list = list(folder.path());
        let name = "aura-db".replace('-', "_");
        let middle = format!(
            "use {name}::migration::Migration;\n\nmod m1_create_notes;\nmod m2_add_tags;\n\n"
        );
        assert!(list.contains(&middle), "{list}");
        let end = "    vec![\n        Box::new(m1_create_notes::CreateNotes),\n        Box::new(m2_add_tags::AddTags),\n    ]\n}\n";
        assert!(list.ends_with(end), "{list}");
    }

    #[test]
    fn names_that_are_no_identifiers_are_refused() {
        let folder = package("aura-db");
        for name in ["Add", "1st", "add-tags", "../escape", ""] {
            let error = write(folder.path(), name, name).expect_err(name);
            assert!(matches!(error, Error::Name(_)), "{name}: {error}");
        }
        assert!(!folder.path().join("src/migrations").exists());
    }
}
