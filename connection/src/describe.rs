//! The report of what a connection is made of and where each setting came
//! from, for people who ask why it connected *there*.

use std::fmt;

use crate::config::{Config, Target};
use crate::environment::Source;

/// One setting as it took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The variable's name.
    pub name: &'static str,
    /// Its value, `***` for a secret.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

impl Config {
    /// The settings that took effect, each with its source, secrets hidden.
    /// Empty for a configuration made in code.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// A table of the settings, for a terminal.
    #[must_use]
    pub fn describe(&self) -> String {
        use fmt::Write;
        let irrelevant = match self.target {
            Target::Postgres(_) => "SQLite: ",
            Target::Sqlite { .. } | Target::Memory => "PostgreSQL: ",
        };
        let shown: Vec<&Setting> = self
            .settings
            .iter()
            .filter(|setting| {
                crate::variables::variable(setting.name)
                    .is_none_or(|variable| !variable.about.starts_with(irrelevant))
            })
            .collect();
        let names = shown
            .iter()
            .map(|setting| setting.name.len())
            .max()
            .unwrap_or(0);
        let values = shown
            .iter()
            .map(|setting| setting.value.chars().count())
            .max()
            .unwrap_or(0);
        let mut text = format!("{}\n", self.target_name());
        for Setting {
            name,
            value,
            source,
        } in shown
        {
            let _ = writeln!(text, "  {name:names$}  {value:values$}  {source}");
        }
        text
    }
}
