//! Which database the variables name, and how it is reached.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::{Reader, check_pem, password_refusal, unexpanded};
use crate::config::{Config, Postgres, Target, Tls, TlsMode, plain_host};
use crate::describe::Setting;
use crate::environment::Source;
use crate::url;
use crate::variables::VARIABLES;

const ANOTHER_PASSWORD: &str = "choose another with ALTER ROLE … PASSWORD";

impl Reader<'_> {
    pub(super) fn target(&mut self) -> Target {
        const TYPES: [(&str, bool); 3] =
            [("sqlite", false), ("postgres", true), ("postgresql", true)];
        let postgres = self.choice("DB_TYPE", "sqlite", &TYPES);
        if postgres == Some(true) {
            return Target::Postgres(Box::new(self.postgres()));
        }
        if self.has_problem("DB_TYPE") {
            // Nobody knows which kind was meant, so both are checked.
            self.postgres();
        } else {
            self.check_unused_postgres();
        }
        if self.environment.get("DB_TYPE").is_none() {
            let telling = ["DB_HOST", "DB_NAME", "DB_USER", "DB_PASS", "DB_PASS_FILE"];
            let set = telling
                .into_iter()
                .find(|name| self.environment.get(name).is_some());
            self.warnings.extend(set.map(|name| {
                format!("{name} is set, but DB_TYPE is not, so SQLite is used; set DB_TYPE=postgres for PostgreSQL")
            }));
        }
        let path = self.text("DB_PATH", "./data/aura.db");
        self.sqlite("DB_PATH", &path)
    }

    /// Bad values that have no effect on SQLite are no errors, and no secret:
    /// they would be errors the day that somebody changes `DB_TYPE`.
    fn check_unused_postgres(&mut self) {
        let (problems, warnings, settings) = (
            self.problems.len(),
            self.warnings.len(),
            self.settings.len(),
        );
        self.postgres();
        self.settings.truncate(settings);
        self.warnings.truncate(warnings);
        let unused = self.problems.split_off(problems);
        self.warnings.extend(
            unused
                .into_iter()
                .map(|problem| format!("{problem}; it has no effect, because SQLite is used")),
        );
    }

    fn sqlite(&mut self, name: &str, path: &str) -> Target {
        if path == ":memory:" {
            return Target::Memory;
        }
        if path.starts_with("file:") || path.starts_with("sqlite:") || path.contains("://") {
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
        let port = self.number("DB_PORT", 5432, 1..=65535);
        let user = self.text("DB_USER", "aura");
        let (password, password_file) = self.password();
        Postgres {
            host: plain_host(&host).to_owned(),
            port,
            user,
            password,
            password_file,
            database,
            tls: self.tls(),
            ..self.postgres_session()
        }
    }

    /// The settings that don't say where the server is, at their place beside
    /// a `DATABASE_URL` too.
    fn postgres_session(&mut self) -> Postgres {
        let prepared_statements = self.flag("DB_PREPARED_STATEMENTS").unwrap_or(true);
        if !prepared_statements {
            self.warnings.push(
                "DB_PREPARED_STATEMENTS=false sends no start-up options: DB_STATEMENT_TIMEOUT has no effect, and the \
                 time limits are those of the role (ALTER ROLE … SET statement_timeout)"
                    .to_owned(),
            );
        }
        let Target::Postgres(mut postgres) = Config::postgres("", "", "", None).target else {
            unreachable!("Config::postgres makes a PostgreSQL target")
        };
        postgres.schema = self.text("DB_SCHEMA", "public");
        postgres.application_name = self.text("DB_APPLICATION_NAME", "aura-db");
        postgres.prepared_statements = prepared_statements;
        *postgres
    }

    /// The password, and the file that it stands in.
    fn password(&mut self) -> (Option<SecretString>, Option<PathBuf>) {
        let direct = self.raw("DB_PASS", "");
        if let Some(refusal) = direct.as_deref().and_then(password_refusal) {
            self.problem("DB_PASS", format!("{refusal}; {ANOTHER_PASSWORD}"), None);
        }
        let direct = direct.map(SecretString::from);
        let Some(file) = self.raw("DB_PASS_FILE", "").map(PathBuf::from) else {
            return (direct, None);
        };
        if direct.is_some() {
            let problem = "is set beside DB_PASS; keep one of them";
            self.problem("DB_PASS_FILE", problem, None);
            return (None, None);
        }
        match password_in(&file) {
            Ok(password) => (Some(password), Some(file)),
            Err(problem) => {
                self.problem("DB_PASS_FILE", problem, None);
                (None, None)
            }
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
        let Some(path) = self.raw(name, "").map(PathBuf::from) else {
            // One that was refused isn't missed too.
            return self.environment.get(name).map(|(path, _)| path.into());
        };
        if let Err(expected) = check_pem(&path) {
            self.problem(name, expected, None);
        }
        Some(path)
    }

    /// `DATABASE_URL`, alone: another project's URL must not silently win over
    /// (or lose to) the variables that somebody wrote for this one.
    pub(super) fn url_target(&mut self) -> Target {
        let beside: Vec<&str> = VARIABLES
            .iter()
            .filter(|variable| variable.locates && variable.name != "DATABASE_URL")
            .map(|variable| variable.name)
            .filter(|name| self.environment.get(name).is_some())
            .collect();
        let text = self.raw("DATABASE_URL", "");
        if !beside.is_empty() {
            let expected = format!(
                "is set beside {}; keep the URL or the variables, not both",
                beside.join(", ")
            );
            self.problem("DATABASE_URL", expected, None);
        }
        // What was refused has its problem.
        let Some(text) = text else {
            return Target::Memory;
        };
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
                self.check_url_password(postgres.password.as_ref());
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

    fn check_url_password(&mut self, password: Option<&SecretString>) {
        let Some(password) = password.map(ExposeSecret::expose_secret) else {
            return;
        };
        if let Some(refusal) = password_refusal(password) {
            let expected = format!("its password {refusal}; {ANOTHER_PASSWORD}");
            self.problem("DATABASE_URL", expected, None);
        } else if unexpanded(password, false) == Some(password) {
            self.warnings.push(
                "the password in DATABASE_URL looks like a variable that wasn't expanded, and is taken as it is written"
                    .to_owned(),
            );
        }
    }
}

/// Reads the password that a file holds. Editors and `echo` end it with line breaks that
/// are not part of the password.
///
/// # Errors
///
/// What is wrong with the file, as the rest of a sentence.
pub(crate) fn password_in(file: &Path) -> Result<SecretString, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err("names a file without a password in it".to_owned());
    }
    match password_refusal(password) {
        Some(refusal) => Err(format!(
            "names a file whose password {refusal}; {ANOTHER_PASSWORD}"
        )),
        None => Ok(password.into()),
    }
}
