//! The keys, and what is done with them.

use std::fmt;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::{
    backend::TokenBackend,
    text::{KEY_BYTES, Kind, TextError, decrypt, each, encrypt},
};
use crate::{
    domain::MerchantId,
    reconcile::ports::{CredentialError, Sealed, Tokens},
};

const LONGEST_ID: usize = 32;

/// Keys by their ids. The first seals, all open.
pub struct KeyRing {
    keys: Vec<(String, XChaCha20Poly1305)>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

/// Why a text is not a key ring. The message contains no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// The text is empty.
    #[error("no key is given")]
    Empty,
    /// Not `ID:BASE64`.
    #[error("entry {0} is not ID:BASE64, with an id of up to {LONGEST_ID} letters, digits, `-` and `_`")]
    Shape(usize),
    /// Not 32 bytes of base64.
    #[error("the key of entry {0} is not 32 bytes in base64")]
    Key(usize),
    /// One id, two keys.
    #[error("entry {0} has the id of another entry")]
    Twice(usize),
}

/// Why a sealed token does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The key is not in the ring.
    #[error("it is encrypted with key {0:?}, which is not in vault.keys")]
    UnknownKey(String),
    /// Wrong key under that id, another merchant's text, or a changed text.
    #[error(
        "decryption with key {0:?} failed: the key was replaced under the same id, or the ciphertext was modified or moved"
    )]
    DoesNotOpen(String),
    /// Not a sealed token.
    #[error("the stored text is not an encrypted token")]
    Shape,
}

impl KeyRing {
    /// Reads `ID:BASE64[,ID:BASE64…]`, or the same with one entry per line.
    ///
    /// # Errors
    /// When the text is empty, or a key cannot be read.
    pub fn parse(text: &SecretString) -> Result<Self, KeyRingError> {
        let mut keys: Vec<(String, XChaCha20Poly1305)> = Vec::new();
        let entries = text.expose_secret().split([',', '\n']).map(str::trim);
        for (number, entry) in entries.filter(|entry| !entry.is_empty()).enumerate() {
            let (id, key) =
                entry.split_once(':').filter(|(id, _)| is_key_id(id)).ok_or(KeyRingError::Shape(number + 1))?;
            let cipher = cipher(key).ok_or(KeyRingError::Key(number + 1))?;
            if keys.iter().any(|(known, _)| known == id) {
                return Err(KeyRingError::Twice(number + 1));
            }
            keys.push((id.to_owned(), cipher));
        }
        if keys.is_empty() {
            return Err(KeyRingError::Empty);
        }
        Ok(Self { keys })
    }

    /// A ring without a key: it encrypts nothing, and names the missing key of a ciphertext.
    pub(super) fn empty() -> Self {
        Self { keys: Vec::new() }
    }

    fn id_of(sealed: &Sealed) -> Option<&str> {
        sealed.0.strip_prefix("v1.")?.split('.').next()
    }

    fn seal_one(&self, merchant: MerchantId, kind: Kind, token: &SecretString) -> Option<Sealed> {
        let (id, cipher) = self.keys.first()?;
        Some(Sealed(format!("v1.{id}.{}", encrypt(cipher, merchant, kind, token))))
    }

    fn open_one(&self, merchant: MerchantId, kind: Kind, sealed: &Sealed) -> Result<SecretString, OpenError> {
        let parts: Vec<&str> = sealed.0.split('.').collect();
        let ["v1", id, nonce, ciphertext] = parts[..] else {
            return Err(OpenError::Shape);
        };
        let (_, cipher) =
            self.keys.iter().find(|(known, _)| known == id).ok_or_else(|| OpenError::UnknownKey(id.to_owned()))?;
        decrypt(cipher, merchant, kind, nonce, ciphertext).map_err(|error| match error {
            TextError::Shape => OpenError::Shape,
            TextError::DoesNotOpen => OpenError::DoesNotOpen(id.to_owned()),
        })
    }
}

#[async_trait]
impl TokenBackend for KeyRing {
    fn scheme(&self) -> &'static str {
        "v1"
    }

    async fn key(&self) -> Result<String, CredentialError> {
        self.keys.first().map(|(id, _)| id.clone()).ok_or_else(no_key)
    }

    fn other_keys(&self) -> Vec<String> {
        self.keys.iter().map(|(id, _)| id.clone()).collect()
    }

    fn key_of(&self, sealed: &Sealed) -> Option<String> {
        Self::id_of(sealed).map(str::to_owned)
    }

    async fn seal(
        &self,
        merchant: MerchantId,
        tokens: &Tokens,
        _renewed: Option<&Tokens<Sealed>>,
    ) -> Result<Tokens<Sealed>, CredentialError> {
        each(tokens, |kind, token| self.seal_one(merchant, kind, token).ok_or_else(no_key))
    }

    async fn open(&self, merchant: MerchantId, sealed: &Tokens<Sealed>) -> Result<Tokens, CredentialError> {
        each(sealed, |kind, sealed| {
            self.open_one(merchant, kind, sealed)
                .map_err(|error| CredentialError::Unreadable { merchant, reason: error.to_string() })
        })
    }
}

