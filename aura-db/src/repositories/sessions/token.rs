//! What opens a session.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use entity::TokenHash;
use rand::TryRng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::password;

/// What opens a session, or whatever an application lets it open: 256 random bits, in 43
/// characters. It is shown once, when it is made; `Debug` doesn't show it, and a database
/// has its [hash](Token::hash) only.
///
/// For an API key, say, keep the hash in a column of the type [`TokenHash`] with a unique
/// index, and look the key that a client sends up by its hash:
///
/// ```
/// use aura_db::secrecy::ExposeSecret;
/// use aura_db::Token;
///
/// # fn main() -> Result<(), aura_db::Error> {
/// let key = Token::random()?;
/// let stored = key.hash();
/// let shown_once = key.expose_secret().to_owned();
///
/// assert_eq!(Token::new(shown_once).hash(), stored);
/// assert_eq!(format!("{key:?} {stored:?}"), "Token(***) TokenHash(***)");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Token(SecretString);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

impl Token {
    /// Takes a token that a client sent.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// Makes a token of 256 bits from the system's random numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Password`] when the system has no randomness.
    pub fn random() -> Result<Self, Error> {
        let mut bits = [0_u8; 32];
        rand::rngs::SysRng
            .try_fill_bytes(&mut bits)
            .map_err(|_| Error::Password(password::PasswordError::System))?;
        Ok(Self::new(BASE64_URL_SAFE_NO_PAD.encode(bits)))
    }

    /// Returns the SHA-256 of the token, in 64 hexadecimal digits. It is enough for random
    /// tokens; passwords need [`password::hash`].
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        use fmt::Write;
        let digest = Sha256::digest(self.0.expose_secret().as_bytes());
        let mut hex = String::with_capacity(64);
        for byte in digest {
            let _ = write!(hex, "{byte:02x}");
        }
        TokenHash(hex)
    }
}

impl ExposeSecret<str> for Token {
    fn expose_secret(&self) -> &str {
        self.0.expose_secret()
    }
}
