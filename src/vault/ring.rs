//! The keys, and what is done with them.

use std::fmt;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::{domain::MerchantId, reconcile::ports::Sealed};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const LONGEST_ID: usize = 32;

/// Which of a merchant's tokens a sealed text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Access,
    Refresh,
}

/// Keys by their ids. The first seals, all open.
pub struct KeyRing {
    keys: Vec<(String, XChaCha20Poly1305)>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

/// Why a text is no key ring. Says nothing of the keys themselves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// There is none.
    #[error("no key is given")]
    Empty,
    /// Not `ID:BASE64`.
    #[error("entry {0} is not ID:BASE64, with an id of up to {LONGEST_ID} letters, digits, `-` and `_`")]
    Shape(usize),
    /// Not 32 bytes of base64.
    #[error("key {0:?} is not 32 bytes in base64")]
    Key(String),
    /// One id, two keys.
    #[error("key id {0:?} is given twice")]
    Twice(String),
}

/// Why a sealed token does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The key is not in the ring.
    #[error("it is sealed under key {0:?}, which is not in vault.keys")]
    UnknownKey(String),
    /// Wrong key under that id, another merchant's text, or a changed text.
    #[error("key {0:?} does not open it: another key went by that id, or the stored text was changed or moved")]
    DoesNotOpen(String),
    /// Not a sealed token.
    #[error("the stored text is not a sealed token")]
    Shape,
}

impl KeyRing {
    /// Reads `ID:BASE64[,ID:BASE64…]`, or the same with an entry a line.
    ///
    /// # Errors
    /// When there is no key, or one cannot be read.
    pub fn parse(text: &SecretString) -> Result<Self, KeyRingError> {
        let mut keys: Vec<(String, XChaCha20Poly1305)> = Vec::new();
        let entries = text.expose_secret().split([',', '\n']).map(str::trim);
        for (number, entry) in entries.filter(|entry| !entry.is_empty()).enumerate() {
            let (id, key) = entry.split_once(':').filter(|(id, _)| is_id(id)).ok_or(KeyRingError::Shape(number + 1))?;
            let cipher = cipher(key).ok_or_else(|| KeyRingError::Key(id.to_owned()))?;
            if keys.iter().any(|(known, _)| known == id) {
                return Err(KeyRingError::Twice(id.to_owned()));
            }
            keys.push((id.to_owned(), cipher));
        }
        if keys.is_empty() {
            return Err(KeyRingError::Empty);
        }
        Ok(Self { keys })
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn first_id(&self) -> &str {
        &self.keys[0].0
    }

    /// Every key's id, the one that seals first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(id, _)| id.as_str())
    }

    /// The id of the key that a sealed token names.
    #[must_use]
    pub fn id_of(sealed: &Sealed) -> Option<&str> {
        sealed.0.strip_prefix("v1.")?.split('.').next()
    }

    pub(super) fn seal(&self, merchant: MerchantId, kind: Kind, token: &SecretString) -> Sealed {
        let (id, cipher) = &self.keys[0];
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload { msg: token.expose_secret().as_bytes(), aad: &associated(merchant, kind) };
        let ciphertext = cipher
            .encrypt(&XNonce::from(nonce), payload)
            .unwrap_or_else(|_| unreachable!("a token is far below the cipher's limit of 256 GiB"));
        Sealed(format!("v1.{id}.{}.{}", URL_SAFE_NO_PAD.encode(nonce), URL_SAFE_NO_PAD.encode(ciphertext)))
    }

