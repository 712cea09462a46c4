//! What an input must be before it comes near the database: the same on both
//! backends, every field at once.

use std::io;

use entity::Document;
use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, FieldError};
use crate::password;

/// The largest JSON document, in bytes of its text.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;
/// The deepest JSON document: so many arrays and objects inside each other. It
/// is what `serde_json` reads; a deeper one could be written and never read.
pub const MAX_DOCUMENT_DEPTH: usize = 127;
/// The longest text without a limit of its own (a description, a message), in
/// bytes.
pub const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// The longest e-mail address, in characters.
pub(crate) const MAX_EMAIL: usize = 160;

/// Collects what is wrong with the fields of an input.
#[derive(Debug, Default)]
pub(crate) struct Check(Vec<FieldError>);

impl Check {
    pub(crate) fn refuse(&mut self, field: &'static str, problem: impl Into<String>) {
        self.0.push(FieldError {
            field,
            problem: problem.into(),
        });
    }

    /// A name: not blank, at most `max` characters.
    pub(crate) fn name(&mut self, field: &'static str, value: &str, max: usize) {
        if value.trim().is_empty() {
            self.refuse(field, "must not be empty");
        }
        self.text(field, value, max);
    }

    /// Text of at most `max` characters.
    pub(crate) fn text(&mut self, field: &'static str, value: &str, max: usize) {
        let length = value.chars().count();
        if length > max {
            self.refuse(
                field,
                format!("must have at most {max} characters, and has {length}"),
            );
        }
        self.storable(field, value);
    }

    /// Text that may be missing.
    pub(crate) fn optional(&mut self, field: &'static str, value: Option<&str>, max: usize) {
        if let Some(value) = value {
            self.text(field, value, max);
        }
    }

    /// Text that the column doesn't limit.
    pub(crate) fn long_text(&mut self, field: &'static str, value: &str) {
        if value.len() > MAX_TEXT_BYTES {
            self.refuse(field, "must have at most 1 MiB");
        }
        self.storable(field, value);
    }

    fn storable(&mut self, field: &'static str, value: &str) {
        if value.contains('\0') {
            self.refuse(
                field,
                "must not hold the character U+0000, which PostgreSQL can't store",
            );
        }
    }

    /// An e-mail address; returns it as it is stored. Whether somebody reads
    /// what is sent to it only a sent message can tell, so no more is asked
    /// than one `@` with something on both sides and no blanks.
    pub(crate) fn email(&mut self, field: &'static str, value: &str) -> String {
        let email = normal_email(value);
        let refused = self.0.len();
        self.text(field, &email, MAX_EMAIL);
        let sound = email.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty()
                && !domain.is_empty()
                && !domain.contains('@')
                && !domain.starts_with('.')
                && !domain.ends_with('.')
                && !email.chars().any(|c| c.is_whitespace() || c.is_control())
        });
        if !sound && self.0.len() == refused {
            self.refuse(field, "must be an e-mail address, such as ada@example.org");
        }
        email
    }

    pub(crate) fn password(&mut self, field: &'static str, value: &SecretString) {
        match value.expose_secret().len() {
            0 => self.refuse(field, "must not be empty"),
            length if length > password::MAX_BYTES => {
                self.refuse(field, "must have at most 1024 bytes");
            }
            _ => {}
        }
    }

    /// A JSON document within the limits.
    pub(crate) fn document(&mut self, field: &'static str, document: Option<&Document>) {
        let Some(Document(json)) = document else {
            return;
        };
        if holds_nul(json) {
            self.refuse(
                field,
                "must not hold the character U+0000, which PostgreSQL can't store",
            );
        }
        if depth(json) > MAX_DOCUMENT_DEPTH {
            self.refuse(field, "must be nested at most 127 deep");
            // Serializing recurses.
            return;
        }
        if serde_json::to_writer(Counter(0), json).is_err() {
            self.refuse(field, "must have at most 16 MiB");
        }
    }

    /// A JSON document that is an object or an array.
    pub(crate) fn container(&mut self, field: &'static str, document: Option<&Document>) {
        if document.is_some_and(|Document(json)| !json.is_object() && !json.is_array()) {
            self.refuse(field, "must be an object or an array");
        }
        self.document(field, document);
    }

    /// Fails with everything that was refused.
    pub(crate) fn done(self) -> Result<(), Error> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Error::Validation(self.0))
        }
    }
}

/// An e-mail address as it is stored and compared.
pub(crate) fn normal_email(email: &str) -> String {
    email.trim().to_ascii_lowercase()
}

/// How many bytes a document has, written; one that is too large has about as
/// many as are allowed.
pub(crate) fn written(document: &Document) -> usize {
    let mut counted = Counter(0);
    // It ends early when there are too many, which is enough to know.
    let _ = serde_json::to_writer(&mut counted, &document.0);
    counted.0
}

/// Counts bytes up to the limit of a document.
struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        if self.0 > MAX_DOCUMENT_BYTES {
            return Err(io::Error::other("too large"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Looks at every value, without recursion, until one is true.
fn any(json: &serde_json::Value, mut is: impl FnMut(&serde_json::Value, usize) -> bool) -> bool {
    let mut rest = vec![(json, 1)];
    while let Some((value, depth)) = rest.pop() {
        if is(value, depth) {
            return true;
        }
        match value {
            serde_json::Value::Array(values) => {
                rest.extend(values.iter().map(|value| (value, depth + 1)));
            }
            serde_json::Value::Object(members) => {
                rest.extend(members.values().map(|value| (value, depth + 1)));
            }
            _ => {}
        }
    }
    false
}

fn depth(json: &serde_json::Value) -> usize {
    let mut deepest = 0;
    any(json, |value, depth| {
        if value.is_array() || value.is_object() {
            deepest = deepest.max(depth);
        }
        deepest > MAX_DOCUMENT_DEPTH
    });
    deepest
}

fn holds_nul(json: &serde_json::Value) -> bool {
    any(json, |value, _| match value {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Object(members) => members.keys().any(|key| key.contains('\0')),
        _ => false,
    })
}
