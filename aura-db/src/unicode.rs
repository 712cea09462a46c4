//! Text that looks the same and is typed differently: one keyboard sends `é` as one
//! character, another as `e` and an accent.

use secrecy::{ExposeSecret, SecretString};
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Returns the text in composed form (NFC).
pub(crate) fn composed(text: &str) -> String {
    text.nfc().collect()
}

/// Returns the forms in which a text may have been stored: composed, as all is stored now,
/// and, of older rows, as it is given and decomposed. Of ASCII there is one.
pub(crate) fn forms(text: &str) -> Vec<String> {
    if text.is_ascii() {
        return vec![text.to_owned()];
    }
    let mut forms = vec![composed(text)];
    for other in [text.to_owned(), text.nfd().collect()] {
        if !forms.contains(&other) {
            forms.push(other);
        }
    }
    forms
}

/// Returns a secret in composed form.
pub(crate) fn composed_secret(secret: &SecretString) -> SecretString {
    if is_nfc(secret.expose_secret()) {
        return secret.clone();
    }
    composed(secret.expose_secret()).into()
}

/// Returns the [`forms`] of a secret.
pub(crate) fn secret_forms(secret: &SecretString) -> Vec<SecretString> {
    let forms = forms(secret.expose_secret());
    forms.into_iter().map(SecretString::from).collect()
}

/// Returns whether a character has no width of its own, or shows as a blank: format
/// characters, selectors of variants and fillers (`Default_Ignorable_Code_Point`).
pub(crate) fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}
