//! Envelope encryption. A data key encrypts the tokens of each merchant, and a key in AWS KMS wraps the data key. The
//! stored text contains everything else that is needed to open it. The key in KMS never leaves KMS.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_kms::{primitives::Blob, types::DataKeySpec};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use zeroize::Zeroizing;

use super::{
    super::{
        backend::TokenBackend,
        text::{KEY_BYTES, Kind, TextError, decrypt, each, encrypt},
    },
    Aws, AwsError, Recent, recent,
};
use crate::{
    domain::MerchantId,
    reconcile::ports::{CredentialError, REFRESH_TAKES_AT_MOST, Sealed, Tokens},
};

const SCHEME: &str = "kms1";

/// The encryption context of a wrapped key, which `CloudTrail` shows and a key policy can name.
const CONTEXT: &str = "salla-reconciler:merchant";

/// No merchant has this id. It is for a data key that is thrown away.
const NO_MERCHANT: MerchantId = MerchantId(0);

/// A merchant's data key. The cipher wipes it.
struct DataKey {
    /// The KMS key that wrapped it: the last part of the ARN.
    id: String,
    /// In unpadded base64url.
    wrapped: String,
    cipher: XChaCha20Poly1305,
}

#[derive(Debug)]
pub(super) struct Kms {
    aws: Arc<Aws>,
    /// An id, an ARN or an alias.
    key: String,
    recent: Recent<DataKey>,
}

/// A sealed text, taken apart.
struct Parts<'a> {
    id: &'a str,
    wrapped: &'a str,
    nonce: &'a str,
    ciphertext: &'a str,
}

fn parts(sealed: &Sealed) -> Option<Parts<'_>> {
    let parts: Vec<&str> = sealed.0.split('.').collect();
    let [SCHEME, id, wrapped, nonce, ciphertext] = parts[..] else { return None };
    Some(Parts { id, wrapped, nonce, ciphertext })
}

fn unreadable(merchant: MerchantId, reason: impl Into<String>) -> CredentialError {
    CredentialError::Unreadable { merchant, reason: reason.into() }
}

/// What follows `key/` in an ARN.
fn id_of(arn: Option<&str>) -> String {
    let arn = arn.unwrap_or_default();
    arn.rsplit('/').next().unwrap_or(arn).to_owned()
}

fn cipher(plain: Option<Blob>) -> Option<XChaCha20Poly1305> {
    let plain = Zeroizing::new(plain?.into_inner());
    if plain.len() != KEY_BYTES {
        return None;
    }
    XChaCha20Poly1305::new_from_slice(&plain).ok()
}

impl Kms {
    pub fn new(aws: Arc<Aws>, key: String) -> Self {
        Self { aws, key, recent: recent() }
    }

    async fn generate(&self, merchant: MerchantId) -> Result<DataKey, CredentialError> {
        let request = self
            .aws
            .kms()
            .await?
            .generate_data_key()
            .key_id(&self.key)
            .key_spec(DataKeySpec::Aes256)
            .encryption_context(CONTEXT, merchant.to_string());
        let made = request.send().await.map_err(|error| match AwsError::of("AWS KMS", &error) {
            // Nothing is wrong with any stored token.
            AwsError::Away(reason) | AwsError::Refused { message: reason, .. } => {
                CredentialError::Unavailable { reason }
            }
        })?;
        let id = id_of(made.key_id.as_deref());
        let wrapped = made.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
        let cipher = cipher(made.plaintext).ok_or_else(|| CredentialError::Unavailable {
            reason: "AWS KMS returned an invalid data key".to_owned(),
        })?;
        Ok(DataKey { id, wrapped: URL_SAFE_NO_PAD.encode(wrapped), cipher })
    }

    async fn unwrap(&self, merchant: MerchantId, parts: &Parts<'_>) -> Result<DataKey, CredentialError> {
        let wrapped = URL_SAFE_NO_PAD.decode(parts.wrapped);
        let wrapped = wrapped.map_err(|_| unreadable(merchant, "the stored text is not an encrypted token"))?;
        let request = self
            .aws
            .kms()
            .await?
            .decrypt()
            .ciphertext_blob(Blob::new(wrapped))
            .encryption_context(CONTEXT, merchant.to_string());
        let opened = request.send().await.map_err(|error| match AwsError::of("AWS KMS", &error) {
            AwsError::Refused { code, .. } if code == "InvalidCiphertextException" => unreadable(
                merchant,
                format!(
                    "AWS KMS does not unwrap the data key with {:?}: the ciphertext was modified or moved",
                    parts.id
                ),
            ),
            error => error.about(merchant),
        })?;
        let id = id_of(opened.key_id.as_deref());
        if id.is_empty() {
            return Err(CredentialError::Unavailable { reason: "AWS KMS returned an empty answer".to_owned() });
        }
        if id != parts.id {
            return Err(unreadable(merchant, format!("it names the key {:?}, and was wrapped with {id:?}", parts.id)));
        }
        let cipher =
            cipher(opened.plaintext).ok_or_else(|| unreadable(merchant, "the wrapped text is not a data key"))?;
        Ok(DataKey { id, wrapped: parts.wrapped.to_owned(), cipher })
    }

