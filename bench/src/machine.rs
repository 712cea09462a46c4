//! What was measured where.

use serde::{Deserialize, Serialize};

/// The machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub processor: String,
    pub threads: usize,
    pub memory: String,
    pub system: String,
}

impl Machine {
    /// This one. What can't be found out is left empty.
    pub(crate) fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let kernel = read("/proc/sys/kernel/osrelease");
        let system = field(&read("/etc/os-release"), "PRETTY_NAME", '=');
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name", ':'),
            threads: std::thread::available_parallelism().map_or(0, usize::from),
            memory: memory(&read("/proc/meminfo"), "MemTotal")
                .map_or_else(String::new, |size| format!("{:.0} GiB", size / 1024.0)),
            system: format!("{}, Linux {}", system.trim_matches('"'), kernel.trim()),
        }
    }
}

/// The value of the first line that begins with this name.
pub(crate) fn field(text: &str, name: &str, separator: char) -> String {
    text.lines()
        .filter_map(|line| line.split_once(separator))
        .find(|(key, _)| key.trim() == name)
        .map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

/// MiB in a line of a file in `/proc`.
pub(crate) fn memory(text: &str, name: &str) -> Option<f64> {
    let value = field(text, name, ':');
    let kibibytes: f64 = value.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1024.0)
}

/// The version of a crate that this program is built with.
pub(crate) fn version(package: &str) -> String {
    let lock = include_str!("../../Cargo.lock");
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines();
    lines
        .find(|line| *line == name)
        .and_then(|_| lines.next())
        .and_then(|line| line.strip_prefix("version = \""))
        .map_or_else(String::new, |line| line.trim_end_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_proc() {
        let status = "Name:\tbench\nVmPeak:\t  9999 kB\nVmHWM:\t    2048 kB\n";
        assert_eq!(memory(status, "VmHWM"), Some(2.0));
        assert_eq!(memory(status, "VmSwap"), None);
    }

    #[test]
    fn versions_are_those_of_the_lock_file() {
        assert_eq!(version("libsqlite3-sys"), "0.37.0");
        assert_eq!(version("no-such-crate"), "");
    }
}
