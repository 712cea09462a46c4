//! Variables to [`Config`]: every value is checked, and every problem is
//! collected, so that a person mends them in one go.

mod oddity;
mod target;

pub(crate) use oddity::{not_expanded, password_refusal, unexpanded};
pub(crate) use target::password_in;

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::config::{Config, Pool};
use crate::describe::Setting;
use crate::environment::{Environment, Source};
use crate::error::{Error, Problem};
use crate::variables::{VARIABLES, Variable, meant, nearest, variable};

/// What the variables of the TypeORM package's query cache begin with.
const OF_THE_CACHE: &str = "DB_CACHE_";

/// A day; a longer timeout is a typo.
const LONGEST_MS: u64 = 86_400_000;

pub(crate) fn config(environment: &Environment) -> Result<Config, Error> {
    let mut reader = Reader {
        environment,
        problems: Vec::new(),
        warnings: Vec::new(),
        settings: Vec::new(),
    };
    reader.check_text();
    reader.check_seed();
    let target = if environment.get("DATABASE_URL").is_some() {
        reader.url_target()
    } else {
        reader.target()
    };
    let max = reader.number("DB_POOL_MAX", 10, 1..=1000);
    let max_is_good = !reader.has_problem("DB_POOL_MAX");
    let min = reader.number("DB_POOL_MIN", 0, 0..=1000);
    if min > max && max_is_good {
        reader.problem(
            "DB_POOL_MIN",
            format!("is more than DB_POOL_MAX, which is {max}"),
            Some(max.to_string()),
        );
    }
    let pool = Pool {
        max,
        min,
        idle_timeout: reader.timeout("DB_POOL_IDLE_TIMEOUT", 300_000),
        connection_timeout: Duration::from_millis(reader.number(
            "DB_POOL_CONNECTION_TIMEOUT",
            10_000,
            1..=LONGEST_MS,
        )),
    };
    let mut config = Config {
        pool,
        statement_timeout: reader.timeout("DB_STATEMENT_TIMEOUT", 60_000),
        slow_query: reader.timeout("DB_SLOW_QUERY", 1000),
        connect_retries: reader.number("DB_CONNECT_RETRIES", 5, 0..=100),
        logging: reader.flag("DB_LOGGING").unwrap_or(false),
        synchronize: reader.flag("DB_SYNCHRONIZE").unwrap_or(false),
        production: reader.production(),
        ..Config::new(target)
    };
    let misspelt = reader.misspelt();
    if !reader.problems.is_empty() {
        // Who mends the one will want to know of the other.
        reader.problems.extend(misspelt);
        return Err(Error::Config(reader.problems));
    }
    let ignored = misspelt.iter().map(ToString::to_string);
    let ignored: Vec<_> = ignored.chain(reader.no_cache()).collect();
    reader.warnings.splice(0..0, ignored);
    config.settings = reader.settings;
    config.warnings = reader.warnings;
    Ok(config)
}

struct Reader<'a> {
    environment: &'a Environment,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    settings: Vec<Setting>,
}

/// A value as it may be shown. A `user:password@host` may stand where it doesn't
/// belong, and somebody who takes `DB_PASS_FILE` for the password itself writes
/// no path there.
fn shown<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    let is_secret = variable(name).is_none_or(|variable| variable.secret)
        || (value.contains(':') && value.contains('@'))
        || (name == "DB_PASS_FILE" && !value.contains(['/', '\\', '.']));
    if is_secret {
        Cow::Borrowed("***")
    } else if value.chars().any(char::is_control) {
        // They could move what a terminal shows.
        Cow::Owned(value.escape_debug().to_string())
    } else {
        Cow::Borrowed(value)
    }
}

