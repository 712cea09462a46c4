//! The public methods of the repositories and the errors that their
//! documentation names, read from the source, so that none is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The methods, such as `users.create`, and what they may fail with.
pub(crate) fn methods() -> BTreeMap<String, BTreeSet<String>> {
    let mut methods = BTreeMap::new();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/repositories");
    read(&sources, &mut methods);
    methods
}

fn read(folder: &Path, methods: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in fs::read_dir(folder).expect("the repositories") {
        let path = entry.expect("a file").path();
        if path.is_dir() {
            read(&path, methods);
        } else {
            scan(&fs::read_to_string(&path).expect("Rust"), methods);
        }
    }
}

/// The macros that give a repository methods.
const MACROS: &str = include_str!("../../src/repositories/filter.rs");

/// The methods of a macro's arm, and what they may fail with.
fn of_macro(name: &str, lists: bool) -> Vec<(String, BTreeSet<String>)> {
    let start = format!("macro_rules! {name} {{");
    let body = MACROS.split_once(&start).expect("the macro").1;
    let body = body.split_once("\n}\n").expect("its end").0;
    let mut methods = Vec::new();
    let mut documentation = String::new();
    for line in body.lines() {
        if let Some(text) = line.trim_start().strip_prefix("///") {
            documentation.push_str(text);
        } else if let Some(method) = line.strip_prefix("            pub async fn ") {
            let end = method.find('(').expect("its arguments");
            let is_list = method.starts_with("list");
            if lists || !is_list {
                methods.push((method[..end].to_owned(), errors(&documentation)));
            }
            documentation.clear();
        }
    }
    methods
}

fn scan(source: &str, methods: &mut BTreeMap<String, BTreeSet<String>>) {
    let mut repository = None;
    let mut documentation = String::new();
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("impl ") {
            let name = name.trim_end_matches(" {");
            let all = [
                "Users",
                "Sessions",
                "Workflows",
                "Plugins",
                "Executions",
                "Logs",
                "Agents",
            ];
            repository = all.contains(&name).then(|| name.to_lowercase());
        }
        if let Some((name, arguments)) = line.split_once("!(")
            && ["reads", "deletes", "owned_deletes", "purges", "switches"].contains(&name)
            && let Some((repository, _)) = arguments.split_once(" of ")
        {
            for (method, errors) in of_macro(name, arguments.contains("Filter")) {
                methods.insert(format!("{}.{method}", repository.to_lowercase()), errors);
            }
        }
        if let Some(text) = line.trim_start().strip_prefix("///") {
            documentation.push_str(text);
            continue;
        }
        let method = line.strip_prefix("    pub async fn ");
        if let (Some(repository), Some(method)) = (&repository, method) {
            let end = method.find(|c: char| !c.is_alphanumeric() && c != '_');
            let method = &method[..end.unwrap_or(method.len())];
            methods.insert(format!("{repository}.{method}"), errors(&documentation));
        }
        if !line.trim_start().starts_with("#[") {
            documentation.clear();
        }
    }
}

fn errors(documentation: &str) -> BTreeSet<String> {
    let named = documentation.split("[`Error::").skip(1);
    named
        .filter_map(|text| Some(text.split_once('`')?.0.to_owned()))
        .collect()
}
