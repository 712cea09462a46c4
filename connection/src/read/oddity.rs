//! Values that no setting has: what a shell would have expanded, quotes of an
//! `--env-file`, control characters, and what Kubernetes sets for a Service.

use super::shown;
use crate::environment::Source;
use crate::variables::Variable;

const CONTROL: &str = "holds a line break or another control character";

/// What names a file or a folder; a host may be the folder of a socket.
const PATHS: [&str; 6] = [
    "DB_PATH",
    "DB_HOST",
    "DB_PASS_FILE",
    "DB_SSL_CA",
    "DB_SSL_CERT",
    "DB_SSL_KEY",
];

/// Returns why a variable can't have this value, as the rest of a sentence.
pub(super) fn refusal(variable: &Variable, value: &str, source: &Source) -> Option<String> {
    if value.chars().any(char::is_control) {
        return Some(CONTROL.to_owned());
    }
    if variable.name == "DB_PORT" && is_service_address(value) {
        return Some(
            "was set by Kubernetes for a Service named `db`; set DB_PORT in the Pod, or \
             enableServiceLinks: false"
                .to_owned(),
        );
    }
    let is_url = variable.name == "DATABASE_URL";
    if variable.secret && !is_url {
        return None;
    }
    if *source == Source::Environment && is_quoted(value) {
        return Some(
            "is in quotes, which `docker run --env-file` and Kubernetes keep; write it without \
             them"
                .to_owned(),
        );
    }
    if is_url {
        return None;
    }
    let is_path = PATHS.contains(&variable.name);
    if let Some(found) = unexpanded(value, is_path) {
        let found = if shown(variable.name, value) == "***" {
            "a variable"
        } else {
            found
        };
        return Some(not_expanded(found));
    }
    (is_path && value.trim() != value).then(|| "begins or ends with a blank".to_owned())
}

/// Returns what is odd about a secret, which may have any value.
pub(super) fn warning(variable: &Variable, value: &str, source: &Source) -> Option<String> {
    if !variable.secret || *source != Source::Environment {
        return None;
    }
    let name = variable.name;
    if is_quoted(value) {
        return Some(format!(
            "{name} is in quotes, which `docker run --env-file` and Kubernetes keep: they are a part of it"
        ));
    }
    (unexpanded(value, false) == Some(value)).then(|| {
        format!("{name} looks like a variable that wasn't expanded, and is taken as it is written")
    })
}

pub(crate) fn not_expanded(found: &str) -> String {
    format!("holds `{found}`, which only a shell expands; write the whole value")
}

/// Finds what a shell would have expanded: `$NAME`, `${NAME}` and `$(command)`; in a path
/// also `%NAME%` and a `~` at its start. Names of PostgreSQL may hold a `$` inside.
pub(crate) fn unexpanded(text: &str, is_path: bool) -> Option<&str> {
    let variable = text.match_indices('$').find_map(|(at, _)| {
        let rest = &text[at + 1..];
        let length = match rest.chars().next()? {
            '{' => rest.find('}').map_or(rest.len(), |end| end + 1),
            '(' => rest.find(')').map_or(rest.len(), |end| end + 1),
            _ if at == 0 || is_path => name_length(rest)?,
            _ => return None,
        };
        Some(&text[at..=at + length])
    });
    if variable.is_some() || !is_path {
        return variable;
    }
    let home = text.split(['/', '\\']).next()?;
    if home == "~" || (home.starts_with('~') && home != text) {
        return Some(home);
    }
    text.match_indices('%').find_map(|(at, _)| {
        let rest = &text[at + 1..];
        let length = name_length(rest)?;
        rest[length..]
            .starts_with('%')
            .then(|| &text[at..at + length + 2])
    })
}

/// Returns the length of the variable's name that this begins with.
fn name_length(text: &str) -> Option<usize> {
    let is_letter = |character: char| character.is_ascii_alphabetic() || character == '_';
    if !text.starts_with(is_letter) {
        return None;
    }
    let end = text.find(|character: char| !is_letter(character) && !character.is_ascii_digit());
    Some(end.unwrap_or(text.len()))
}

fn is_quoted(value: &str) -> bool {
    let quotes = ['"', '\'', '`'];
    let found = quotes.into_iter().find(|quote| value.starts_with(*quote));
    value.len() > 1 && found.is_some_and(|quote| value.ends_with(quote))
}

/// Returns whether Kubernetes set this variable, which is none of ours: it sets seven for a
/// Service named `db`, and seven for each whose name begins with `db-`.
pub(super) fn is_of_a_service(name: &str, value: &str) -> bool {
    let is_port = |rest: &str| {
        let (number, kind) = rest.split_once('_').unwrap_or((rest, ""));
        let kind = kind.split('_').next().unwrap_or_default();
        !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && ["TCP", "UDP", "SCTP"].contains(&kind)
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name
            .match_indices("_PORT_")
            .any(|(at, found)| is_port(&name[at + found.len()..]))
        || (name.ends_with("_PORT") && is_service_address(value))
}

fn is_service_address(value: &str) -> bool {
    ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|kind| value.starts_with(kind))
}

/// Returns why PostgreSQL's drivers don't take this password, as the rest of a sentence.
/// It never shows a character of it.
///
/// The server takes any. Of the drivers tokio-postgres sends such a password as it is, as
/// libpq does, and sqlx refuses it, with the character in its error.
pub(crate) fn password_refusal(password: &str) -> Option<&'static str> {
    if password.chars().any(char::is_control) {
        return Some(CONTROL);
    }
    stringprep::saslprep(password).is_err().then_some(
        "holds a character that PostgreSQL's rules for passwords (SASLprep) refuse: one that isn't \
         assigned, is for private use, or is of a script that is written in the other direction",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_expands_is_found() {
        for (text, found) in [
            ("$HOME/x.db", Some("$HOME")),
            ("/data/${NAME}.db", Some("${NAME}")),
            ("/data/${NAME", Some("${NAME")),
            ("$(pwd)/x.db", Some("$(pwd)")),
            ("/data/$A_1é", Some("$A_1")),
            ("~", Some("~")),
            ("~/x.db", Some("~")),
            ("~ada/x.db", Some("~ada")),
            ("%APPDATA%/x.db", Some("%APPDATA%")),
            ("C:\\%A%\\x.db", Some("%A%")),
            ("~x.db", None),
            ("x.db~", None),
            ("/a/~/x.db", None),
            ("/c$/x.db", None),
            ("a$", None),
            ("a$é", None),
            ("100%.db", None),
            ("50%_of_100%é", Some("%_of_100%")),
            ("%", None),
        ] {
            assert_eq!(unexpanded(text, true), found, "{text}");
        }
        for (text, found) in [
            ("$USER", Some("$USER")),
            ("app_${ENV}", Some("${ENV}")),
            ("app$prod", None),
            ("~", None),
            ("%A%", None),
        ] {
            assert_eq!(unexpanded(text, false), found, "{text}");
        }
    }
}
