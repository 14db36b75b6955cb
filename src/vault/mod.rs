//! Tokens at rest: XChaCha20-Poly1305 under a ring of keys, bound to the merchant and the kind of token,
//! so that a stored text moved to another row does not open.
//!
//! A sealed token reads `v1.KEY_ID.NONCE.CIPHERTEXT`, the last two in unpadded base64url.

mod ring;
mod store;

pub use ring::{KeyRing, KeyRingError, OpenError, generate};
pub use store::Vault;

use std::{io::Read, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

/// No ring comes near this.
const LARGEST_FILE: u64 = 64 << 10;

/// The section `vault`; `config/default.toml` tells what each key is for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Config {
    pub keys: SecretString,
    pub keys_file: PathBuf,
}

impl Config {
    /// Takes the keys from the file, where one is named.
    ///
    /// # Errors
    /// What is wrong with it, in words: there are keys beside it, or it cannot be read.
    pub fn read_file(&mut self) -> Result<(), String> {
        if self.keys_file.as_os_str().is_empty() {
            return Ok(());
        }
        if !self.keys.expose_secret().is_empty() {
            return Err("is set, and so is vault.keys".to_owned());
        }
        let file = self.keys_file.display();
        let mut text = Zeroizing::new(String::new());
        let read = std::fs::File::open(&self.keys_file);
        let read = read.and_then(|file| file.take(LARGEST_FILE).read_to_string(&mut text));
        read.map_err(|error| format!("{file} cannot be read: {error}"))?;
        if text.trim().is_empty() {
            return Err(format!("{file} is empty"));
        }
        self.keys = text.trim().into();
        Ok(())
    }
}
