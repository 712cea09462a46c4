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
