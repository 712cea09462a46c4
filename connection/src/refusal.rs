//! Why PostgreSQL isn't reached or doesn't let a session in, and which setting to change.

use std::io::ErrorKind;

use secrecy::ExposeSecret;

use crate::config::{Config, Postgres, Target};
use crate::error::Error;
use crate::read::password_refusal;

pub(crate) fn silent(config: &Config) -> Error {
    Error::Unavailable {
        target: config.target_name(),
        reason: format!("no answer within {} ms", config.pool.connection_timeout.as_millis()),
        hint: "Check DB_HOST, DB_PORT and the firewall between; DB_POOL_CONNECTION_TIMEOUT is the limit.".to_owned(),
        source: None,
    }
}

/// In Docker Compose a name is unknown until its container has started. The
/// standard library has no kind for it.
fn is_unknown_host(error: &std::io::Error) -> bool {
    error.to_string().contains("failed to lookup address")
}

/// A server that starts or restarts.
pub(crate) fn io_may_pass(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::NotFound
            | ErrorKind::UnexpectedEof
            // As of a container whose network isn't up yet.
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    ) || is_unknown_host(error)
}

/// Explains why there is no connection, by the server's SQLSTATE or the cause, with the
/// setting that is wrong.
pub(crate) fn refusal(
    config: &Config,
    code: Option<&str>,
    reason: String,
    passing: bool,
    tries: u32,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    let target = config.target_name();
    let hint = match code {
        Some(code) => match code {
            "28P01" => "Check DB_USER and DB_PASS (or DB_PASS_FILE).".to_owned(),
            "28000" => "The server's pg_hba.conf lets this user in only otherwise: check DB_USER, DB_NAME and DB_SSL.".to_owned(),
            "3D000" => format!("Check DB_NAME, or create it: createdb --encoding=UTF8 {}", name_of(config)),
            "42501" => format!(
                "This user needs the right: GRANT CONNECT ON DATABASE \"{}\" TO \"{}\".",
                name_of(config),
                user_of(config)
            ),
            _ if reason.contains("startup parameter") || reason.contains("command-line options") => pooler_hint(config),
            _ if passing => "The server is starting, stopping or full; try again in a moment.".to_owned(),
            _ => "The server refused the connection; its log says more.".to_owned(),
        },
        None if reason.contains("unreachable") || reason.contains("No route to host") => format!(
            "This machine has no route to that address. Is its network up? An IPv6 address that DB_HOST \
             is or resolves to needs IPv6 here: otherwise set DB_HOST to an IPv4 address. Tried {} times.",
            tries + 1
        ),
        None if passing => format!("Is the server running? Check DB_HOST and DB_PORT. Tried {} times.", tries + 1),
        None => tls_hint(&reason).unwrap_or("Check DB_HOST and DB_PORT.").to_owned(),
    };
    if passing {
        Error::Unavailable {
            target,
            reason,
            hint,
            source,
        }
    } else {
        Error::Refused {
            target,
            reason,
            hint,
            source,
        }
    }
}

pub(crate) const CLIENT_CERTIFICATE: &str = "Check DB_SSL_CERT and DB_SSL_KEY: PEM files of the client certificate and of the key that belongs to it.";

pub(crate) fn tls_hint(reason: &str) -> Option<&'static str> {
    if reason.contains("does not support TLS") {
        Some(
            "The server speaks plain text only, and the settings demand TLS: switch `ssl` on at the server; or it is another kind of server: check DB_HOST and DB_PORT.",
        )
    } else if reason.contains("NotValidForName") || reason.contains("not valid for name") {
        Some("DB_HOST must be a name that stands in the server's certificate.")
    } else if reason.contains("UnknownIssuer") {
        Some(
            "The server's certificate is not signed by an authority that this machine trusts; set DB_SSL_CA to the file of the one that did.",
        )
    } else if reason.contains("CaUsedAsEndEntity") {
        Some(
            "The server presents the certificate of an authority (CA:TRUE) as its own: have that authority sign one for the server, and set DB_SSL_CA to the authority's.",
        )
    } else if reason.contains("BadSignature") {
        Some(
            "The server's certificate names an authority of DB_SSL_CA or of this machine, and another key has signed it: set DB_SSL_CA to the authority that did, which may have been renewed under its old name.",
        )
    } else if reason.contains("Expired") || reason.contains("certificate expired") {
        Some(
            "The server's certificate has expired: renew it at the server, or set this machine's clock.",
        )
    } else if reason.contains("NotValidYet") || reason.contains("not valid yet") {
        Some(
            "The server's certificate is valid later only: set this machine's clock, or the server's certificate.",
        )
    } else if reason.contains("KeyMismatch") {
        Some(CLIENT_CERTIFICATE)
    } else if reason.contains("Invalid certificate ") {
        Some("DB_SSL_CA must be a PEM file of certificates and nothing else.")
    } else if reason.contains("certificate") {
        Some(
            "The server's certificate was not accepted; look at it with `openssl s_client -starttls postgres -connect HOST:PORT`.",
        )
    } else {
        None
    }
}

