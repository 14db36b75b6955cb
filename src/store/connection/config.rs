//! The settings of the database.

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

/// The section `target`. `config/default.toml` documents each key.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct TargetConfig {
    pub orders: TargetObjects,
    pub products: TargetObjects,
    pub customers: TargetObjects,
}

/// The names of a view and a function of the platform; both are set, or neither.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct TargetObjects {
    pub view: String,
    pub function: String,
}
