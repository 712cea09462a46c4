//! The environment: real variables and the `.env` file, with the place that
//! each value came from. Nothing else in the workspace reads either.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use crate::dotenv;
use crate::error::Error;
use crate::variables::variable;

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A real environment variable.
    Environment,
    /// A line of this `.env` file.
    File(PathBuf),
    /// A part of `DATABASE_URL`.
    Url,
    /// Nobody set it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url => f.write_str("DATABASE_URL"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A snapshot of the variables that aura-db may read.
///
/// Any of them may be a secret, so all values are kept as one.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    values: BTreeMap<String, (SecretString, Source)>,
    not_text: Vec<String>,
}

impl Environment {
    /// The process's environment, completed by the first `.env` file found in
    /// the working directory or above it. Real variables win over the file.
    ///
    /// Fails when the file can't be read or has a malformed line.
    pub fn load() -> Result<Self, Error> {
        let mut environment = match std::env::current_dir()
            .ok()
            .as_deref()
            .and_then(find_dotenv)
        {
            Some(path) => Self::from_file(&path)?,
            None => Self::default(),
        };
        environment.add_process(std::env::vars_os());
        Ok(environment)
    }

    /// An environment of just these variables, as tests and embedders want it.
    #[must_use]
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in pairs {
            environment.insert(name.to_owned(), value.to_owned(), Source::Environment);
        }
        environment
    }

    /// An environment of just the variables in this `.env` file.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::DotenvUnreadable {
            path: path.to_owned(),
            source,
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            // Only the position is told: the bytes may belong to a secret.
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + before
                .split(|byte| *byte == b'\n')
                .count()
                .saturating_sub(1);
            Error::DotenvMalformed {
                path: path.to_owned(),
                line,
                what: "not UTF-8 text",
            }
        })?;
        let pairs = dotenv::parse(&text).map_err(|malformed| Error::DotenvMalformed {
            path: path.to_owned(),
            line: malformed.line,
            what: malformed.what,
        })?;
        let mut environment = Self::default();
        for (name, value) in pairs {
            environment.insert(name, value, Source::File(path.to_owned()));
        }
        Ok(environment)
    }

    fn add_process(&mut self, variables: impl Iterator<Item = (OsString, OsString)>) {
        for (name, value) in variables {
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => self.insert(name, value, Source::Environment),
                Err(_) => self.not_text.push(name),
            }
        }
    }

    /// An empty value counts as unset: Docker Compose passes unset variables
    /// on as empty ones, and no setting has a meaningful empty value. A real
    /// variable that is empty still hides the file's line, as with dotenv.
    ///
    /// Secrets that are read from files end with line breaks, which belong to no setting.
    fn insert(&mut self, name: String, mut value: String, source: Source) {
        if variable(&name).is_some() {
            value.truncate(value.trim_end_matches(['\r', '\n']).len());
        }
        if value.is_empty() {
            self.values.remove(&name);
        } else {
            self.values.insert(name, (value.into(), source));
        }
    }

    /// The value and source of a variable, unless it is unset or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<(&str, &Source)> {
        self.values
            .get(name)
            .map(|(value, source)| (value.expose_secret(), source))
    }

    /// The value of a variable that holds a secret.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<SecretString> {
        self.values.get(name).map(|(value, _)| value.clone())
    }

    /// The names that are set, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Names whose value is not UTF-8 text.
    pub(crate) fn not_text(&self) -> &[String] {
        &self.not_text
    }
}

fn find_dotenv(start: &Path) -> Option<PathBuf> {
    start
        .ancestors()
        .map(|folder| folder.join(".env"))
        .find(|path| path.is_file())
}