/// Says how to get past a pooler that refuses what the driver sends at the start.
fn pooler_hint(config: &Config) -> String {
    let Target::Postgres(postgres) = &config.target else {
        return String::new();
    };
    if postgres.prepared_statements {
        "A pooler stands there, and takes no start-up options: set DB_PREPARED_STATEMENTS=false."
    } else {
        "A pooler stands there: set DB_HOST and DB_PORT to the server itself."
    }
    .to_owned()
}

fn name_of(config: &Config) -> &str {
    match &config.target {
        Target::Postgres(postgres) => &postgres.database,
        _ => "aura",
    }
}

fn user_of(config: &Config) -> &str {
    match &config.target {
        Target::Postgres(postgres) => &postgres.user,
        _ => "aura",
    }
}

pub(crate) fn schema_of(config: &Config) -> &str {
    match &config.target {
        Target::Postgres(postgres) => &postgres.schema,
        _ => "public",
    }
}

/// Asks what [`check_settings`] looks at; `$1` is the schema.
pub(crate) const SESSION: &str = "SELECT current_schema()::text, \
     current_setting('server_encoding'), \
     EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";

/// What a session answered to [`SESSION`].
pub(crate) struct SessionSettings<T> {
    pub(crate) schema: Option<T>,
    pub(crate) encoding: T,
    /// Whether there is a schema of the name that the settings have.
    pub(crate) schema_exists: bool,
}

/// Refuses a password that one of the drivers doesn't take.
pub(crate) fn check_password(config: &Config, postgres: &Postgres) -> Result<(), Error> {
    let password = postgres.password.as_ref().map(ExposeSecret::expose_secret);
    let Some(refusal) = password.and_then(password_refusal) else {
        return Ok(());
    };
    Err(Error::Refused {
        target: config.target_name(),
        reason: format!("the password {refusal}"),
        hint: format!(
            "Choose another with ALTER ROLE \"{}\" PASSWORD.",
            postgres.user
        ),
        source: None,
    })
}

/// Refuses a session in another schema than the settings name, and an encoding that
/// can't hold all text.
pub(crate) fn check_settings(config: &Config, found: &SessionSettings<&str>) -> Result<(), Error> {
    let SessionSettings {
        schema,
        encoding,
        schema_exists,
    } = *found;
    let Target::Postgres(postgres) = &config.target else {
        return Ok(());
    };
    let refused = |reason: String, hint: String| Error::Refused {
        target: config.target_name(),
        reason,
        hint,
        source: None,
    };
    if schema != Some(postgres.schema.as_str()) {
        let wanted = &postgres.schema;
        let (reason, hint) = if postgres.prepared_statements && schema_exists {
            (
                format!("this user may not use the schema {wanted}"),
                format!(
                    "Its owner grants it: GRANT USAGE ON SCHEMA \"{wanted}\" TO \"{}\"",
                    postgres.user
                ),
            )
        } else if postgres.prepared_statements {
            (
                format!("there is no schema {wanted}"),
                format!(
                    "Create it: CREATE SCHEMA \"{wanted}\" AUTHORIZATION \"{}\"",
                    postgres.user
                ),
            )
        } else {
            (
                format!(
                    "the session's schema is {}, not {wanted}",
                    schema.unwrap_or("unset")
                ),
                format!(
                    "With DB_PREPARED_STATEMENTS=false it can't be chosen per session: ALTER ROLE \"{}\" SET search_path = \"{wanted}\"",
                    postgres.user
                ),
            )
        };
        return Err(refused(reason, hint));
    }
    if encoding != "UTF8" {
        return Err(refused(
            format!("the database's encoding is {encoding}"),
            "Create it with ENCODING 'UTF8' TEMPLATE template0.".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_refused_with_what_to_do() {
        for (reason, word) in [
            (
                "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
                "CA:TRUE",
            ),
            ("invalid peer certificate: BadSignature", "another key"),
            ("invalid peer certificate: Expired", "renew it"),
            (
                "invalid peer certificate: certificate expired: x",
                "renew it",
            ),
            ("invalid peer certificate: NotValidYet", "clock"),
            (
                "invalid peer certificate: certificate not valid yet: x",
                "clock",
            ),
            ("invalid peer certificate: UnknownIssuer", "DB_SSL_CA"),
            ("invalid peer certificate: BadEncoding", "openssl s_client"),
        ] {
            let hint = tls_hint(reason).unwrap_or_default();
            assert!(hint.contains(word), "{reason}: {hint}");
        }
    }

    #[test]
    fn a_network_without_a_route_names_ipv6() {
        let config = Config::postgres("2001:db8::1", "aura", "aura", None);
        for (number, kind) in [
            (101, ErrorKind::NetworkUnreachable),
            (113, ErrorKind::HostUnreachable),
        ] {
            let error = std::io::Error::from_raw_os_error(number);
            assert_eq!(error.kind(), kind);
            let passing = io_may_pass(&error);
            let error = refusal(&config, None, error.to_string(), passing, 5, None);
            assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
            for words in ["IPv6", "IPv4", "Tried 6 times"] {
                assert!(error.to_string().contains(words), "{error}");
            }
        }
    }
}
