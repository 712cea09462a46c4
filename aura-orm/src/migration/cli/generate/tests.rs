//! What is written.

use super::*;
use crate::migration::columns::Columns;
use crate::migration::{DbBackend, Migration};

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
    let path = write(folder.path(), "add_tags", "m2_add_tags", None).expect("written");
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
    write(folder.path(), "create_notes", "m1_create_notes", None).expect("written");
    write(folder.path(), "add_tags", "m2_add_tags", None).expect("written");
    let list = list(folder.path());
    let name = "aura-db".replace('-', "_");
    let middle =
        format!("use {name}::migration::Migration;\n\nmod m1_create_notes;\nmod m2_add_tags;\n\n");
    assert!(list.contains(&middle), "{list}");
    let end = "    vec![\n        Box::new(m1_create_notes::CreateNotes),\n        Box::new(m2_add_tags::AddTags),\n    ]\n}\n";
    assert!(list.ends_with(end), "{list}");
}

#[test]
fn names_that_are_no_identifiers_are_refused() {
    for name in ["Add", "1st", "add-tags", "../escape", ""] {
        let error = check_name(name).expect_err(name);
        assert!(matches!(error, Error::Name(_)), "{name}: {error}");
    }
}

#[test]
fn a_step_that_exists_is_left_alone() {
    let folder = package("aura-db");
    let path = write(folder.path(), "add_tags", "m1_add_tags", None).expect("written");
    std::fs::write(&path, "by hand").expect("written");
    let before = list(folder.path());
    let error = write(folder.path(), "add_tags", "m1_add_tags", None).expect_err("it exists");
    assert!(matches!(error, Error::Generate { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("text"), "by hand");
    assert_eq!(list(folder.path()), before);
}

mod marks {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "marks")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub(crate) id: i64,
        #[sea_orm(column_type = "String(StringLen::N(40))", unique)]
        pub(crate) name: String,
        pub(crate) is_open: bool,
        pub(crate) about: Option<String>,
        pub(crate) created_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

mod places {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "places")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub(crate) id: i64,
        pub(crate) depth: i64,
        pub(crate) mark_id: Option<i64>,
        #[sea_orm(belongs_to, from = "mark_id", to = "id", on_delete = "SetNull")]
        pub(crate) mark: BelongsTo<Option<super::marks::Entity>>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

struct CreatePlaces;

impl Migration for CreatePlaces {
    fn name(&self) -> &'static str {
        "m1_create_places"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["places"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        let columns = Columns::of(backend);
        let mut table = columns.table("places");
        columns.sql(table.col(columns.text("old")), &[])
    }
}

/// What is written is what compiles here, and rustfmt leaves it as it is.
#[allow(
    clippy::match_same_arms,
    reason = "`down` may be the same on both backends"
)]
mod add_marks;

#[tokio::test]
async fn a_step_of_entities_is_written() {
    let folder = package("aura-orm");
    let with = |steps: Vec<Box<dyn Migration>>| {
        let runner = Runner::builder().steps(steps);
        let runner = runner.entity(places::Entity).entity(marks::Entity);
        runner.build()
    };
    let output = Output::new(true);
    let runner = with(vec![Box::new(CreatePlaces)]);
    assert_eq!(check(&runner, &output).await.expect("compared"), 1);
    let target = Target {
        runner: &runner,
        package: folder.path(),
        name: "add_marks",
    };
    target
        .write_from_entities(false, &output)
        .await
        .expect("written");
    let step = newest(folder.path());
    let module = step.1.replace("aura_orm::", "crate::");
    let module = module.replace(&step.0, "m2_add_marks");
    assert_eq!(module, include_str!("tests/add_marks.rs"));
    assert!(list(folder.path()).contains("_add_marks::AddMarks),"));

    let runner = with(vec![Box::new(CreatePlaces), Box::new(add_marks::AddMarks)]);
    let left = runner.entity_changes().await.expect("compared");
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].drops, "{left:?}");
    assert_eq!(check(&runner, &output).await.expect("compared"), 1);
    let target = Target {
        runner: &runner,
        name: "drop_old",
        ..target
    };
    target
        .write_from_entities(true, &output)
        .await
        .expect("written");
    let step = newest(folder.path()).1;
    let drop = "                r#\"ALTER TABLE \"places\" DROP COLUMN \"old\"\"#,\n";
    assert_eq!(step.matches(drop).count(), 2, "{step}");
}

/// The name and the text of the last step.
fn newest(folder: &Path) -> (String, String) {
    let list = list(folder);
    let mut module = list.lines().filter_map(|line| line.strip_prefix("mod "));
    let module = module
        .next_back()
        .expect("a step")
        .trim_end_matches(';')
        .to_owned();
    let path = folder.join(format!("src/migrations/{module}.rs"));
    (module, std::fs::read_to_string(path).expect("a step"))
}
