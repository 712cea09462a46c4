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

/// What opens a session: 256 random bits, in 43 characters. It is shown once,
/// when the session is issued; `Debug` doesn't show it.
#[derive(Clone)]
pub struct Token(SecretString);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

impl Token {
    /// A token that a client sent.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    pub(super) fn random() -> Result<Self, Error> {
        let mut bits = [0_u8; 32];
        rand::rngs::SysRng
            .try_fill_bytes(&mut bits)
            .map_err(|_| Error::Password(password::PasswordError::System))?;
        Ok(Self::new(BASE64_URL_SAFE_NO_PAD.encode(bits)))
    }

    pub(super) fn hash(&self) -> TokenHash {
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
