//! Whether a config fits a plugin's JSON Schema. Neither is trusted.
//!
//! Guaranteed for every schema and config:
//!
//! * nothing is read from files or the network: `$ref` goes to `#` or `#/…`;
//! * no stack overflows: depths are limited, and the work runs on a thread of
//!   16 times the stack that the worst schemas in our tests took;
//! * the work is bounded. What `jsonschema` would do is counted first, and what
//!   costs more than [`BUDGET`] is refused with [`SchemaProblem::TooComplex`].
//!   [`WAIT`] and [`TIME`] bound how long a caller waits in any case;
//! * a problem names keys of the config, never its values.
//!
//! All drafts from 4 on, without what makes the work hard to bound: `$dynamicRef`,
//! `$recursiveRef`, `unevaluated…`, anchors, nested `$id`s, look-around in patterns,
//! and a `$ref` that comes back to itself without going down into the config.
//! `format` is checked, except `regex`.

mod cost;
#[cfg(test)]
mod tests;

use std::{fmt, thread, time::Duration};

use jsonschema::{PatternOptions, ValidationError, Validator, error::ValidationErrorKind};
use serde::Serialize;
use serde_json::Value;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use self::cost::Graph;

/// Bytes of a schema, as JSON text (within a few per cent).
pub const SCHEMA_BYTES: u64 = 256 * 1024;
/// Bytes of a config, as JSON text (within a few per cent).
pub const CONFIG_BYTES: u64 = 1024 * 1024;
/// Arrays and objects within each other, in a schema and in a config.
pub const DEPTH: usize = 128;
/// What checking a config may cost; a unit is at worst about 1 µs and 64 bytes.
pub const BUDGET: u64 = 4_000_000;
/// Problems reported of one config.
pub const PROBLEMS: usize = 100;
/// How long a check waits while others run, before [`SchemaProblem::Busy`].
pub const WAIT: Duration = Duration::from_secs(5);
/// How long a check may take, before [`SchemaProblem::TooSlow`].
pub const TIME: Duration = Duration::from_secs(10);

/// Bytes of what a pattern compiles to.
const REGEX_BYTES: usize = 64 * 1024;
/// The stack of a check.
const STACK: usize = 64 * 1024 * 1024;
/// Characters of a path or message in a problem.
const TEXT: usize = 500;
/// Checks that run at once.
static ROOM: Semaphore = Semaphore::const_new(2);

/// One thing that is wrong with a config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigProblem {
    /// Where, as a JSON pointer into the config; empty for the whole config.
    pub path: String,
    /// What is wrong, without the value.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Why a config could not be checked. Paths are JSON pointers into the schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaProblem {
    /// The schema or the config has too many bytes.
    #[error("the {0} is larger than {1} bytes: make it smaller")]
    TooLarge(&'static str, u64),
    /// The schema or the config is nested too deeply.
    #[error("the {0} is nested deeper than {DEPTH} levels: make it flatter")]
    TooDeep(&'static str),
    /// This path refers to something outside the schema.
    #[error(
        "{0} of the schema refers to something outside it: copy that to $defs, and use #/$defs/…"
    )]
    External(String),
    /// The schema at this path includes itself at the same place of the config.
    #[error("{0} of the schema includes itself without end: recurse through properties or items")]
    Recursive(String),
    /// This keyword is not supported; what to do instead.
    #[error("{0} of the schema is not supported: {1}")]
    Unsupported(String, &'static str),
    /// It is not a JSON Schema.
    #[error("{path} of the schema is invalid: {message}; correct the schema")]
    Invalid {
        /// Where.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// Checking this would take too much work.
    #[error("{0}: too much work to check; simplify the schema, or shorten the config")]
    TooComplex(&'static str),
    /// The check did not end in time.
    #[error("the check took too long: simplify the schema, or shorten the config")]
    TooSlow,
    /// Other checks take all the room.
    #[error("too many checks are running: try again later")]
    Busy,
    /// No thread could be started, or `jsonschema` panicked.
    #[error("the check failed: try again, and report it if it fails again")]
    Failed,
}

use SchemaProblem::{Failed, Invalid};
type Result<T, E = SchemaProblem> = std::result::Result<T, E>;

/// A schema that [`compile`] accepted.
#[derive(Debug, Clone)]
pub(crate) struct Checker(Value);

/// Refuses a schema that can't be used. Blocks, for milliseconds.
pub(crate) fn compile(schema: &Value) -> Result<Checker> {
    measure(schema, "schema", SCHEMA_BYTES)?;
    on_own_stack(|| prepare(schema).map(|_| Checker(schema.clone())))
}

impl Checker {
    /// What is wrong with `config`. Blocks, in the worst case for seconds.
    pub(crate) fn check(&self, config: &Value) -> Result<Vec<ConfigProblem>> {
        measure(config, "config", CONFIG_BYTES)?;
        // Compiled again, since dropping a validator can take a large stack, too.
        on_own_stack(|| {
            let (graph, validator) = prepare(&self.0)?;
            cost::afford(&graph, config)?;
            Ok(validator
                .iter_errors(config)
                .take(PROBLEMS)
                .map(|e| problem(&e))
                .collect())
        })
    }
}

/// What is wrong with `config`: nothing, if it fits `schema`. See the module for
/// what is guaranteed. A check that is given up after [`TIME`] ends by itself.
pub async fn check(schema: Value, config: Value) -> Result<Vec<ConfigProblem>> {
    let fits = measure(&schema, "schema", SCHEMA_BYTES);
    if let Err(problem) = fits.and(measure(&config, "config", CONFIG_BYTES)) {
        dismantle(vec![schema, config]);
        return Err(problem);
    }
    let room = timeout(WAIT, ROOM.acquire()).await;
    let room = room
        .ok()
        .and_then(std::result::Result::ok)
        .ok_or(SchemaProblem::Busy)?;
    let work = spawn_blocking(move || {
        let _room = room; // until the work ends, not until the caller gives up
        Checker(schema).check(&config)
    });
    let done = timeout(TIME, work)
        .await
        .map_err(|_| SchemaProblem::TooSlow)?;
    done.map_err(|_| Failed)?
}

/// Refuses a schema that can't be used, without blocking.
pub(crate) async fn examine(schema: Value) -> Result<()> {
    let work = spawn_blocking(move || compile(&schema).map(|_| ()));
    work.await.map_err(|_| Failed)?
}

fn on_own_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, work);
        thread.map_err(|_| Failed)?.join().map_err(|_| Failed)?
    })
}

