//! What can go wrong on the way to a database, and what to do about it.

use std::fmt;
use std::path::PathBuf;

/// A problem with one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The variable.
    pub variable: String,
    /// Its value, unless it is a secret or was missing.
    pub value: Option<String>,
    /// What is wrong and what is allowed.
    pub expected: String,
    /// The nearest right value.
    pub suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.variable)?;
        if let Some(value) = &self.value {
            write!(f, "={value}")?;
        }
        write!(f, ": {}", self.expected)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " (did you mean `{suggestion}`?)"),
            None => Ok(()),
        }
    }
}

/// A connection that could not be configured or opened.
///
/// `Display` says what happened, which setting or file it is about, and what
/// to do next; the driver's own error is in `source()` and is not repeated.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// One or more variables have values that can't be used. All of them.
    #[error("{} not usable:{}", count(.0), list(.0))]
    Config(Vec<Problem>),
    /// The `.env` file can't be read.
    #[error("cannot read {}: check its permissions, or remove it", path.display())]
    DotenvUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line of the `.env` file is no assignment. The line itself is not
    /// shown, because it may hold a secret.
    #[error("{} line {line}: {what}; write NAME=value, and quote values with spaces or `#`", path.display())]
    DotenvMalformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The database can't be reached now; it may be later.
    #[error("cannot reach {target}: {reason}. {hint}")]
    Unavailable {
        /// What it tried to connect to, without secrets.
        target: String,
        /// What happened.
        reason: String,
        /// What to do next.
        hint: String,
        /// The driver's error.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The database, or the file, says no. Trying again will not help.
    #[error("cannot open {target}: {reason}. {hint}")]
    Refused {
        /// What it tried to connect to, without secrets.
        target: String,
        /// What happened.
        reason: String,
        /// What to do next.
        hint: String,
        /// The driver's error.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

fn count(problems: &[Problem]) -> String {
    match problems {
        [_] => "one setting is".to_owned(),
        more => format!("{} settings are", more.len()),
    }
}

fn list(problems: &[Problem]) -> String {
    use std::fmt::Write;
    problems.iter().fold(String::new(), |mut text, problem| {
        let _ = write!(text, "\n  {problem}");
        text
    })
}

/// The causes of an error, outermost first, each in its own words. A cause
/// that only repeats what was said before it is left out.
#[must_use]
pub fn causes(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    let mut told = error.to_string();
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        source = cause.source();
        let text = cause.to_string();
        let news = own_words(&text);
        if !told.contains(news) {
            told.push_str(news);
            causes.push(news.to_owned());
        }
    }
    causes
}

/// Returns the innermost cause of an error, or the error, in its own words.
#[must_use]
pub fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    own_words(&cause.to_string()).to_owned()
}

/// Cuts off the title that sqlx puts before its cause, and the line of PostgreSQL's own
/// source that it appends: it says nothing about the statement.
fn own_words(text: &str) -> &str {
    let message = match text.rsplit_once("error returned from database: ") {
        Some((_, message)) => message,
        None => text,
    };
    match message.rsplit_once(" at line ") {
        Some((message, line)) if line.bytes().all(|digit| digit.is_ascii_digit()) => message,
        _ => message,
    }
}

/// `Debug` for errors that `main` returns or a log records: what `Display` says
/// and the causes. A derived one would print the driver's error whole, and
/// PostgreSQL's holds the row that a constraint refused, hashes included.
#[macro_export]
macro_rules! debug_as_display {
    ($error:ty) => {
        impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{self}")?;
                for cause in $crate::causes(self) {
                    write!(f, "\n  because: {cause}")?;
                }
                Ok(())
            }
        }
    };
}

debug_as_display!(Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Cause(&'static str, #[source] Option<Box<Cause>>);

    #[test]
    fn a_line_of_the_servers_source_is_no_cause() {
        for (text, told) in [
            (
                "Execution Error: error returned from database: permission denied for schema public at line 3655",
                "permission denied for schema public",
            ),
            ("permission denied at line 12", "permission denied"),
            (
                "expected value at line 1 column 2",
                "expected value at line 1 column 2",
            ),
        ] {
            let error = Cause("it failed", Some(Box::new(Cause(text, None))));
            assert_eq!(causes(&error), [told]);
            assert_eq!(root_cause(&error), told);
        }
    }
}
