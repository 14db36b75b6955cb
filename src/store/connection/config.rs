//! What can be set about the database.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

/// The section `database`. `config/default.toml` documents each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Config {
    #[serde(deserialize_with = "crate::config::trimmed")]
    pub url: SecretString,
    pub url_file: PathBuf,
    pub schema: String,
    pub migrate: bool,
}
