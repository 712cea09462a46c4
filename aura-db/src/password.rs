//! Password hashes: Argon2id, made on blocking threads, a bounded number at a
//! time.

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use entity::PasswordHash;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

/// The longest password, in bytes. Hashing takes time that grows with the
/// length, so that an unlimited one would be an attack.
pub const MAX_BYTES: usize = 1024;

/// OWASP's first recommendation for Argon2id: 19 MiB, two passes, one lane
/// (<https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>).
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// So many hashes are made at once at the most, which bounds their memory to
/// 76 MiB; the others wait.
static SLOTS: Semaphore = Semaphore::const_new(4);

/// A hash that no password has: for accounts that nobody may log in to.
#[must_use]
pub fn unusable() -> PasswordHash {
    PasswordHash("!".to_owned())
}

/// Why a password has no hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// There is none.
    #[error("the password is empty")]
    Empty,
    /// It is too long to hash.
    #[error("the password is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// The system gives no random salt or no thread.
    #[error("the password could not be hashed: the system has no randomness or is shutting down")]
    System,
}

/// Hashes a password with a salt of its own.
///
/// Fails when it is empty or longer than [`MAX_BYTES`].
pub async fn hash(password: &SecretString) -> Result<PasswordHash, PasswordError> {
    match password.expose_secret().len() {
        0 => return Err(PasswordError::Empty),
        length if length > MAX_BYTES => return Err(PasswordError::TooLong),
        _ => {}
    }
    let slot = SLOTS.acquire().await.map_err(|_| PasswordError::System)?;
    let password = password.clone();
    tokio::task::spawn_blocking(move || {
        // Held by the work and not by the caller, who may hang up.
        let _slot = slot;
        let params =
            Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| PasswordError::System)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash = argon2
            .hash_password(password.expose_secret().as_bytes())
            .map_err(|_| PasswordError::System)?;
        Ok(PasswordHash(hash.to_string()))
    })
    .await
    .map_err(|_| PasswordError::System)?
}

#[cfg(test)]
mod tests {
    use argon2::PasswordVerifier;

    use super::*;

    #[tokio::test]
    async fn a_hash_is_argon2id_with_a_salt_of_its_own() {
        let password = SecretString::from("correct horse");
        let (one, two) = (
            hash(&password).await.expect("a hash"),
            hash(&password).await.expect("a hash"),
        );
        assert!(
            one.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{}",
            one.0
        );
        assert_ne!(one, two);
        assert!(
            Argon2::default()
                .verify_password(b"correct horse", one.0.as_str())
                .is_ok()
        );
        assert!(
            Argon2::default()
                .verify_password(b"wrong", one.0.as_str())
                .is_err()
        );
    }

    #[tokio::test]
    async fn empty_and_endless_passwords_are_refused() {
        assert_eq!(hash(&"".into()).await, Err(PasswordError::Empty));
        assert_eq!(
            hash(&"x".repeat(1025).into()).await,
            Err(PasswordError::TooLong)
        );
        assert!(hash(&"x".repeat(1024).into()).await.is_ok());
    }

    #[test]
    fn a_hash_is_not_shown() {
        assert_eq!(
            format!("{:?}", PasswordHash("$argon2id$secret".to_owned())),
            "PasswordHash(***)"
        );
    }
}
