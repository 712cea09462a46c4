//! Variables to [`Config`]: every value is checked, and every problem is
//! collected, so that a person mends them in one go.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use crate::config::{Config, Pool, Postgres, Target, Tls, TlsMode};
use crate::describe::Setting;
use crate::environment::{Environment, Source};
use crate::error::{Error, Problem};
use crate::url;
use crate::variables::{VARIABLES, meant, nearest, variable};

/// A day; a longer timeout is a typo.
const LONGEST_MS: u64 = 86_400_000;

pub(crate) fn config(environment: &Environment) -> Result<Config, Error> {
    let mut reader = Reader {
        environment,
        problems: Vec::new(),
        warnings: Vec::new(),
        settings: Vec::new(),
    };
    reader.check_names();
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
        production: reader
            .text("AURA_ENV", "development")
            .trim()
            .eq_ignore_ascii_case("production"),
        ..Config::new(target)
    };
    if !reader.problems.is_empty() {
        return Err(Error::Config(reader.problems));
    }
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

impl Reader<'_> {
    fn problem(&mut self, name: &str, expected: impl Into<String>, suggestion: Option<String>) {
        let secret = variable(name).is_none_or(|variable| variable.secret);
        let value = self.environment.get(name).map(|(value, _)| {
            // `user:password@host` at a place where it doesn't belong.
            if secret || (value.contains(':') && value.contains('@')) {
                "***".to_owned()
            } else {
                value.to_owned()
            }
        });
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

    fn check_names(&mut self) {
        for name in self.environment.not_text() {
            if variable(name).is_some() {
                self.problem(name, "is not UTF-8 text", None);
            }
        }
        for name in self
            .environment
            .names()
            .filter(|name| name.starts_with("DB_") && variable(name).is_none())
        {
            self.warnings.push(match meant(name) {
                Some(meant) => format!(
                    "{name} is not a setting of aura-db and is ignored; did you mean {meant}?"
                ),
                None => format!("{name} is not a setting of aura-db and is ignored"),
            });
        }
    }

    /// Notes the setting as it takes effect, and gives its raw value.
    fn raw(&mut self, name: &'static str, default: &str) -> Option<String> {
        let found = self.environment.get(name);
        let (shown, source) = match found {
            Some((_, source)) if variable(name).is_none_or(|variable| variable.secret) => {
                ("***", source.clone())
            }
            Some((value, source)) => (value, source.clone()),
            None => (default, Source::Default),
        };
        if !shown.is_empty() {
            self.settings.push(Setting {
                name,
                value: shown.to_owned(),
                source,
            });
        }
        found.map(|(value, _)| value.to_owned())
    }

    fn text(&mut self, name: &'static str, default: &str) -> String {
        let value = self
            .raw(name, default)
            .unwrap_or_else(|| default.to_owned());
        if value.contains('\0') {
            self.problem(name, "holds a NUL character", None);
        }
        value
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
                let expected = format!(
                    "is not a whole number from {} to {}",
                    allowed.start(),
                    allowed.end()
                );
                self.problem(name, expected, Some(default.to_string()));
                default
            }
        }
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

    fn target(&mut self) -> Target {
        const TYPES: [(&str, bool); 3] =
            [("sqlite", false), ("postgres", true), ("postgresql", true)];
        let postgres = self.choice("DB_TYPE", "sqlite", &TYPES);
        if postgres == Some(true) {
            return Target::Postgres(Box::new(self.postgres()));
        }
        if self.has_problem("DB_TYPE") {
            // Nobody knows which kind was meant, so both are checked.
            self.postgres();
        }
        if self.environment.get("DB_TYPE").is_none() && self.environment.get("DB_HOST").is_some() {
            self.warnings.push("DB_HOST is set, but DB_TYPE is not, so SQLite is used; set DB_TYPE=postgres for PostgreSQL".to_owned());
        }
        let path = self.text("DB_PATH", "./data/aura.db");
        self.sqlite("DB_PATH", &path)
    }

    fn sqlite(&mut self, name: &str, path: &str) -> Target {
        if path == ":memory:" {
            return Target::Memory;
        }
        if path.starts_with("~/") {
            self.problem(
                name,
                "starts with `~`, which only a shell expands; write the whole path",
                None,
            );
        } else if path.starts_with("file:") || path.starts_with("sqlite:") || path.contains("://") {
            self.problem(name, "is a URL; write the path of a file", None);
        }
        Target::Sqlite {
            path: PathBuf::from(path),
        }
    }

    fn postgres(&mut self) -> Postgres {
        let host = self.text("DB_HOST", "localhost");
        if host.contains("://") || host.contains('@') {
            self.problem(
                "DB_HOST",
                "is a URL; write the host name alone, or use DATABASE_URL",
                None,
            );
        }
        let database = self.text("DB_NAME", "aura");
        if database.contains("://") {
            self.problem(
                "DB_NAME",
                "is a URL; write the database name alone, or use DATABASE_URL",
                None,
            );
        }
        Postgres {
            host,
            port: self.number("DB_PORT", 5432, 1..=65535),
            user: self.text("DB_USER", "aura"),
            password: self.password(),
            database,
            tls: self.tls(),
            ..self.postgres_session()
        }
    }

    /// The settings that don't say where the server is, at their place beside
    /// a `DATABASE_URL` too.
    fn postgres_session(&mut self) -> Postgres {
        let prepared_statements = self.flag("DB_PREPARED_STATEMENTS").unwrap_or(true);
        let Target::Postgres(mut postgres) = Config::postgres("", "", "", None).target else {
            unreachable!("Config::postgres makes a PostgreSQL target")
        };
        postgres.schema = self.text("DB_SCHEMA", "public");
        postgres.application_name = self.text("DB_APPLICATION_NAME", "aura-db");
        postgres.prepared_statements = prepared_statements;
        *postgres
    }

    fn password(&mut self) -> Option<SecretString> {
        let direct = self.raw("DB_PASS", "").map(SecretString::from);
        let file = self.raw("DB_PASS_FILE", "");
        match (direct, file) {
            (Some(_), Some(_)) => {
                self.problem(
                    "DB_PASS_FILE",
                    "is set beside DB_PASS; keep one of them",
                    None,
                );
                None
            }
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                // Editors and `echo` end the file with a line break that is
                // not part of the password.
                Ok(text) => Some(
                    text.strip_suffix('\n')
                        .map_or(text.as_str(), |text| {
                            text.strip_suffix('\r').unwrap_or(text)
                        })
                        .into(),
                ),
                Err(error) => {
                    self.problem("DB_PASS_FILE", format!("cannot be read: {error}"), None);
                    None
                }
            },
            (direct, None) => direct,
        }
    }

    fn tls(&mut self) -> Tls {
        let ssl = self.flag("DB_SSL");
        let mode = self.tls_mode("DB_SSL_MODE");
        let ca = self.pem("DB_SSL_CA");
        let (certificate, key) = (self.pem("DB_SSL_CERT"), self.pem("DB_SSL_KEY"));
        match (ssl, mode) {
            (Some(true), Some(mode)) if mode != TlsMode::VerifyFull => {
                let expected = format!(
                    "contradicts DB_SSL=true, which means verify-full; remove DB_SSL to use {}",
                    mode.name()
                );
                self.problem("DB_SSL_MODE", expected, None);
            }
            (Some(false), Some(mode)) if mode != TlsMode::Disable => {
                self.problem(
                    "DB_SSL_MODE",
                    "contradicts DB_SSL=false, which means disable; remove DB_SSL",
                    None,
                );
            }
            _ => {}
        }
        let mode = match (mode, ssl) {
            (Some(mode), _) => mode,
            (None, Some(true)) => TlsMode::VerifyFull,
            (None, Some(false)) => TlsMode::Disable,
            // Who names an authority wants the server verified by it.
            (None, None) if ca.is_some() => TlsMode::VerifyFull,
            (None, None) => TlsMode::Prefer,
        };
        self.settle_tls_mode(mode);
        self.checked_tls(mode, ca, certificate, key)
    }

    /// The report shows the mode that took effect, and what it follows from.
    fn settle_tls_mode(&mut self, mode: TlsMode) {
        let source = ["DB_SSL", "DB_SSL_CA"]
            .iter()
            .find_map(|name| self.environment.get(name))
            .map(|(_, source)| source.clone());
        let setting = self
            .settings
            .iter_mut()
            .find(|setting| setting.name == "DB_SSL_MODE" && setting.source == Source::Default);
        if let (Some(setting), Some(source)) = (setting, source) {
            mode.name().clone_into(&mut setting.value);
            setting.source = source;
        }
    }

    fn tls_mode(&mut self, name: &'static str) -> Option<TlsMode> {
        let value = self
            .environment
            .get(name)
            .map(|(value, _)| value.trim().to_ascii_lowercase());
        if let Some("verify-ca" | "allow") = value.as_deref() {
            let expected = "is not offered: it would accept more than it says; use disable, prefer, require or verify-full";
            self.problem(name, expected, Some("verify-full".to_owned()));
            return None;
        }
        self.choice(name, "prefer", &TlsMode::ALL)
    }

    /// What holds however the mode was named: no authority that is ignored, no
    /// half of a client certificate, and a word about `require`.
    fn checked_tls(
        &mut self,
        mode: TlsMode,
        ca: Option<PathBuf>,
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> Tls {
        let in_url = self.environment.get("DATABASE_URL").is_some();
        let [mode_name, ca_name, certificate_name, key_name] = if in_url {
            ["sslmode", "sslrootcert", "sslcert", "sslkey"]
        } else {
            ["DB_SSL_MODE", "DB_SSL_CA", "DB_SSL_CERT", "DB_SSL_KEY"]
        };
        let mut problem = |name: &str, expected: String| {
            if in_url {
                self.problem("DATABASE_URL", format!("its {name} {expected}"), None);
            } else {
                self.problem(name, expected, None);
            }
        };
        if ca.is_some() && mode != TlsMode::VerifyFull {
            let expected = format!(
                "would be ignored: with {} nothing is verified; use verify-full",
                mode.name()
            );
            problem(ca_name, expected);
        }
        let client = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                problem(
                    certificate_name,
                    format!("is set without {key_name}; set both"),
                );
                None
            }
            (None, Some(_)) => {
                problem(
                    key_name,
                    format!("is set without {certificate_name}; set both"),
                );
                None
            }
        };
        if mode == TlsMode::Require {
            self.warnings.push(format!(
                "{mode_name}=require encrypts but verifies nothing: anyone in between can read along; use verify-full"
            ));
        }
        Tls { mode, ca, client }
    }

    fn pem(&mut self, name: &'static str) -> Option<PathBuf> {
        let path = PathBuf::from(self.raw(name, "")?);
        if let Err(expected) = check_pem(&path) {
            self.problem(name, expected, None);
        }
        Some(path)
    }

    /// `DATABASE_URL`, alone: another project's URL must not silently win over
    /// (or lose to) the variables that somebody wrote for this one.
    fn url_target(&mut self) -> Target {
        let beside: Vec<&str> = VARIABLES
            .iter()
            .filter(|variable| variable.locates && variable.name != "DATABASE_URL")
            .map(|variable| variable.name)
            .filter(|name| self.environment.get(name).is_some())
            .collect();
        let text = self.raw("DATABASE_URL", "").unwrap_or_default();
        if !beside.is_empty() {
            let expected = format!(
                "is set beside {}; keep the URL or the variables, not both",
                beside.join(", ")
            );
            self.problem("DATABASE_URL", expected, None);
        }
        match url::parse(&text) {
            Ok(url::Url::Sqlite(path)) => self.sqlite("DATABASE_URL", &path),
            Ok(url::Url::Postgres(parts)) => {
                let mut postgres = self.postgres_session();
                let tls = &parts.tls;
                let mode = match tls.mode {
                    None if tls.ca.is_some() => TlsMode::VerifyFull,
                    mode => mode.unwrap_or_default(),
                };
                postgres.tls = self.checked_tls(
                    mode,
                    tls.ca.clone(),
                    tls.certificate.clone(),
                    tls.key.clone(),
                );
                postgres.host = parts.host;
                postgres.port = parts.port;
                postgres.user = parts.user;
                postgres.password = parts.password;
                postgres.database = parts.database;
                for (name, value) in [
                    ("DB_HOST", postgres.host.clone()),
                    ("DB_PORT", postgres.port.to_string()),
                    ("DB_USER", postgres.user.clone()),
                    ("DB_NAME", postgres.database.clone()),
                    ("DB_SSL_MODE", postgres.tls.mode.name().to_owned()),
                ] {
                    self.settings.push(Setting {
                        name,
                        value,
                        source: Source::Url,
                    });
                }
                Target::Postgres(Box::new(postgres))
            }
            Err(expected) => {
                self.problem("DATABASE_URL", expected, None);
                Target::Memory
            }
        }
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
