//! Tokens at rest.
//!
//! One of several [backends](TokenBackends) seals them. Each text is bound to the
//! merchant, and each ciphertext also to the kind of token. So a text that is moved to another row
//! does not open.
//!
//! | Sealed by | A sealed token reads |
//! |---|---|
//! | a ring of keys of one's own | `v1.KEY_ID.NONCE.CIPHERTEXT` |
//! | a key in AWS KMS, which wraps a data key a merchant | `kms1.KEY_ID.WRAPPED_KEY.NONCE.CIPHERTEXT` |
//! | AWS Secrets Manager, which keeps the tokens themselves | `sm1.VERSION_ID` |
//!
//! Nonces, ciphertexts (XChaCha20-Poly1305) and wrapped keys are in unpadded base64url.

#[cfg(feature = "aws")]
mod aws;
mod backend;
mod owner_check;
mod ring;
mod store;
mod text;

pub use backend::TokenBackends;
pub use owner_check::OwnerCheckedRegister;
pub use ring::{KeyRing, KeyRingError, OpenError, generate, is_key_id};
pub use store::Vault;

use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use crate::domain::words;

words! {
    /// Who seals.
    Choice ("token backend") {
        /// The first key of `vault.keys`.
        Local = "local",
        /// `vault.kms_key`.
        Kms = "kms",
        /// AWS Secrets Manager, under `vault.secrets_prefix`.
        SecretsManager = "secrets_manager",
    }
}

/// The section `vault`. `config/default.toml` documents each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Config {
    #[serde(deserialize_with = "crate::config::parsed")]
    pub backend: Choice,
    pub kms_key: String,
    pub secrets_prefix: String,
    #[serde(deserialize_with = "crate::config::trimmed")]
    pub keys: SecretString,
    pub keys_file: PathBuf,
}

impl Config {
    /// The first problem of the section: the key, the problem, and the fix.
    pub(crate) fn problem(&self) -> Option<(&'static str, String, &'static str)> {
        if !backend::is_built_with(self.backend) {
            let fix = "build with --features aws, or set it to local";
            return Some(("vault.backend", "needs a program that was built with the feature aws".to_owned(), fix));
        }
        if self.backend == Choice::Kms && self.kms_key.is_empty() {
            let fix = "set a symmetric key: its id, its ARN, or alias/NAME";
            return Some(("vault.kms_key", "is not set, and vault.backend = kms needs it".to_owned(), fix));
        }
        let of_secrets = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c);
        if self.secrets_prefix.is_empty()
            || self.secrets_prefix.len() > 400
            || !self.secrets_prefix.chars().all(of_secrets)
        {
            let problem = "cannot be the beginning of the name of a secret".to_owned();
            return Some(("vault.secrets_prefix", problem, "use letters, digits and / _ + = . @ -"));
        }
        let keys = KeyRing::parse(&self.keys).err().filter(|error| *error != KeyRingError::Empty);
        keys.map(|error| ("vault.keys", error.to_string(), "`salla-reconciler keys generate --id NAME` prints a key"))
    }
}
