//! The settings of a runner.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::EntityTrait;

use super::entities::EntityTable;
use super::error::Error;
use super::{Migration, Runner};

/// What a [`Runner`] is made of.
pub(super) struct Settings {
    pub(super) tool: &'static str,
    pub(super) version: Option<&'static str>,
    pub(super) history: &'static str,
    pub(super) steps: Vec<Box<dyn Migration>>,
    pub(super) base: Option<Runner>,
    pub(super) apply_hint: Option<&'static str>,
    /// Of SQLite, and of PostgreSQL.
    pub(super) snapshots: Option<(&'static str, &'static str)>,
    pub(super) manifest_dir: Option<&'static str>,
    pub(super) entities: Vec<EntityTable>,
}

/// How long and how often to wait for table locks.
#[derive(Clone, Copy)]
pub(super) struct LockLimit {
    pub(super) timeout: Duration,
    pub(super) attempts: Option<u32>,
}

/// Builds a [`Runner`]. From [`Runner::builder`].
#[must_use]
pub struct RunnerBuilder {
    settings: Settings,
    lock_limit: LockLimit,
}

impl RunnerBuilder {
    pub(super) fn new() -> Self {
        let settings = Settings {
            tool: "migrate",
            version: None,
            history: "app_migrations",
            steps: Vec::new(),
            base: None,
            apply_hint: None,
            snapshots: None,
            manifest_dir: None,
            entities: Vec::new(),
        };
        Self {
            settings,
            lock_limit: LockLimit {
                timeout: Duration::from_secs(2),
                attempts: None,
            },
        }
    }

    /// Sets the command that people type, for `--help` and messages: `notes`, or
    /// `cargo run -p notes --`. Default: `migrate`.
    pub fn tool(mut self, tool: &'static str) -> Self {
        self.settings.tool = tool;
        self
    }

    /// Sets the version that `--version` prints; without it there is no such option.
    pub fn version(mut self, version: &'static str) -> Self {
        self.settings.version = Some(version);
        self
    }

    /// Sets the table that records which steps were applied, in lower case. Each schema of a
    /// database has its own. Default: `app_migrations`.
    pub fn history(mut self, history: &'static str) -> Self {
        self.settings.history = history;
        self
    }

    /// Sets the steps, oldest first.
    pub fn steps(mut self, steps: Vec<Box<dyn Migration>>) -> Self {
        self.settings.steps = steps;
        self
    }

    /// Applies the pending steps of this runner before those of the new one, in the same
    /// run, so that tables can refer to its tables. Nothing else happens to its tables:
    /// `down`, `reset`, `refresh` and `fresh` are about the steps of the new one.
    pub fn after(mut self, base: Runner) -> Self {
        self.settings.base = Some(base);
        self
    }

    /// Sets what a message says to apply pending steps with. Default: `` `TOOL up` ``.
    pub fn apply_hint(mut self, hint: &'static str) -> Self {
        self.settings.apply_hint = Some(hint);
        self
    }

    /// Sets the schemas that `check` compares with, as the command `snapshot` writes them on
    /// SQLite and on PostgreSQL:
    /// `.snapshots(include_str!("../snapshots/sqlite.json"), include_str!("../snapshots/postgres.json"))`.
    /// A backend that isn't used has an empty one.
    pub fn snapshots(mut self, sqlite: &'static str, postgres: &'static str) -> Self {
        self.settings.snapshots = Some((sqlite, postgres));
        self
    }

    /// Sets the folder of the package, `env!("CARGO_MANIFEST_DIR")`: `generate` writes to
    /// `src/migrations` in it, and `snapshot` to `snapshots`.
    pub fn manifest_dir(mut self, folder: &'static str) -> Self {
        self.settings.manifest_dir = Some(folder);
        self
    }