    /// The data key of a text, with the time for which it is cached.
    async fn data_key(
        &self,
        merchant: MerchantId,
        parts: &Parts<'_>,
        longer: Duration,
    ) -> Result<Arc<DataKey>, CredentialError> {
        let known = self.recent.get(&merchant, longer).filter(|key| key.wrapped == parts.wrapped && key.id == parts.id);
        match known {
            Some(key) => Ok(key),
            None => Ok(self.recent.insert(merchant, Arc::new(self.unwrap(merchant, parts).await?))),
        }
    }

    /// The data key for the successors of what is stored: the same, if that is one; else one that was made ready.
    async fn next_key(
        &self,
        merchant: MerchantId,
        present: &Tokens<Sealed>,
        longer: Duration,
    ) -> Result<Arc<DataKey>, CredentialError> {
        if let Some(parts) = parts(&present.access) {
            return self.data_key(merchant, &parts, longer).await;
        }
        match self.recent.get(&merchant, longer) {
            Some(key) => Ok(key),
            None => Ok(self.recent.insert(merchant, Arc::new(self.generate(merchant).await?))),
        }
    }

    async fn open_one(
        &self,
        merchant: MerchantId,
        kind: Kind,
        sealed: &Sealed,
    ) -> Result<secrecy::SecretString, CredentialError> {
        let parts = parts(sealed).ok_or_else(|| unreadable(merchant, "the stored text is not an encrypted token"))?;
        let key = self.data_key(merchant, &parts, Duration::ZERO).await?;
        decrypt(&key.cipher, merchant, kind, parts.nonce, parts.ciphertext).map_err(|error| {
            unreadable(
                merchant,
                match error {
                    TextError::Shape => "the stored text is not an encrypted token",
                    TextError::DoesNotOpen => {
                        "decryption with its data key failed: the ciphertext was modified or moved"
                    }
                },
            )
        })
    }
}

#[async_trait]
impl TokenBackend for Kms {
    fn scheme(&self) -> &'static str {
        SCHEME
    }

    async fn key(&self) -> Result<String, CredentialError> {
        Ok(self.generate(NO_MERCHANT).await?.id)
    }

    fn key_of(&self, sealed: &Sealed) -> Option<String> {
        parts(sealed).map(|parts| parts.id.to_owned())
    }

    async fn seal(
        &self,
        merchant: MerchantId,
        tokens: &Tokens,
        renewed: Option<&Tokens<Sealed>>,
    ) -> Result<Tokens<Sealed>, CredentialError> {
        let key = match renewed {
            Some(present) => self.next_key(merchant, present, Duration::ZERO).await?,
            None => self.recent.insert(merchant, Arc::new(self.generate(merchant).await?)),
        };
        each(tokens, |kind, token| {
            let encrypted = encrypt(&key.cipher, merchant, kind, token);
            Ok(Sealed(format!("{SCHEME}.{}.{}.{encrypted}", key.id, key.wrapped)))
        })
    }

    async fn open(&self, merchant: MerchantId, sealed: &Tokens<Sealed>) -> Result<Tokens, CredentialError> {
        let access = self.open_one(merchant, Kind::Access, &sealed.access).await?;
        let refresh = match &sealed.refresh {
            Some(refresh) => Some(self.open_one(merchant, Kind::Refresh, refresh).await?),
            None => None,
        };
        Ok(sealed.with_texts(access, refresh))
    }

    async fn prepare(&self, merchant: MerchantId, present: &Tokens<Sealed>) -> Result<(), CredentialError> {
        self.next_key(merchant, present, REFRESH_TAKES_AT_MOST).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_called_by_the_end_of_its_arn() {
        let arn = "arn:aws:kms:me-south-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        assert_eq!(id_of(Some(arn)), "1234abcd-12ab-34cd-56ef-1234567890ab");
        assert_eq!(id_of(Some("mrk-1")), "mrk-1");
    }

    #[test]
    fn a_sealed_text_has_five_parts() {
        let of = |text: &str| parts(&Sealed(text.to_owned())).map(|parts| parts.id.to_owned());
        assert_eq!(of("kms1.id.wrapped.nonce.text"), Some("id".to_owned()));
        for none in
            ["", "kms1", "kms1.id.wrapped.nonce", "kms2.id.wrapped.nonce.text", "kms1.id.wrapped.nonce.text.more"]
        {
            assert_eq!(of(none), None);
        }
    }

    #[test]
    fn a_data_key_has_32_bytes() {
        assert!(cipher(Some(Blob::new([7; 32]))).is_some());
        assert!(cipher(Some(Blob::new([7; 16]))).is_none());
        assert!(cipher(None).is_none());
    }
}
