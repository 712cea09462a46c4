//! No secret in anything that is logged or shown while every method is called
//! and comes to each of its errors: everything is logged, down to the driver's
//! traces, and each line is looked at. So is what the methods return, as
//! `Debug` and as JSON, and at the end of a sequence every row.

use std::fmt::Debug;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use aura_db::secrecy::ExposeSecret;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::side::Side;

/// Stands in every password.
pub(crate) const CANARY: &str = "canary";

static WATCHING: AtomicBool = AtomicBool::new(false);
static LOOKED: AtomicUsize = AtomicUsize::new(0);
static FOUND: Mutex<Vec<String>> = Mutex::new(Vec::new());
static SERVER_PASSWORD: OnceLock<String> = OnceLock::new();

/// Has everything logged that the process does from now on.
pub(crate) fn install() {
    let server = testdb::server();
    let password = server.into_iter().find(|(name, _)| *name == "DB_PASS");
    let _ = SERVER_PASSWORD.set(password.expect("it has a password").1);
    let everything = layer()
        .with_ansi(false)
        .with_span_events(FmtSpan::FULL)
        .with_writer(|| Lines);
    let watched = dynamic_filter_fn(|_, _| WATCHING.load(Ordering::Relaxed));
    tracing_subscriber::registry()
        .with(tracing_subscriber::Layer::with_filter(everything, watched))
        .init();
}

pub(crate) fn watch(on: bool) {
    WATCHING.store(on, Ordering::Relaxed);
}

/// How many lines were looked at, and those with a secret.
pub(crate) fn seen() -> (usize, Vec<String>) {
    let found = FOUND
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .split_off(0);
    (LOOKED.load(Ordering::Relaxed), found)
}

struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        look(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Looks at what a method returned.
pub(crate) fn look_at(value: &impl Debug) {
    if WATCHING.load(Ordering::Relaxed) {
        look(&format!("{value:?}"));
    }
}

/// Looks at a text.
pub(crate) fn look(text: &str) {
    if !WATCHING.load(Ordering::Relaxed) {
        return;
    }
    for line in text.lines() {
        LOOKED.fetch_add(1, Ordering::Relaxed);
        if let Some(secret) = secret_in(line) {
            let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
            found.push(format!("{secret}: {line}"));
        }
    }
}

fn secret_in(line: &str) -> Option<&'static str> {
    let has = |parts: &[&str]| parts.iter().any(|part| line.contains(part));
    let mut words = line.split(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c)));
    if has(&[CANARY]) {
        return Some("a password");
    }
    if has(&["$argon2", "$2a$", "$2b$", "$2y$"]) {
        return Some("a password's hash");
    }
    if SERVER_PASSWORD
        .get()
        .is_some_and(|password| has(&[password]))
    {
        return Some("the server's password");
    }
    words.find_map(|word| {
        let any = |of: fn(&char) -> bool| word.chars().any(|c| of(&c));
        let all = |of: fn(&char) -> bool| word.chars().all(|c| of(&c));
        let mixed = any(char::is_ascii_uppercase)
            && any(char::is_ascii_lowercase)
            && any(char::is_ascii_digit);
        match word.len() {
            43 if mixed => Some("a token"),
            64 if all(char::is_ascii_hexdigit) => Some("a token's hash"),
            _ => None,
        }
    })
}

/// Looks at every row: hashes are stored, passwords and tokens are not.
pub(crate) async fn look_at_rows(side: &Side) {
    if !WATCHING.load(Ordering::Relaxed) {
        return;
    }
    let rows = side.rows().await;
    let tokens: Vec<_> = side.ids().tokens().to_vec();
    let stored = tokens
        .iter()
        .map(ExposeSecret::expose_secret)
        .chain([CANARY])
        .filter(|secret| rows.contains(*secret));
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    found.extend(stored.map(|secret| format!("stored: {secret}")));
}

/// Each kind of secret is found where it is planted.
pub(crate) fn planted_leaks_are_found() {
    let password = SERVER_PASSWORD.get().expect("a password");
    let token = "q".repeat(41) + "R7";
    let hash = "0123456789abcdef".repeat(4);
    watch(true);
    for leak in [
        "a canary's song",
        "$argon2id$v=19",
        "$2b$10$x",
        password,
        &token,
        &hash,
    ] {
        let (before, _) = seen();
        tracing::trace!(target: "driver", leak, "planted");
        let (after, found) = seen();
        assert_eq!((after - before, found.len()), (1, 1), "{leak}: {found:?}");
    }
    tracing::trace!(target: "driver", nothing = "harmless", "planted");
    assert_eq!(seen().1, Vec::<String>::new());
    watch(false);
}