    /// Adds an entity whose table the steps make, in any order: `generate --from-entities`
    /// and [`Runner::entity_changes`] compare the steps with it.
    pub fn entity<E: EntityTrait>(mut self, entity: E) -> Self {
        self.settings.entities.push(EntityTable::of(&entity));
        self
    }

    /// Sets how long a statement waits for a table lock on PostgreSQL. Other statements on
    /// the table queue behind it meanwhile, so after this time the run is rolled back, lets
    /// them pass, and is tried again after a pause: a second, then twice as long each time,
    /// up to 30 s. Default: 2 s.
    ///
    /// Outside of a transaction the limit is for each statement. `CREATE INDEX CONCURRENTLY`
    /// and its like have none, because nothing queues behind them.
    pub fn lock_timeout(mut self, limit: Duration) -> Self {
        self.lock_limit.timeout = limit;
        self
    }

    /// Sets how often a run is tried whose table locks aren't granted; `None` is without
    /// end. Default: `None`.
    pub fn lock_attempts(mut self, attempts: Option<u32>) -> Self {
        self.lock_limit.attempts = attempts;
        self
    }

    /// Builds it. Settings that can't be used are an error of its methods.
    #[must_use]
    pub fn build(self) -> Runner {
        Runner {
            settings: Arc::new(self.settings),
            lock_limit: self.lock_limit,
        }
    }
}

impl Settings {
    /// Looks for what can't be run whatever the database.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let invalid = |problem: String| Err(Error::Invalid(problem));
        let usable = self
            .history
            .starts_with(|first: char| first.is_ascii_lowercase())
            && self.history.len() <= 63
            && self
                .history
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !usable {
            return invalid(format!(
                "`{}` can't be the name of a history: use lower-case letters, digits and `_`",
                self.history
            ));
        }
        let mut names = BTreeSet::new();
        let mut tables: BTreeSet<&str> = BTreeSet::new();
        for step in &self.steps {
            if !names.insert(step.name()) {
                return invalid(format!("two of them have the name {}", step.name()));
            }
            tables.extend(step.tables());
            if !step.transactional() && step.data().is_some() {
                return invalid(format!(
                    "{} has Rust code, which needs a transaction, and is marked as not transactional",
                    step.name()
                ));
            }
            if step.transactional() && step.batches().is_some() {
                return invalid(format!(
                    "{} changes rows in batches, each in a transaction of its own, and isn't marked as not transactional",
                    step.name()
                ));
            }
        }
        self.validate_entities()?;
        let Some(base) = &self.base else {
            return Ok(());
        };
        if base.settings.history == self.history {
            return invalid(format!(
                "{} and {} have the same history, {}",
                self.tool, base.settings.tool, self.history
            ));
        }
        if let Some(table) = base
            .tables()
            .into_iter()
            .find(|table| tables.contains(table))
        {
            return invalid(format!(
                "the table {table} is one of {}",
                base.settings.tool
            ));
        }
        base.settings.validate()
    }

    fn validate_entities(&self) -> Result<(), Error> {
        let mut names = BTreeSet::new();
        for EntityTable { name, schema, .. } in &self.entities {
            let problem = if !names.insert(name) {
                format!("two entities have the table {name}")
            } else if let Some(schema) = schema {
                format!(
                    "the entity of {name} names the schema {schema}; leave it out, because DB_SCHEMA says where tables are"
                )
            } else if let Some(owner) = self.base.as_ref().and_then(|base| base.owner(name)) {
                format!("the table {name} of an entity is one of {owner}")
            } else {
                continue;
            };
            return Err(Error::Invalid(problem));
        }
        Ok(())
    }

    /// Returns a folder or file of the package.
    #[cfg_attr(
        not(feature = "cli"),
        allow(dead_code, reason = "only the command line writes files")
    )]
    pub(super) fn path(&self, below: &str) -> Result<PathBuf, Error> {
        let folder = self.manifest_dir.ok_or(Error::NoFolder(self.tool))?;
        Ok(PathBuf::from(folder).join(below))
    }
}
