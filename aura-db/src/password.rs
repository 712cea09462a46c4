//! Password hashes: Argon2id, made on blocking threads, a bounded number at a
//! time.

mod queue;

use std::sync::{LazyLock, Mutex, PoisonError};

pub(crate) use self::queue::Caller;
use crate::unicode::{composed_secret, secret_forms};
use crate::validate::Check;
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash as Phc, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use entity::PasswordHash;
use rand::TryRng;
use secrecy::{ExposeSecret, SecretString};

/// The longest password, in bytes. Hashing takes time that grows with the
/// length, so that an unlimited one would be an attack.
pub const MAX_BYTES: usize = 1024;

/// OWASP's first recommendation for Argon2id: 19 MiB, two passes, one lane
/// (<https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>).
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

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
    /// Too many others are being hashed.
    #[error(
        "too many passwords are being hashed; try again, and hash that of a transaction before it \
         begins (NewUser::hashed)"
    )]
    Busy,
    /// The system gives no random salt or no thread.
    #[error("the password could not be hashed: the system has no randomness or is shutting down")]
    System,
}

/// Hashes a password, in composed form (NFC), with a salt of its own. Four are hashed at
/// once; up to a thousand others wait, for 10 s each.
///
/// # Errors
///
/// [`PasswordError::Empty`]; [`PasswordError::TooLong`] when it is longer than
/// [`MAX_BYTES`]; [`PasswordError::Busy`] when too many others wait, or for too long;
/// [`PasswordError::System`].
pub async fn hash(password: &SecretString) -> Result<PasswordHash, PasswordError> {
    hash_for(password, Caller::Outside).await
}

/// As [`hash`], for a caller that may be in a transaction.
pub(crate) async fn hash_for(
    password: &SecretString,
    caller: Caller,
) -> Result<PasswordHash, PasswordError> {
    match password.expose_secret().len() {
        0 => return Err(PasswordError::Empty),
        length if length > MAX_BYTES => return Err(PasswordError::TooLong),
        _ => {}
    }
    let password = composed_secret(password);
    queue::run(caller, move || make(password.expose_secret())).await?
}

/// A password to be stored: as it was typed, or hashed already.
///
/// Hashing takes tens of milliseconds. In a transaction it keeps the connection, and on
/// SQLite all other writers, waiting: give it a [`hash`] that was made before, or
/// [`NewUser::hashed`](crate::NewUser::hashed). (A transaction waits at most 1 s for its
/// turn, and then gets [`Error::Busy`](crate::Error::Busy).) A hash may also come from
/// another system (bcrypt), or be [`unusable`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NewPassword {
    /// As it was typed; at most [`MAX_BYTES`].
    Plain(SecretString),
    /// A hash of it.
    Hashed(PasswordHash),
}

impl NewPassword {
    /// Checks that it can be hashed or stored.
    pub(crate) fn check(&self, check: &mut Check) {
        match self {
            Self::Plain(password) => check.password("password", password),
            Self::Hashed(hash) => check.name("password", &hash.0, 255),
        }
    }

    /// Returns its hash.
    pub(crate) async fn into_hash(self, caller: Caller) -> Result<PasswordHash, PasswordError> {
        match self {
            Self::Plain(password) => hash_for(&password, caller).await,
            Self::Hashed(hash) => Ok(hash),
        }
    }
}

impl From<SecretString> for NewPassword {
    fn from(password: SecretString) -> Self {
        Self::Plain(password)
    }
}

impl From<String> for NewPassword {
    fn from(password: String) -> Self {
        Self::Plain(password.into())
    }
}

impl From<&str> for NewPassword {
    fn from(password: &str) -> Self {
        Self::Plain(password.into())
    }
}

impl From<PasswordHash> for NewPassword {
    fn from(hash: PasswordHash) -> Self {
        Self::Hashed(hash)
    }
}

/// What hashes are made in, for the next ones: no more than there are slots.
/// The allocator would keep it as well, but once for each of many threads (600
/// MiB after 60 logins at once).
static MEMORY: Mutex<Vec<Vec<Block>>> = Mutex::new(Vec::new());

/// The hash of `length` bytes.
fn computed(argon2: &Argon2<'_>, password: &str, salt: &Salt, length: usize) -> Option<Output> {
    let idle = || MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let blocks = argon2.params().block_count();
    let mut memory = idle().pop().unwrap_or_default();
    if memory.len() < blocks {
        memory.resize(blocks, Block::new());
    }
    let mut output = [0; Output::MAX_LENGTH];
    let output = output.get_mut(..length)?;
    let done = argon2.hash_password_into_with_memory(
        password.as_bytes(),
        salt,
        output,
        memory.get_mut(..blocks)?,
    );
    // What an older hash took beyond ours is not kept.
    memory.truncate(MEMORY_KIB as usize);
    memory.shrink_to_fit();
    idle().push(memory);
    done.ok()?;
    Output::new(output).ok()
}

fn make(password: &str) -> Result<PasswordHash, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| PasswordError::System)?;
    let mut random = [0; Salt::RECOMMENDED_LENGTH];
    rand::rngs::SysRng
        .try_fill_bytes(&mut random)
        .map_err(|_| PasswordError::System)?;
    let salt = Salt::new(&random).map_err(|_| PasswordError::System)?;
    let (algorithm, version) = (Algorithm::Argon2id, Version::V0x13);
    let named = ParamsString::try_from(&params).map_err(|_| PasswordError::System)?;
    let argon2 = Argon2::new(algorithm, version, params);
    let output = computed(&argon2, password, &salt, Params::DEFAULT_OUTPUT_LEN);
    let phc = Phc {
        algorithm: algorithm.ident(),
        version: Some(version.into()),
        params: named,
        salt: Some(salt),
        hash: Some(output.ok_or(PasswordError::System)?),
    };
    Ok(PasswordHash(phc.to_string()))
}