/// The command line and the daemon look for one before they begin.
fn no_key() -> CredentialError {
    CredentialError::Unavailable { reason: "vault.keys is not set".to_owned() }
}

fn cipher(key: &str) -> Option<XChaCha20Poly1305> {
    // Room for what base64 may need beyond the key while it decodes.
    let mut bytes = Zeroizing::new([0; 2 * KEY_BYTES]);
    let length = STANDARD.decode_slice(key, &mut *bytes).ok()?;
    XChaCha20Poly1305::new_from_slice(&bytes[..length]).ok()
}

/// Whether a text may be the id of a key. Errors show ids. An id is shorter than any key, so it is never a key that
/// stands in its place.
#[must_use]
pub fn is_key_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= LONGEST_ID && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// A new random key under `id`, as the text that [`KeyRing::parse`] reads.
#[must_use]
pub fn generate(id: &str) -> SecretString {
    let key = Zeroizing::new(rand::random::<[u8; KEY_BYTES]>());
    // Written in place, because a growing text leaves copies of its content behind.
    let mut text = String::with_capacity(id.len() + 1 + base64::encoded_len(KEY_BYTES, true).unwrap_or_default());
    text.push_str(id);
    text.push(':');
    STANDARD.encode_string(*key, &mut text);
    SecretString::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: MerchantId = MerchantId(1001);

    fn ring(text: &str) -> KeyRing {
        KeyRing::parse(&SecretString::from(text)).unwrap()
    }

    fn key(id: &str) -> String {
        generate(id).expose_secret().to_owned()
    }

    #[test]
    fn every_key_of_the_ring_decrypts() {
        let (old, new) = (key("old"), key("new"));
        let sealed = ring(&old).seal_one(STORE, Kind::Access, &"canary".into()).unwrap();
        assert_eq!(KeyRing::id_of(&sealed), Some("old"));
        let both = ring(&format!("{new},{old}"));
        assert_eq!(both.open_one(STORE, Kind::Access, &sealed).unwrap().expose_secret(), "canary");
        let resealed = both.seal_one(STORE, Kind::Access, &"canary".into()).unwrap();
        assert_eq!(KeyRing::id_of(&resealed), Some("new"));
    }

    #[test]
    fn a_moved_or_modified_ciphertext_does_not_decrypt() {
        let ring = ring(&key("k"));
        let sealed = ring.seal_one(STORE, Kind::Access, &"canary".into()).unwrap();
        assert!(ring.open_one(MerchantId(1002), Kind::Access, &sealed).is_err());
        assert!(ring.open_one(STORE, Kind::Refresh, &sealed).is_err());
        let mut text = sealed.0.clone();
        let last = if text.pop() == Some('A') { 'B' } else { 'A' };
        text.push(last);
        assert!(ring.open_one(STORE, Kind::Access, &Sealed(text)).is_err());
        assert_eq!(ring.open_one(STORE, Kind::Access, &Sealed("x".to_owned())).unwrap_err(), OpenError::Shape);
    }

    #[test]
    fn a_missing_key_is_named() {
        let sealed = ring(&key("gone")).seal_one(STORE, Kind::Access, &"canary".into()).unwrap();
        assert_eq!(
            ring(&key("k")).open_one(STORE, Kind::Access, &sealed).unwrap_err(),
            OpenError::UnknownKey("gone".to_owned())
        );
    }

    #[test]
    fn invalid_key_rings_are_refused() {
        let of = |text: &str| KeyRing::parse(&SecretString::from(text)).unwrap_err();
        assert_eq!(of(""), KeyRingError::Empty);
        assert_eq!(of("abc"), KeyRingError::Shape(1));
        assert_eq!(of("k:short"), KeyRingError::Key(1));
        assert_eq!(of(&format!("k:{}", STANDARD.encode([7; 33]))), KeyRingError::Key(1));
        let reversed = format!("{}:k", STANDARD.encode([7; 32]).trim_end_matches('='));
        assert_eq!(of(&reversed), KeyRingError::Shape(1), "an error would quote the key as an id");
        assert_eq!(of(&format!("{},{}", key("k"), key("k"))), KeyRingError::Twice(2));
        assert!(!format!("{:?}", ring(&key("k"))).contains(':'));
    }
}
