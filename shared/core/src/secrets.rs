//! Secrets: kept out of logs by type, encrypted at rest with a key that can be rotated, compared in constant time.
//!
//! Nothing here may print, log or put into an error what it protects.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
pub use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::section::Security;

const KEY_BYTES: usize = 32;
/// The key's id in front of each ciphertext: 8 bytes of sha256 in hex.
const ID_BYTES: usize = 16;
const NONCE_BYTES: usize = 24;

/// The key that encrypts, and former ones that still decrypt.
///
/// A ciphertext is the key's id (16 hex characters), the nonce (24 bytes), and XChaCha20-Poly1305's output. Nonces are random, which
/// their length makes safe for any number of messages.
#[derive(Clone)]
pub struct KeyRing {
    current: Key,
    old: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: [u8; ID_BYTES],
    cipher: XChaCha20Poly1305,
}

/// Why a secret cannot be protected or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No key is configured and no key file exists.
    #[error(
        "no encryption key: set SLUICE_KEY (32 bytes, base64; `openssl rand -base64 32` makes one), or [security] key, or run `sluice up` once, which makes {file}"
    )]
    NoKey {
        /// Where the key file would be.
        file: PathBuf,
    },
    /// The text is no key.
    #[error("{place} is not a key: expected 32 bytes in base64, as `openssl rand -base64 32` prints")]
    BadKey {
        /// The configuration key or the file.
        place: String,
    },
    /// The key file cannot be read or made.
    #[error("cannot use the key file {file}: {source}")]
    KeyFile {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Encrypted with a key that is neither the current nor an old one.
    #[error("encrypted with key {id}, which is not in [security]; add it to old_keys")]
    UnknownKey {
        /// The missing key's id.
        id: String,
    },
    /// Cut short, changed, or moved from the row it belongs to.
    #[error("a stored secret does not decrypt: it was changed, or moved from another row")]
    Corrupt,
}

impl KeyRing {
    /// The key from `[security] key` (which the loader fills from SLUICE_KEY), else from `.sluice/key` in `folder`.
    ///
    /// # Errors
    /// [`Error::NoKey`] where there is neither; [`Error::BadKey`], [`Error::KeyFile`].
    pub fn load(security: &Security, folder: &Path) -> Result<Self, Error> {
        let file = key_file(folder);
        match &security.key {
            Some(key) => Self::new(parse_key("[security] key", key)?, security),
            None => Self::new(read_key(&file)?.ok_or(Error::NoKey { file })?, security),
        }
    }

    /// As [`KeyRing::load`], but makes `.sluice/key` (mode 0600) where there is no key; for `up` and `demo` alone. Several processes
    /// may do so at once: all end with the same key.
    ///
    /// # Errors
    /// [`Error::BadKey`], [`Error::KeyFile`].
    pub fn load_or_create(security: &Security, folder: &Path) -> Result<Self, Error> {
        if security.key.is_none() && read_key(&key_file(folder))?.is_none() {
            create_key_file(&key_file(folder))?;
        }
        Self::load(security, folder)
    }

    fn new(current: Key, security: &Security) -> Result<Self, Error> {
        let old = security.old_keys.iter().enumerate();
        let old = old.map(|(index, key)| parse_key(&format!("[security] old_keys[{index}]"), key)).collect::<Result<_, _>>()?;
        Ok(Self { current, old })
    }