/// Whether a password is the one of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verified {
    /// It is not.
    No,
    /// It is.
    Yes,
    /// It is, and the hash is of an older kind: make a new one.
    Outdated,
}

impl Verified {
    /// Whether it is the password.
    #[must_use]
    pub fn matches(self) -> bool {
        self != Self::No
    }

    /// Whether the hash should be made anew.
    #[must_use]
    pub fn outdated(self) -> bool {
        self == Self::Outdated
    }
}

/// Compares a password with a stored hash: Argon2id, or the bcrypt of the old
/// system, which looks at the first 72 bytes. What is no such hash, or one that
/// would take far more memory or time than ours, matches nothing, and takes as
/// long as one that is; so does a password longer than [`MAX_BYTES`].
///
/// # Errors
///
/// [`PasswordError::Busy`] as for [`hash()`]; [`PasswordError::System`].
pub async fn verify(
    password: &SecretString,
    hash: &PasswordHash,
) -> Result<Verified, PasswordError> {
    verify_for(password, hash, Caller::Outside).await
}

/// As [`verify`], for a caller that may be in a transaction.
pub(crate) async fn verify_for(
    password: &SecretString,
    hash: &PasswordHash,
    caller: Caller,
) -> Result<Verified, PasswordError> {
    let (password, hash) = if password.expose_secret().len() > MAX_BYTES {
        (SecretString::default(), unusable())
    } else {
        (password.clone(), hash.clone())
    };
    queue::run(caller, move || compare_forms(&password, &hash.0)).await
}

/// What a password is compared with where there is no such hash.
struct Nobody {
    current: String,
    older: String,
}

static NOBODY: LazyLock<Option<Nobody>> = LazyLock::new(|| {
    let older = bcrypt::hash_with_salt("nobody", OLDER_COST, [0; 16]).ok()?;
    Some(Nobody {
        current: make("nobody").ok()?.0,
        older: older.to_string(),
    })
});

/// The usual cost of bcrypt, and the old system's.
const OLDER_COST: u32 = 10;

/// Where every hash that is computed for a comparison is told.
const COMPUTED: &str = "aura_db::password";

/// Compares each form of the password: a hash of another than the composed one is older.
/// How many there are depends on the password alone.
fn compare_forms(password: &SecretString, hash: &str) -> Verified {
    let forms = secret_forms(password);
    for (nth, form) in forms.iter().enumerate() {
        match compare(form.expose_secret(), hash) {
            Verified::No => {}
            Verified::Yes if nth > 0 => return Verified::Outdated,
            verified => return verified,
        }
    }
    Verified::No
}

/// Who is refused has cost one hash of each kind: nobody learns from the time
/// whether there is an account, or how old its hash is. (One of unusual
/// parameters takes a time of its own.)
fn compare(password: &str, hash: &str) -> Verified {
    let verified = argon2id(password, hash);
    if let Some(verified @ (Verified::Yes | Verified::Outdated)) = verified {
        return verified;
    }
    let older = older(password, hash);
    if older == Some(true) {
        return Verified::Outdated;
    }
    if let Some(nobody) = &*NOBODY {
        if verified.is_none() {
            argon2id(password, &nobody.current);
        }
        if older.is_none() {
            self::older(password, &nobody.older);
        }
    }
    Verified::No
}

/// Whether it is the password of a bcrypt hash; `None` when this is none that
/// we would compute.
fn older(password: &str, hash: &str) -> Option<bool> {
    let cost: u32 = hash.get(4..6)?.parse().ok()?;
    let kinds = ["$2a$", "$2b$", "$2y$"];
    // Each further step doubles the time; 16 is some seconds.
    if cost > 16 || !kinds.iter().any(|kind| hash.starts_with(kind)) {
        return None;
    }
    let verified = bcrypt::verify(password, hash).ok()?;
    tracing::trace!(target: COMPUTED, kind = "bcrypt");
    Some(verified)
}

/// `None` when this is no Argon2id hash that we would compute.
fn argon2id(password: &str, hash: &str) -> Option<Verified> {
    let phc = Phc::new(hash).ok()?;
    let params = Params::try_from(&phc).ok()?;
    let sane = params.m_cost() <= 16 * MEMORY_KIB
        && params.t_cost() <= 16 * PASSES
        && params.p_cost() <= 16;
    if phc.algorithm != Algorithm::Argon2id.ident() || !sane {
        return None;
    }
    let (salt, expected) = (phc.salt?, phc.hash?);
    let version = phc.version.map(Version::try_from).transpose().ok()?;
    tracing::trace!(target: COMPUTED, kind = "argon2id");
    let argon2 = Argon2::new(
        Algorithm::Argon2id,
        version.unwrap_or_default(),
        params.clone(),
    );
    // Compared in constant time.
    if computed(&argon2, password, &salt, expected.len()) != Some(expected) {
        return Some(Verified::No);
    }
    let current = version == Some(Version::V0x13)
        && params.m_cost() == MEMORY_KIB
        && params.t_cost() == PASSES
        && params.p_cost() == LANES;
    Some(if current {
        Verified::Yes
    } else {
        Verified::Outdated
    })
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
