//! What builders take for a column that may be empty.

use entity::Document;

/// A text that may be missing: a `&str`, a `String`, or an `Option<String>`.
pub trait IntoText {
    /// Returns the text.
    fn into_text(self) -> Option<String>;
}

impl IntoText for &str {
    fn into_text(self) -> Option<String> {
        Some(self.to_owned())
    }
}

impl IntoText for &String {
    fn into_text(self) -> Option<String> {
        Some(self.clone())
    }
}

impl IntoText for String {
    fn into_text(self) -> Option<String> {
        Some(self)
    }
}

impl IntoText for Option<String> {
    fn into_text(self) -> Option<String> {
        self
    }
}

/// A JSON document that may be missing: a [`Document`], a [`serde_json::Value`], or an
/// `Option<Document>`.
pub trait IntoDocument {
    /// Returns the document.
    fn into_document(self) -> Option<Document>;
}

impl IntoDocument for Document {
    fn into_document(self) -> Option<Document> {
        Some(self)
    }
}

impl IntoDocument for serde_json::Value {
    fn into_document(self) -> Option<Document> {
        Some(self.into())
    }
}

impl IntoDocument for Option<Document> {
    fn into_document(self) -> Option<Document> {
        self
    }
}