    /// Encrypts `secret`. `row` names what it belongs to, such as `oauth_token:main`: the same is needed to decrypt, so that a
    /// ciphertext copied to another row is of no use there.
    ///
    /// # Errors
    /// [`Error::Corrupt`] only if the secret is longer than the cipher takes (256 GiB).
    pub fn encrypt(&self, secret: &SecretString, row: &str) -> Result<Vec<u8>, Error> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad: row.as_bytes() };
        let sealed = self.current.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| Error::Corrupt)?;
        Ok([self.current.id.as_slice(), &nonce, &sealed].concat())
    }

    /// Decrypts what [`KeyRing::encrypt`] made for the same `row`, with the current or an old key.
    ///
    /// # Errors
    /// [`Error::UnknownKey`], [`Error::Corrupt`].
    pub fn decrypt(&self, sealed: &[u8], row: &str) -> Result<SecretString, Error> {
        let (id, rest) = sealed.split_at_checked(ID_BYTES).ok_or(Error::Corrupt)?;
        let (nonce, msg) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(Error::Corrupt)?;
        let key = std::iter::once(&self.current).chain(&self.old).find(|key| key.id == id);
        let key = key.ok_or_else(|| Error::UnknownKey { id: String::from_utf8_lossy(id).into_owned() })?;
        let opened = key.cipher.decrypt(&XNonce::from(*nonce), Payload { msg, aad: row.as_bytes() }).map_err(|_| Error::Corrupt)?;
        String::from_utf8(opened).map(SecretString::from).map_err(|_| Error::Corrupt)
    }

    /// Whether a ciphertext was made with another key than the current one, and should be made anew.
    pub fn needs_reencrypt(&self, sealed: &[u8]) -> bool {
        !sealed.starts_with(&self.current.id)
    }

    /// The current key's id, to show; it tells nothing about the key.
    pub fn id(&self) -> &str {
        std::str::from_utf8(&self.current.id).unwrap_or_default()
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("id", &self.id()).field("old", &self.old.len()).finish_non_exhaustive()
    }
}

/// A new random token: 32 bytes, in the letters that a URL takes as they are.
pub fn random_token() -> SecretString {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()).into()
}

/// A new random key, as `[security] key` takes it.
pub fn random_key() -> SecretString {
    STANDARD.encode(rand::random::<[u8; KEY_BYTES]>()).into()
}

/// Sha256 of a token, in hex. Enough for our own random tokens, which cannot be guessed; not for passwords.
pub fn hash_token(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

/// Whether `token` is the one that [`hash_token`] made `hash` of; takes the same time whether or not.
pub fn token_matches(token: &str, hash: &str) -> bool {
    hash_token(token).as_bytes().ct_eq(hash.as_bytes()).into()
}

/// Whether two secrets are equal; takes the same time wherever they differ.
pub fn equal(one: &SecretString, other: &SecretString) -> bool {
    token_matches(one.expose_secret(), &hash_token(other.expose_secret()))
}

/// Whether `text` could be a key; for checking the configuration.
pub(crate) fn is_key(text: &SecretString) -> bool {
    parse_key("", text).is_ok()
}

fn key_file(folder: &Path) -> PathBuf {
    folder.join(".sluice").join("key")
}

fn parse_key(place: &str, text: &SecretString) -> Result<Key, Error> {
    let bad = || Error::BadKey { place: place.to_owned() };
    let bytes = STANDARD.decode(text.expose_secret().trim()).map_err(|_| bad())?;
    let cipher = XChaCha20Poly1305::new_from_slice(&bytes).map_err(|_| bad())?;
    let mut id = [0; ID_BYTES];
    id.copy_from_slice(hex(&Sha256::digest(&bytes)[..ID_BYTES / 2]).as_bytes());
    Ok(Key { id, cipher })
}

fn read_key(file: &Path) -> Result<Option<Key>, Error> {
    match std::fs::read_to_string(file) {
        Ok(text) => parse_key(&file.display().to_string(), &text.into()).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::KeyFile { file: file.to_owned(), source }),
    }
}

