//! How the schema of a database relates to the one that this build knows.
//! Looking needs read rights only.

use std::collections::BTreeSet;
use std::fmt;

/// How the schema of a database relates to the one that this build knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing of this schema exists.
    Empty,
    /// Every step was applied, and no other.
    Current,
    /// Steps are missing.
    Behind {
        /// The missing steps, oldest first.
        pending: Vec<String>,
    },
    /// Every step was applied, and others that a newer build knows.
    Ahead {
        /// The steps that this build doesn't know.
        unknown: Vec<String>,
    },
    /// Steps are missing, and there are others that this build doesn't know:
    /// two branches have met in one database.
    Diverged {
        /// The missing steps, oldest first.
        pending: Vec<String>,
        /// The steps that this build doesn't know.
        unknown: Vec<String>,
    },
    /// There are tables with the names of this schema that its steps did not make.
    Foreign {
        /// Those tables.
        tables: Vec<String>,
    },
}

impl State {
    /// Returns the state of a database with these applied steps and tables.
    pub(super) fn of(
        known: &[&str],
        owned: &[&str],
        applied: &[String],
        tables: &BTreeSet<String>,
    ) -> Self {
        if applied.is_empty() {
            let foreign: Vec<String> = owned
                .iter()
                .filter(|table| tables.contains(**table))
                .map(|table| (*table).to_owned())
                .collect();
            return if foreign.is_empty() {
                Self::Empty
            } else {
                Self::Foreign { tables: foreign }
            };
        }
        let pending: Vec<String> = known
            .iter()
            .filter(|name| !applied.iter().any(|done| done == *name))
            .map(|name| (*name).to_owned())
            .collect();
        let unknown: Vec<String> = applied
            .iter()
            .filter(|done| !known.contains(&done.as_str()))
            .cloned()
            .collect();
        match (pending.is_empty(), unknown.is_empty()) {
            (true, true) => Self::Current,
            (false, true) => Self::Behind { pending },
            (true, false) => Self::Ahead { unknown },
            (false, false) => Self::Diverged { pending, unknown },
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the database has no schema yet"),
            Self::Current => f.write_str("the schema is up to date"),
            Self::Behind { pending } => write!(
                f,
                "the schema is behind by {} ({})",
                count(pending),
                pending.join(", "),
            ),
            Self::Ahead { unknown } => write!(
                f,
                "the schema is newer than this build by {} ({})",
                count(unknown),
                unknown.join(", "),
            ),
            Self::Diverged { pending, unknown } => write!(
                f,
                "the schema has {} that this build does not know ({}) and lacks {} ({})",
                count(unknown),
                unknown.join(", "),
                count(pending),
                pending.join(", "),
            ),
            Self::Foreign { tables } => write!(
                f,
                "the database has tables with our names ({}) that another program made",
                tables.join(", "),
            ),
        }
    }
}

fn count(steps: &[String]) -> String {
    match steps {
        [_] => "one migration".to_owned(),
        more => format!("{} migrations", more.len()),
    }
}
