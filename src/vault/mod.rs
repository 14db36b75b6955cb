//! Tokens at rest: XChaCha20-Poly1305 under a ring of keys, bound to the merchant and the kind of token,
//! so that a stored text moved to another row does not open.
//!
//! A sealed token reads `v1.KEY_ID.NONCE.CIPHERTEXT`, the last two in unpadded base64url.

mod ring;
mod store;

pub use ring::{KeyRing, KeyRingError, OpenError, generate};
pub use store::Vault;

use secrecy::SecretString;
use serde::Deserialize;

/// The section `vault`; `config/default.toml` tells what each key is for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Config {
    pub keys: SecretString,
}
