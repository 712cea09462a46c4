//! `DATABASE_URL` taken apart. It is only ever read: connections are opened
//! with the parts, so that no URL with a password in it is passed around.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use crate::config::TlsMode;

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
        return Ok(Url::Sqlite(decoded(path)?));
    }
    let url = ::url::Url::parse(text).map_err(|error| format!("is not a URL: {error}; a `@`, `/`, `#` or `%` in the password is written as %40, %2F, %23 or %25"))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err("is for another kind of database; use sqlite: or postgres:".to_owned());
    }
    let host = url.host_str().unwrap_or("");
    let mut parts = Parts {
        // An IPv6 address is written in brackets only inside a URL.
        host: decoded(host.trim_start_matches('[').trim_end_matches(']'))?,
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
            _ => {
                return Err(
                    "has a parameter that is none of sslmode, sslrootcert, sslcert, sslkey"
                        .to_owned(),
                );
            }
        }
    }
    Ok(Url::Postgres(Box::new(parts)))
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
    if text.contains('\0') {
        return Err("holds a NUL character".to_owned());
    }
    Ok(text.into_owned())
}
