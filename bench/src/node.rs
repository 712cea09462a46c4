//! Whether the peers on Node.js can be measured here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The packages that they are measured with.
const PACKAGES: [&str; 6] = [
    "typeorm",
    "drizzle-orm",
    "better-sqlite3",
    "pg",
    "graphile-worker",
    "pg-boss",
];

/// Returns the folder of their program.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("node")
}

/// Returns the file that describes an installed package.
fn manifest(package: &str) -> PathBuf {
    let folder = folder().join("node_modules").join(package);
    folder.join("package.json")
}

/// Returns the script for Node.js, which takes the folder of a peer, or why there is
/// none. Packages that are missing are installed, if that may be done.
pub(crate) fn script(may_install: bool) -> Result<PathBuf, String> {
    output(Command::new("node").arg("--version")).map_err(|_| "node is not there".to_owned())?;
    let folder = folder();
    if !PACKAGES.iter().all(|package| manifest(package).exists()) {
        if !may_install {
            return Err("their packages are not installed (npm ci in bench/node)".to_owned());
        }
        terminal::aside("installing the packages for Node.js with npm ci …");
        let mut install = Command::new("npm");
        install
            .current_dir(&folder)
            .args(["ci", "--no-audit", "--no-fund"]);
        // Where better-sqlite3 has no program for this machine it is compiled,
        // with the headers that the system's package of Node.js brings.
        if Path::new("/usr/include/node/node.h").exists() {
            install.env("npm_config_nodedir", "/usr");
        }
        output(&mut install).map_err(|why| format!("npm ci failed: {why}"))?;
    }
    Ok(folder.join("main.js"))
}

/// Returns the versions of Node.js and of the packages.
pub(crate) fn versions() -> Vec<(String, String)> {
    let node = output(Command::new("node").arg("--version")).unwrap_or_default();
    let mut versions = vec![(
        "Node.js".to_owned(),
        node.trim_start_matches('v').to_owned(),
    )];
    for package in PACKAGES {
        let version = std::fs::read_to_string(manifest(package))
            .ok()
            .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
            .and_then(|value| Some(value.get("version")?.as_str()?.to_owned()));
        versions.push((package.to_owned(), version.unwrap_or_default()));
    }
    versions
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        let told = String::from_utf8_lossy(&output.stderr);
        let told: Vec<_> = told.lines().rev().take(5).collect();
        Err(told.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }
}
