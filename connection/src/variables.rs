//! Every variable that aura-db reads, in one table: the settings report, the
//! spelling suggestions and the test that keeps `.env.example` and the README
//! complete all come from here.

/// One environment variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name in the environment.
    pub name: &'static str,
    /// What it is when nobody sets it, as a person would write it.
    pub default: &'static str,
    /// Whether its value must never be shown.
    pub secret: bool,
    /// Whether it says which database to connect to, so that it contradicts
    /// `DATABASE_URL`.
    pub locates: bool,
    /// What it means, in one line.
    pub about: &'static str,
}

const fn plain(name: &'static str, default: &'static str, about: &'static str) -> Variable {
    Variable {
        name,
        default,
        secret: false,
        locates: false,
        about,
    }
}

const fn locating(name: &'static str, default: &'static str, about: &'static str) -> Variable {
    Variable {
        name,
        default,
        secret: false,
        locates: true,
        about,
    }
}

const fn secret(name: &'static str, about: &'static str) -> Variable {
    Variable {
        name,
        default: "",
        secret: true,
        locates: true,
        about,
    }
}

/// All variables, in the order in which they are documented.
pub const VARIABLES: &[Variable] = &[
    locating(
        "DB_TYPE",
        "sqlite",
        "`sqlite` or `postgres` (`postgresql` is accepted)",
    ),
    locating(
        "DB_PATH",
        "./data/aura.db",
        "SQLite: the database file, or `:memory:`",
    ),
    locating(
        "DB_HOST",
        "localhost",
        "PostgreSQL: host name, address, or the folder of a Unix socket",
    ),
    locating("DB_PORT", "5432", "PostgreSQL: port, 1 to 65535"),
    locating("DB_USER", "aura", "PostgreSQL: user"),
    secret("DB_PASS", "PostgreSQL: password"),
    locating(
        "DB_PASS_FILE",
        "",
        "PostgreSQL: file that holds the password (Docker secrets)",
    ),
    locating("DB_NAME", "aura", "PostgreSQL: database"),
    locating(
        "DB_SSL",
        "",
        "PostgreSQL: `true` is verify-full, `false` is disable, unset is prefer",
    ),
    locating(
        "DB_SSL_MODE",
        "prefer",
        "PostgreSQL: `disable`, `prefer`, `require` (verifies nothing) or `verify-full`",
    ),
    locating(
        "DB_SSL_CA",
        "",
        "PostgreSQL: PEM file of a certificate authority to trust beside the system's; implies verify-full",
    ),
    locating(
        "DB_SSL_CERT",
        "",
        "PostgreSQL: PEM file of the client certificate",
    ),
    locating(
        "DB_SSL_KEY",
        "",
        "PostgreSQL: PEM file of the client certificate's key",
    ),
    plain(
        "DB_SCHEMA",
        "public",
        "PostgreSQL: schema that holds the tables",
    ),
    secret(
        "DATABASE_URL",
        "the connection variables above, but DB_SCHEMA, as one URL; then set none of them",
    ),
    plain(
        "DB_POOL_MAX",
        "10",
        "connections in the pool at most, 1 to 1000",
    ),
    plain("DB_POOL_MIN", "0", "connections kept open when idle"),
    plain(
        "DB_POOL_IDLE_TIMEOUT",
        "300000",
        "ms after which an idle connection is closed, 0 is never",
    ),
    plain(
        "DB_POOL_CONNECTION_TIMEOUT",
        "10000",
        "ms to wait for a free or a new connection",
    ),
    plain(
        "DB_STATEMENT_TIMEOUT",
        "60000",
        "ms after which a statement is cancelled, 0 is never; on SQLite what reads; migrations and seed are exempt",
    ),
    plain(
        "DB_SLOW_QUERY",
        "1000",
        "ms from which a statement is logged as slow, 0 is never",
    ),
    plain(
        "DB_CONNECT_RETRIES",
        "5",
        "PostgreSQL: tries again, with backoff, while the server is starting up",
    ),
    plain(
        "DB_APPLICATION_NAME",
        "aura-db",
        "PostgreSQL: name shown in pg_stat_activity",
    ),
    plain(
        "DB_PREPARED_STATEMENTS",
        "true",
        "PostgreSQL: `false` behind PgBouncer in transaction mode: statements have no names, and no start-up options are sent; the tools need a direct connection, or PgBouncer 1.21 with max_prepared_statements",
    ),
    plain(
        "DB_LOGGING",
        "false",
        "log every statement with its time and without its values",
    ),
    plain(
        "DB_SYNCHRONIZE",
        "false",
        "apply pending migrations when a service connects",
    ),
    plain(
        "AURA_ENV",
        "development",
        "`production` makes the tools ask for --force before they destroy anything",
    ),
    Variable {
        locates: false,
        ..secret(
            "SEED_ADMIN_PASSWORD",
            "seed: password of admin@aura.local; generated when unset",
        )
    },
    Variable {
        locates: false,
        ..secret(
            "SEED_BUILDER_PASSWORD",
            "seed: password of builder@aura.local; generated when unset",
        )
    },
];

/// Names that people reach for, and what they are called here.
const ALIASES: &[(&str, &str)] = &[
    ("DB_PASSWORD", "DB_PASS"),
    ("DB_PASSWD", "DB_PASS"),
    ("DB_PWD", "DB_PASS"),
    ("DB_PASSWORD_FILE", "DB_PASS_FILE"),
    ("DB_HOSTNAME", "DB_HOST"),
    ("DB_SERVER", "DB_HOST"),
    ("DB_USERNAME", "DB_USER"),
    ("DB_DATABASE", "DB_NAME"),
    ("DB_URL", "DATABASE_URL"),
    ("DB_URI", "DATABASE_URL"),
    ("DB_FILE", "DB_PATH"),
    ("DB_FILENAME", "DB_PATH"),
    ("DB_DIALECT", "DB_TYPE"),
    ("DB_DRIVER", "DB_TYPE"),
    ("DB_SSLMODE", "DB_SSL_MODE"),
    ("DB_LOG", "DB_LOGGING"),
    ("DB_SYNC", "DB_SYNCHRONIZE"),
];

/// The variable of that name.
#[must_use]
pub fn variable(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

/// What a `DB_*` name that aura-db doesn't know was probably meant to be.
pub(crate) fn meant(name: &str) -> Option<&'static str> {
    ALIASES
        .iter()
        .find(|(alias, _)| *alias == name)
        .map(|(_, meant)| *meant)
        .or_else(|| nearest(name, VARIABLES.iter().map(|variable| variable.name)))
}

/// The candidate that is at most a third of its letters away from `word`.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance * 3 <= candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_are_recognised() {
        assert_eq!(meant("DB_PASSWORD"), Some("DB_PASS"));
        assert_eq!(meant("DB_HOSTNAME"), Some("DB_HOST"));
        assert_eq!(meant("DB_TPYE"), Some("DB_TYPE"));
        assert_eq!(meant("DB_POOLMAX"), Some("DB_POOL_MAX"));
        assert_eq!(meant("DB_ZEBRA_CROSSING"), None);
    }
}