/// The bytes of a value, without recursion: it may be of any depth.
fn measure(value: &Value, what: &'static str, limit: u64) -> Result<u64> {
    let (mut todo, mut bytes) = (vec![(value, 0)], 0);
    while let Some((value, depth)) = todo.pop() {
        bytes += 3;
        match value {
            Value::String(text) => bytes += text.len() as u64,
            Value::Number(_) => bytes += 5,
            Value::Array(items) => todo.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(map) => {
                bytes += map.keys().map(|key| key.len() as u64 + 3).sum::<u64>();
                todo.extend(map.values().map(|item| (item, depth + 1)));
            }
            _ => {}
        }
        if depth > DEPTH {
            return Err(SchemaProblem::TooDeep(what));
        }
        if bytes > limit {
            return Err(SchemaProblem::TooLarge(what, limit));
        }
    }
    Ok(bytes)
}

/// What reading or copying it costs.
fn weight(value: &Value) -> u64 {
    measure(value, "", u64::MAX).map_or(u64::MAX, |bytes| 1 + bytes / 8)
}

/// Drops values of any depth; their own `drop` recurses.
fn dismantle(mut todo: Vec<Value>) {
    while let Some(value) = todo.pop() {
        match value {
            Value::Array(items) => todo.extend(items),
            Value::Object(map) => todo.extend(map.into_iter().map(|(_, item)| item)),
            _ => {}
        }
    }
}

/// A value that may be of any depth, until it is measured.
pub(crate) struct AnyDepth(pub(crate) Value);

impl AnyDepth {
    pub(crate) fn take(mut self) -> Value {
        self.0.take()
    }
}

impl Drop for AnyDepth {
    fn drop(&mut self) {
        dismantle(vec![self.0.take()]);
    }
}

fn prepare(schema: &Value) -> Result<(Graph, Validator)> {
    let graph = Graph::new(schema)?;
    let mut own = schema.clone();
    if let Value::Object(map) = &mut own {
        // With another base than the default one, `#/…` could mean another document.
        map.retain(|key, _| !matches!(key.as_str(), "$schema" | "$id" | "id"));
    }
    let patterns = PatternOptions::regex()
        .size_limit(REGEX_BYTES)
        .dfa_size_limit(REGEX_BYTES * 4);
    let options = jsonschema::options().offline().with_draft(graph.draft);
    // Formats: compiling a regular expression that the config has would have no bound.
    let options = options
        .should_validate_formats(true)
        .with_format("regex", |_| true);
    let validator = options.with_pattern_options(patterns).build(&own);
    let invalid = |error: ValidationError<'_>| {
        let is_regex =
            matches!(error.kind(), ValidationErrorKind::Format { format } if format == "regex");
        let message = if is_regex {
            "not a regular expression, too large, or with look-around or back-references".into()
        } else {
            shorten(&error.to_string())
        };
        Invalid {
            path: shorten(error.instance_path().as_str()),
            message,
        }
    };
    Ok((graph, validator.map_err(invalid)?))
}

fn problem(error: &ValidationError<'_>) -> ConfigProblem {
    let mut message = error.masked().to_string();
    if let ValidationErrorKind::PropertyNames { error } = error.kind() {
        message = format!("a key is not allowed: {}", error.masked()); // not masked, else
    }
    let path = shorten(error.instance_path().as_str());
    ConfigProblem {
        path,
        message: shorten(&message),
    }
}

fn shorten(text: &str) -> String {
    let end = text.char_indices().nth(TEXT);
    end.map_or_else(|| text.to_owned(), |(end, _)| format!("{}…", &text[..end]))
}
