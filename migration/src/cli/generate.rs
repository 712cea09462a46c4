//! Writes a new, empty migration and lists it.

use std::path::{Path, PathBuf};

use migration::Error;

use super::output::Output;

pub(crate) fn run(name: &str, output: &Output) -> Result<(), Error> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/migrations");
    let now = chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now());
    let module = format!("m{}_{name}", now.format("%Y%m%d_%H%M%S"));
    let path = write(&folder, name, &module)?;
    output.line(format_args!("Wrote {}", path.display()));
    output.line("Next: fill in `up` and `down`, then run `just entities`.");
    output.object(&serde_json::json!({ "path": path, "name": module }));
    Ok(())
}

fn write(folder: &Path, name: &str, module: &str) -> Result<PathBuf, Error> {
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
    let list = folder.join("mod.rs");
    let text = std::fs::read_to_string(&list).map_err(failed(&list))?;
    let listed = listed(&text, module);
    let path = folder.join(format!("{module}.rs"));
    let mut file = std::fs::File::create_new(&path).map_err(failed(&path))?;
    std::io::Write::write_all(&mut file, template(name, module).as_bytes())
        .map_err(failed(&path))?;
    std::fs::write(&list, listed).map_err(failed(&list))?;
    Ok(path)
}

/// The list with the module behind the newest one, in both places.
fn listed(text: &str, module: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if let Some(last) = lines.iter().rposition(|line| line.starts_with("mod m")) {
        lines.insert(last + 1, format!("mod {module};"));
    }
    if let Some(end) = lines.iter().rposition(|line| line.trim() == "]") {
        lines.insert(end, format!("        Box::new({module}::Migration),"));
    }
    lines.join("\n") + "\n"
}

fn template(name: &str, module: &str) -> String {
    let title = name.replace('_', " ");
    format!(
        r#"//! To {title}: why?

use sea_orm::DbBackend;

use crate::change::Change;

pub(crate) struct Migration;

impl Change for Migration {{
    fn name(&self) -> &'static str {{
        "{module}"
    }}

    // A step that creates tables lists them, so that `fresh`, `check` and the
    // entities know them, and that `down` asks before it drops their rows:
    //     fn tables(&self) -> &'static [&'static str]
    // and one whose `down` drops columns lists their tables in
    //     fn loses(&self) -> &'static [&'static str]

    fn up(&self, backend: DbBackend) -> Vec<String> {{
        // `crate::columns::Columns::of(backend)` spells columns, indexes and
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

    #[test]
    fn a_new_step_is_written_and_listed_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("mod.rs");
        let before = "mod m1_old;\n\npub(crate) fn all() {\n    vec![\n        Box::new(m1_old::Migration),\n    ]\n}\n";
        std::fs::write(&list, before).expect("a list");
        let path = write(folder.path(), "add_tags", "m2_add_tags").expect("written");
        assert!(
            std::fs::read_to_string(path)
                .expect("a step")
                .contains("\"m2_add_tags\"")
        );
        assert_eq!(
            std::fs::read_to_string(&list).expect("a list"),
            "mod m1_old;\nmod m2_add_tags;\n\npub(crate) fn all() {\n    vec![\n        Box::new(m1_old::Migration),\n        Box::new(m2_add_tags::Migration),\n    ]\n}\n"
        );
    }

    #[test]
    fn names_that_are_no_identifiers_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["Add", "1st", "add-tags", "../escape", ""] {
            let error = write(folder.path(), name, name).expect_err(name);
            assert!(matches!(error, Error::Name(_)), "{name}: {error}");
        }
    }
}
