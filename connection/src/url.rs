//! `DATABASE_URL` taken apart. It is only ever read: connections are opened
//! with the parts, so that no URL with a password in it is passed around.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use crate::config::{TlsMode, plain_host};
use crate::read::{not_expanded, unexpanded};
use crate::variables::nearest;

pub(crate) enum Url {
    Sqlite(String),
    Postgres(Box<Parts>),
}

pub(crate) struct Parts {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Option<SecretString>,
    pub(crate) database: String,
    pub(crate) tls: TlsParts,
}

#[derive(Default)]
pub(crate) struct TlsParts {
    pub(crate) mode: Option<TlsMode>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// Errors say what is wrong and never show a part of the URL that could be
/// the password.
pub(crate) fn parse(text: &str) -> Result<Url, String> {
    if let Some(path) = text.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        if !query.is_empty() && query != "mode=rwc" {
            return Err("has parameters that are not supported for SQLite".to_owned());
        }
        if path.is_empty() {
            return Err(
                "names no file; write sqlite://./data/aura.db or sqlite::memory:".to_owned(),
            );
        }
        let path = decoded(path)?;
        if let Some(found) = unexpanded(&path, true) {
            return Err(not_expanded(found));
        }
        return Ok(Url::Sqlite(path));
    }
    let url = ::url::Url::parse(text).map_err(|error| format!("is not a URL: {error}; a `@`, `/`, `#` or `%` in the password is written as %40, %2F, %23 or %25"))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err("is for another kind of database; use sqlite: or postgres:".to_owned());
    }
    let host = url.host_str().unwrap_or("");
    let mut parts = Parts {
        host: plain_host(&decoded(host)?).to_owned(),
        port: url.port().unwrap_or(5432),
        user: decoded(url.username())?,
        password: url
            .password()
            .map(decoded)
            .transpose()?
            .map(SecretString::from),
        database: decoded(url.path().trim_start_matches('/'))?,
        tls: TlsParts::default(),
    };
    if parts.port == 0 {
        return Err("has port 0; ports go from 1 to 65535".to_owned());
    }
    for (missing, what) in [
        (parts.host.is_empty(), "host"),
        (parts.user.is_empty(), "user"),
        (parts.database.is_empty(), "database"),
    ] {
        if missing {
            return Err(format!(
                "names no {what}; write postgres://user:password@host:5432/database"
            ));
        }
    }
    for (part, what, is_path) in [
        (&parts.host, "host", true),
        (&parts.user, "user", false),
        (&parts.database, "database", false),
    ] {
        // It may be a part of the password, so it isn't shown.
        if unexpanded(part, is_path).is_some() {
            return Err(format!(
                "its {what} names a variable, which only a shell expands; write the whole value"
            ));
        }
    }
    if parts.database.contains('/') || url.fragment().is_some() {
        return Err("has more than a database name after the host".to_owned());
    }
    let mut seen = std::collections::BTreeSet::new();
    for (name, value) in url.query_pairs() {
        // The weaker of two modes must not win because it comes last.
        if !seen.insert(name.clone()) {
            return Err("has a parameter twice; keep one of them".to_owned());
        }
        match &*name {
            "sslmode" => {
                let mode = TlsMode::ALL.iter().find(|(name, _)| *name == value);
                let (_, mode) = mode.ok_or(
                    "has an sslmode that is none of disable, prefer, require, verify-full",
                )?;
                parts.tls.mode = Some(*mode);
            }
            "sslrootcert" => parts.tls.ca = Some(readable(&value, "sslrootcert")?),
            "sslcert" => parts.tls.certificate = Some(readable(&value, "sslcert")?),
            "sslkey" => parts.tls.key = Some(readable(&value, "sslkey")?),
            other => return Err(unknown_parameter(other)),
        }
    }
    Ok(Url::Postgres(Box::new(parts)))
}

const PARAMETERS: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];

/// Parameters of other drivers, and what stands for them here.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &["schema", "currentSchema", "search_path"],
        "set DB_SCHEMA beside the URL",
    ),
    (
        &["options"],
        "leave it out: DB_SCHEMA and DB_STATEMENT_TIMEOUT beside the URL set these two, and \
         ALTER ROLE … SET any other",
    ),
    (
        &["channel_binding"],
        "leave it out: with TLS it is used where the server offers it; sslmode=verify-full makes \
         sure of the server",
    ),
    (
        &["ssl", "tls", "use_ssl"],
        "write sslmode=verify-full, or sslmode=disable for plain text",
    ),
    (
        &["application_name", "ApplicationName"],
        "set DB_APPLICATION_NAME beside the URL",
    ),
    (
        &["connect_timeout", "pool_timeout", "connectTimeout"],
        "set DB_POOL_CONNECTION_TIMEOUT, in milliseconds, beside the URL",
    ),
    (
        &["statement_timeout", "socket_timeout"],
        "set DB_STATEMENT_TIMEOUT, in milliseconds, beside the URL",
    ),
    (
        &["connection_limit", "pool_size", "max"],
        "set DB_POOL_MAX beside the URL",
    ),
    (
        &[
            "pgbouncer",
            "prepareThreshold",
            "prepared_statements",
            "statement_cache_size",
            "statement_cache_capacity",
            "statement-cache-capacity",
        ],
        "set DB_PREPARED_STATEMENTS=false beside the URL where a pooler needs it",
    ),
    (
        &["host", "hostaddr", "port", "user", "password", "dbname"],
        "write it before the `?`, or use DB_HOST, DB_PORT, DB_USER, DB_PASS and DB_NAME instead \
         of the URL",
    ),
    (
        &["passfile", "service"],
        "use DB_PASS_FILE and the other variables instead of the URL",
    ),
    (
        &["target_session_attrs", "load_balance_hosts"],
        "leave it out and name the server that takes writes",
    ),
    (
        &[
            "gssencmode",
            "sslnegotiation",
            "sslcompression",
            "sslcrl",
            "sslpassword",
            "sslsni",
            "keepalives",
            "keepalives_idle",
            "tcp_user_timeout",
            "client_encoding",
            "timezone",
        ],
        "leave it out: there is nothing to choose here",
    ),
];

/// Names only a parameter that is known: another may be a part of the password.
fn unknown_parameter(name: &str) -> String {
    let known = ELSEWHERE.iter().find_map(|(names, instead)| {
        let known = names
            .iter()
            .find(|known| known.eq_ignore_ascii_case(name))?;
        Some(format!("has the parameter {known}; {instead}"))
    });
    known.unwrap_or_else(|| {
        let near = nearest(name, PARAMETERS);
        let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        format!(
            "has a parameter that is none of {}{near}",
            PARAMETERS.join(", ")
        )
    })
}

fn readable(path: &str, what: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    crate::read::check_pem(&path).map_err(|problem| format!("its {what} {problem}"))?;
    Ok(path)
}

fn decoded(text: &str) -> Result<String, String> {
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| "has a %-escape that is not UTF-8 text")?;
    if text.chars().any(char::is_control) {
        return Err("holds a line break or another control character".to_owned());
    }
    Ok(text.into_owned())
}