    pub(super) fn open(&self, merchant: MerchantId, kind: Kind, sealed: &Sealed) -> Result<SecretString, OpenError> {
        let parts: Vec<&str> = sealed.0.split('.').collect();
        let ["v1", id, nonce, ciphertext] = parts[..] else {
            return Err(OpenError::Shape);
        };
        let decode = |text| URL_SAFE_NO_PAD.decode(text).map_err(|_| OpenError::Shape);
        let nonce: [u8; NONCE_BYTES] = decode(nonce)?.try_into().map_err(|_| OpenError::Shape)?;
        let ciphertext = decode(ciphertext)?;
        let (_, cipher) =
            self.keys.iter().find(|(known, _)| known == id).ok_or_else(|| OpenError::UnknownKey(id.to_owned()))?;
        let payload = Payload { msg: &ciphertext, aad: &associated(merchant, kind) };
        let plain = cipher
            .decrypt(&XNonce::from(nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| OpenError::DoesNotOpen(id.to_owned()))?;
        std::str::from_utf8(&plain).map(SecretString::from).map_err(|_| OpenError::Shape)
    }
}

/// What a sealed token is bound to.
fn associated(merchant: MerchantId, kind: Kind) -> Vec<u8> {
    let kind = match kind {
        Kind::Access => "access_token",
        Kind::Refresh => "refresh_token",
    };
    format!("salla-reconciler/credentials/{kind}/{merchant}").into_bytes()
}

fn cipher(key: &str) -> Option<XChaCha20Poly1305> {
    // Room for what base64 may need beyond the key while it decodes.
    let mut bytes = Zeroizing::new([0; 2 * KEY_BYTES]);
    let length = STANDARD.decode_slice(key, &mut *bytes).ok()?;
    XChaCha20Poly1305::new_from_slice(&bytes[..length]).ok()
}

/// An id is shown in errors. Being shorter than any key, it never is one that stands in its place.
fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= LONGEST_ID && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// A new random key under `id`, as the text that [`KeyRing::parse`] reads.
#[must_use]
pub fn generate(id: &str) -> SecretString {
    let key = Zeroizing::new(rand::random::<[u8; KEY_BYTES]>());
    // Written where it stands: a text that grows leaves what it held behind.
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
    fn opens_what_it_sealed_under_any_key_of_the_ring() {
        let (old, new) = (key("old"), key("new"));
        let sealed = ring(&old).seal(STORE, Kind::Access, &"canary".into());
        assert_eq!(KeyRing::id_of(&sealed), Some("old"));
        let both = ring(&format!("{new},{old}"));
        assert_eq!(both.open(STORE, Kind::Access, &sealed).unwrap().expose_secret(), "canary");
        let resealed = both.seal(STORE, Kind::Access, &"canary".into());
        assert_eq!(KeyRing::id_of(&resealed), Some("new"));
    }

    #[test]
    fn a_text_that_was_moved_or_changed_does_not_open() {
        let ring = ring(&key("k"));
        let sealed = ring.seal(STORE, Kind::Access, &"canary".into());
        assert!(ring.open(MerchantId(1002), Kind::Access, &sealed).is_err());
        assert!(ring.open(STORE, Kind::Refresh, &sealed).is_err());
        let mut text = sealed.0.clone();
        let last = if text.pop() == Some('A') { 'B' } else { 'A' };
        text.push(last);
        assert!(ring.open(STORE, Kind::Access, &Sealed(text)).is_err());
        assert_eq!(ring.open(STORE, Kind::Access, &Sealed("x".to_owned())).unwrap_err(), OpenError::Shape);
    }

    #[test]
    fn a_missing_key_is_named() {
        let sealed = ring(&key("gone")).seal(STORE, Kind::Access, &"canary".into());
        assert_eq!(
            ring(&key("k")).open(STORE, Kind::Access, &sealed).unwrap_err(),
            OpenError::UnknownKey("gone".to_owned())
        );
    }

    #[test]
    fn what_is_no_ring() {
        let of = |text: &str| KeyRing::parse(&SecretString::from(text)).unwrap_err();
        assert_eq!(of(""), KeyRingError::Empty);
        assert_eq!(of("abc"), KeyRingError::Shape(1));
        assert_eq!(of("k:short"), KeyRingError::Key("k".to_owned()));
        assert_eq!(of(&format!("k:{}", STANDARD.encode([7; 33]))), KeyRingError::Key("k".to_owned()));
        let reversed = format!("{}:k", URL_SAFE_NO_PAD.encode([7; 32]));
        assert_eq!(of(&reversed), KeyRingError::Shape(1), "an error would quote the key as an id");
        assert_eq!(of(&format!("{},{}", key("k"), key("k"))), KeyRingError::Twice("k".to_owned()));
        assert!(!format!("{:?}", ring(&key("k"))).contains(':'));
    }
}