/// Writes a new key beside `file` and gives it the name only if nobody else did so first.
fn create_key_file(file: &Path) -> Result<(), Error> {
    let failed = |source| Error::KeyFile { file: file.to_owned(), source };
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    // A temporary file is readable by its owner alone, and keeps that mode.
    let mut new = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    writeln!(new, "{}", random_key().expose_secret()).map_err(failed)?;
    new.as_file().sync_all().map_err(failed)?;
    match new.persist_noclobber(file) {
        Err(error) if error.error.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(error.error)),
        _ => Ok(()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ring(current: &SecretString, old: &[&SecretString]) -> KeyRing {
        let security = Security { key: Some(current.clone()), old_keys: old.iter().map(|key| (*key).clone()).collect() };
        KeyRing::load(&security, Path::new("/nowhere")).unwrap()
    }

    #[test]
    fn a_secret_comes_back_only_for_its_own_row_and_unchanged() {
        let ring = ring(&random_key(), &[]);
        let sealed = ring.encrypt(&"refresh".into(), "token:main").unwrap();
        assert_eq!(ring.decrypt(&sealed, "token:main").unwrap().expose_secret(), "refresh");
        assert!(matches!(ring.decrypt(&sealed, "token:other"), Err(Error::Corrupt)));
        for index in [ID_BYTES, ID_BYTES + NONCE_BYTES, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(matches!(ring.decrypt(&changed, "token:main"), Err(Error::Corrupt)), "byte {index}");
        }
        for length in [0, ID_BYTES, ID_BYTES + NONCE_BYTES - 1] {
            assert!(matches!(ring.decrypt(&sealed[..length], "token:main"), Err(Error::Corrupt)), "length {length}");
        }
    }

    #[test]
    fn the_same_secret_never_looks_the_same_twice() {
        let ring = ring(&random_key(), &[]);
        assert_ne!(ring.encrypt(&"a".into(), "row").unwrap(), ring.encrypt(&"a".into(), "row").unwrap());
    }

    #[test]
    fn an_old_key_still_decrypts_and_its_secrets_ask_to_be_made_anew() {
        let (old, new) = (random_key(), random_key());
        let sealed = ring(&old, &[]).encrypt(&"refresh".into(), "row").unwrap();
        let rotated = ring(&new, &[&old]);
        assert_eq!(rotated.decrypt(&sealed, "row").unwrap().expose_secret(), "refresh");
        assert!(rotated.needs_reencrypt(&sealed));
        assert!(!rotated.needs_reencrypt(&rotated.encrypt(&"refresh".into(), "row").unwrap()));
        assert!(matches!(ring(&new, &[]).decrypt(&sealed, "row"), Err(Error::UnknownKey { id }) if id == ring(&old, &[]).id()));
    }

    #[test]
    fn without_a_key_only_load_or_create_goes_on_and_makes_one_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let none = Security::default();
        let error = KeyRing::load(&none, folder.path()).unwrap_err();
        assert!(error.to_string().contains("SLUICE_KEY") && error.to_string().contains("sluice up"), "{error}");
        let made = KeyRing::load_or_create(&none, folder.path()).unwrap();
        assert_eq!(KeyRing::load_or_create(&none, folder.path()).unwrap().id(), made.id());
        assert_eq!(KeyRing::load(&none, folder.path()).unwrap().id(), made.id());
        let mode = std::fs::metadata(key_file(folder.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn many_processes_that_make_the_key_at_once_end_with_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let make = || KeyRing::load_or_create(&Security::default(), folder.path()).unwrap().id().to_owned();
        let ids: std::collections::BTreeSet<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(ids.len(), 1);
    }

    #[test]
    fn a_bad_key_is_refused_without_being_shown() {
        let short = STANDARD.encode([7; 31]);
        let security = Security { key: Some(short.clone().into()), old_keys: vec![] };
        let error = KeyRing::load(&security, Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().contains("[security] key") && !error.to_string().contains(&short));
        let security = Security { key: Some(random_key()), old_keys: vec![random_key(), "not base64!".into()] };
        assert!(KeyRing::load(&security, Path::new("/nowhere")).unwrap_err().to_string().contains("old_keys[1]"));
    }

    #[test]
    fn no_secret_is_in_what_debug_prints() {
        let key = random_key();
        let shown = format!("{:?} {:?}", ring(&key, &[&random_key()]), Security { key: Some(key.clone()), old_keys: vec![] });
        assert!(!shown.contains(key.expose_secret()), "{shown}");
    }

    #[test]
    fn a_token_matches_its_own_hash_only() {
        let token = random_token();
        let hash = hash_token(token.expose_secret());
        assert!(token_matches(token.expose_secret(), &hash));
        assert!(!token_matches(random_token().expose_secret(), &hash));
        assert!(!token_matches(token.expose_secret(), "") && !token_matches("", &hash));
        assert!(equal(&token, &token.clone()) && !equal(&token, &random_token()));
    }
}
