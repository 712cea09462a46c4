//! What keeps a database from doing what it is asked to, whatever the statement.

/// What is wrong with a database or its machine, and what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// What is wrong: "the disk is full".
    pub reason: &'static str,
    /// What to do about it, in a sentence: "To go on, free space on the disk of `DB_PATH`."
    pub hint: &'static str,
    /// What to do about it, as a part of a sentence.
    pub action: &'static str,
    /// All of it as a part of a sentence about a statement that was refused.
    pub refusal: &'static str,
}

macro_rules! trouble {
    ($reason:literal, $action:literal) => {
        Trouble {
            reason: $reason,
            hint: concat!("To go on, ", $action, "."),
            action: $action,
            refusal: concat!($reason, " and nothing was done (", $action, ")"),
        }
    };
}

const DISK_FULL: Trouble = trouble!(
    "the disk is full",
    "free space on the disk of DB_PATH, and where SQLITE_TMPDIR leads for large sorts"
);
const NO_TEMPORARY_FOLDER: Trouble = trouble!(
    "there is no folder for temporary files",
    "set SQLITE_TMPDIR to one that this process may write to"
);
const DISK_FAILED: Trouble = trouble!(
    "the disk failed",
    "look into the system's log, and check the disk of DB_PATH"
);
const NO_MEMORY: Trouble = trouble!("memory ran out", "give this process more of it");
const READ_ONLY: Trouble = trouble!(
    "the file or this connection to it is read-only",
    "check the permissions of DB_PATH, its -wal and -shm, and their folder"
);
const CANNOT_OPEN: Trouble = trouble!(
    "the file, its WAL or a temporary file can't be opened",
    "check the permissions of their folders, and the limit of open files"
);

const SERVER_DISK_FULL: Trouble = trouble!(
    "the server's disk is full",
    "free space there; its log names the file"
);
const SERVER_DISK_FAILED: Trouble = trouble!(
    "the server's disk failed",
    "look into its log, and check the disk"
);
const SERVER_NO_MEMORY: Trouble = trouble!(
    "the server's memory ran out",
    "lower work_mem or max_connections, or give it more; its log says what failed"
);
const SERVER_NO_CONNECTION: Trouble = trouble!(
    "the server has no connection left",
    "lower DB_POOL_MAX, or raise max_connections"
);

/// Returns what a code of the database means that is about the database or its machine, and
/// not about the statement: an SQLSTATE
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>), or a result code of
/// SQLite (<https://sqlite.org/rescode.html>), extended or not.
#[must_use]
pub fn trouble(code: &str) -> Option<Trouble> {
    match code {
        "53100" => return Some(SERVER_DISK_FULL),
        "53200" => return Some(SERVER_NO_MEMORY),
        "53300" => return Some(SERVER_NO_CONNECTION),
        "58030" => return Some(SERVER_DISK_FAILED),
        _ => {}
    }
    // An SQLSTATE has five characters, and these have fewer.
    let code: i32 = code.parse().ok().filter(|_| code.len() < 5)?;
    match (code, code & 0xff) {
        // SQLITE_IOERR_GETTEMPPATH
        (6410, _) => Some(NO_TEMPORARY_FOLDER),
        (_, 7) => Some(NO_MEMORY),
        (_, 8) => Some(READ_ONLY),
        (_, 10) => Some(DISK_FAILED),
        (_, 13) => Some(DISK_FULL),
        (_, 14) => Some(CANNOT_OPEN),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_databases_are_known() {
        let reason = |code| trouble(code).map(|trouble| trouble.reason);
        for (code, expected) in [
            ("53100", "the server's disk is full"),
            ("13", "the disk is full"),
            ("53200", "the server's memory ran out"),
            ("7", "memory ran out"),
            ("58030", "the server's disk failed"),
            ("1034", "the disk failed"),
            ("6410", "there is no folder for temporary files"),
            ("1544", "the file or this connection to it is read-only"),
            (
                "14",
                "the file, its WAL or a temporary file can't be opened",
            ),
        ] {
            assert_eq!(reason(code), Some(expected), "{code}");
        }
        for code in ["", "1", "5", "2067", "23505", "40001", "00013", "57P01"] {
            assert_eq!(reason(code), None, "{code}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        assert_eq!(
            trouble("53100").expect("known").refusal,
            "the server's disk is full and nothing was done (free space there; its log names the \
             file)"
        );
    }
}