impl Reader<'_> {
    fn problem(&mut self, name: &str, expected: impl Into<String>, suggestion: Option<String>) {
        let value = self
            .environment
            .get(name)
            .map(|(value, _)| shown(name, value).into_owned());
        self.problems.push(Problem {
            variable: name.to_owned(),
            value,
            expected: expected.into(),
            suggestion,
        });
    }

    fn has_problem(&self, name: &str) -> bool {
        self.problems.iter().any(|problem| problem.variable == name)
    }

    fn check_text(&mut self) {
        for name in self.environment.not_text() {
            if variable(name).is_some() {
                self.problem(name, "is not UTF-8 text", None);
            }
        }
    }

    /// Checks the variables that `seed` reads, as far as any variable is checked.
    fn check_seed(&mut self) {
        for variable in VARIABLES.iter().filter(|one| one.name.starts_with("SEED_")) {
            self.check_value(variable);
        }
    }

    /// Refuses a value that no setting has. Returns whether it was refused.
    fn check_value(&mut self, variable: &Variable) -> bool {
        let Some((value, source)) = self.environment.get(variable.name) else {
            return false;
        };
        let refusal = oddity::refusal(variable, value, source);
        self.warnings
            .extend(oddity::warning(variable, value, source));
        let refused = refusal.is_some();
        if let Some(refusal) = refusal {
            self.problem(variable.name, refusal, None);
        }
        refused
    }

    /// Names that look like ours and are not.
    fn misspelt(&self) -> Vec<Problem> {
        let is_of_a_service = |name: &str| {
            let value = self.environment.get(name);
            value.is_some_and(|(value, _)| oddity::is_of_a_service(name, value))
        };
        self.environment
            .names()
            .filter(|name| name.starts_with("DB_") && variable(name).is_none())
            .filter(|name| !name.starts_with(OF_THE_CACHE) && !is_of_a_service(name))
            .map(|name| Problem {
                variable: name.to_owned(),
                value: None,
                expected: "is not a setting of aura-db and is ignored".to_owned(),
                suggestion: meant(name).map(str::to_owned),
            })
            .collect()
    }

    /// The old package's cache is gone, and its variables do no harm.
    fn no_cache(&self) -> impl Iterator<Item = String> {
        self.environment
            .names()
            .filter(|name| name.starts_with(OF_THE_CACHE))
            .map(|name| {
                format!(
                    "{name} has no effect: aura-db has no cache, so that no deleted row is served"
                )
            })
    }

    /// Notes the setting as it takes effect, and gives its raw value; `None` when it isn't
    /// set, or was refused.
    fn raw(&mut self, name: &'static str, default: &str) -> Option<String> {
        let found = self.environment.get(name);
        let (shown, source) = match found {
            Some((value, source)) => (shown(name, value), source.clone()),
            None => (Cow::Borrowed(default), Source::Default),
        };
        if !shown.is_empty() {
            self.settings.push(Setting {
                name,
                value: shown.into_owned(),
                source,
            });
        }
        if variable(name).is_some_and(|variable| self.check_value(variable)) {
            return None;
        }
        found.map(|(value, _)| value.to_owned())
    }

    fn text(&mut self, name: &'static str, default: &str) -> String {
        self.raw(name, default)
            .unwrap_or_else(|| default.to_owned())
    }

    fn number<N>(&mut self, name: &'static str, default: N, allowed: RangeInclusive<N>) -> N
    where
        N: Copy + PartialOrd + Display + std::str::FromStr,
    {
        let Some(value) = self.raw(name, &default.to_string()) else {
            return default;
        };
        match value.trim().parse() {
            Ok(number) if allowed.contains(&number) => number,
            _ => {
                let (least, most) = (allowed.start(), allowed.end());
                let expected = format!("is not a whole number from {least} to {most}");
                let nearest = match value.trim().parse::<f64>() {
                    Ok(number) if number < 1.0 => least.to_string(),
                    Ok(number) if number > 1.0 && number.fract() == 0.0 => most.to_string(),
                    _ => default.to_string(),
                };
                self.problem(name, expected, Some(nearest));
                default
            }
        }
    }

    fn production(&mut self) -> bool {
        let value = self.text("AURA_ENV", "development");
        let word = value.trim().to_ascii_lowercase();
        // Whoever writes `prod` means it.
        let production = word == "production" || word == "prod";
        if !production && nearest(&word, ["production"]).is_some() {
            self.warnings.push(format!(
                "AURA_ENV={value} is not `production`, so the tools don't ask for --force; did you mean `production`?"
            ));
        }
        production
    }

    /// Milliseconds; 0 means never.
    fn timeout(&mut self, name: &'static str, default: u64) -> Option<Duration> {
        let ms = self.number(name, default, 0..=LONGEST_MS);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    fn flag(&mut self, name: &'static str) -> Option<bool> {
        let default = variable(name).map_or("", |variable| variable.default);
        let value = self.raw(name, default)?;
        match value.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            other => {
                let near = nearest(other, ["true", "false"]).map(str::to_owned);
                self.problem(name, "is neither `true` nor `false`", near);
                None
            }
        }
    }

    fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        default: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let value = self.raw(name, default)?.trim().to_ascii_lowercase();
        let found = choices
            .iter()
            .find(|(choice, _)| *choice == value)
            .map(|(_, chosen)| *chosen);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
            let near = nearest(&value, names.iter().copied()).map(str::to_owned);
            self.problem(name, format!("is none of {}", names.join(", ")), near);
        }
        found
    }
}

/// The driver skips whatever is not PEM without a word, and a certificate that
/// it skipped shows as a server that nobody trusts.
pub(crate) fn check_pem(path: &Path) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    if String::from_utf8_lossy(&bytes).contains("-----BEGIN ") {
        Ok(())
    } else {
        Err("is not a PEM file (it has no -----BEGIN line)".to_owned())
    }
}
