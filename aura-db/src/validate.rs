//! What an input must be before it comes near the database: the same on both
//! backends, every field at once.

use entity::{Document, Outline, UserId};
use sea_orm::ActiveValue;
use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, FieldError};
use crate::password;
use crate::unicode::{composed, is_invisible};

/// The largest JSON document, in bytes of its text.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;
/// The deepest JSON document: so many arrays and objects inside each other. It
/// is what `serde_json` reads; a deeper one could be written and never read.
pub const MAX_DOCUMENT_DEPTH: usize = 127;
/// The longest number in a document that is searched, in digits written out;
/// every `f64` has fewer. PostgreSQL's `jsonb` writes numbers out, so that a few
/// short ones could become more text than it can send.
const MAX_SEARCHABLE_DIGITS: usize = 350;
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
        if email.contains(is_invisible) {
            self.refuse(field, "must not hold an invisible character");
        } else if !sound && self.0.len() == refused {
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
        if let Some(document) = document {
            self.outlined(field, document, document.outline());
        }
    }

    /// A JSON document that is an object or an array.
    pub(crate) fn container(&mut self, field: &'static str, document: Option<&Document>) {
        if let Some(document) = document {
            let outline = document.outline();
            if !outline.container {
                self.refuse(field, "must be an object or an array");
            }
            self.outlined(field, document, outline);
        }
    }

    /// A JSON document for a column that is searched, whose numbers PostgreSQL
    /// writes out.
    pub(crate) fn searchable(&mut self, field: &'static str, document: Option<&Document>) {
        if let Some(document) = document {
            let outline = document.outline();
            if outline.digits > MAX_SEARCHABLE_DIGITS {
                self.refuse(field, "must not hold a number of more than 350 digits");
            }
            self.outlined(field, document, outline);
        }
    }

    fn outlined(&mut self, field: &'static str, document: &Document, outline: Outline) {
        if outline.nul {
            self.refuse(
                field,
                "must not hold the character U+0000, which PostgreSQL can't store",
            );
        }
        if outline.depth > MAX_DOCUMENT_DEPTH {
            self.refuse(field, "must be nested at most 127 deep");
        }
        if document.as_str().len() > MAX_DOCUMENT_BYTES {
            self.refuse(field, "must have at most 16 MiB");
        }
    }

    /// A [name](Self::name), where it is set.
    pub(crate) fn set_name(
        &mut self,
        field: &'static str,
        value: &ActiveValue<String>,
        max: usize,
    ) {
        if let Some(value) = value.try_as_ref() {
            self.name(field, value, max);
        }
    }

    /// Text that the column doesn't limit, where it is set.
    pub(crate) fn set_long_text(
        &mut self,
        field: &'static str,
        value: &ActiveValue<Option<String>>,
    ) {
        if let Some(value) = is_set(value) {
            self.long_text(field, value);
        }
    }

    /// A [container](Self::container), where it is set.
    pub(crate) fn set_container(
        &mut self,
        field: &'static str,
        value: &ActiveValue<Option<Document>>,
    ) {
        self.container(field, is_set(value));
    }

    /// Returns the owner, or else the actor. Fails with everything that was refused, also
    /// when there is neither.
    pub(crate) fn owner(
        mut self,
        owner: &ActiveValue<UserId>,
        actor: Option<UserId>,
    ) -> Result<UserId, Error> {
        let owner = owner.try_as_ref().copied().or(actor);
        if owner.is_none() {
            self.refuse("owner", "must be given, or use `acting_as`");
        }
        self.done()?;
        owner.ok_or(Error::Ended)
    }

    /// Fails with everything that was refused.
    /// Returns what was refused so far.
    pub(crate) fn problems(&self) -> &[FieldError] {
        &self.0
    }

    pub(crate) fn done(self) -> Result<(), Error> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Error::Validation(self.0))
        }
    }
}

/// Returns what a column that may be NULL is set to.
pub(crate) fn is_set<T>(value: &ActiveValue<Option<T>>) -> Option<&T>
where
    Option<T>: Into<sea_orm::Value>,
{
    value.try_as_ref().and_then(Option::as_ref)
}

/// An e-mail address as it is stored and compared.
pub(crate) fn normal_email(email: &str) -> String {
    composed(email.trim()).to_ascii_lowercase()
}
