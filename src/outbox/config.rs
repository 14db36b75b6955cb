//! The settings of the event delivery.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use crate::domain::EventDetail;

/// The section `cdc`. `config/default.toml` documents each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Config {
    pub publication: String,
    #[serde(deserialize_with = "crate::config::trimmed")]
    pub webhook_url: SecretString,
    pub webhook_url_file: PathBuf,
    #[serde(deserialize_with = "crate::config::trimmed")]
    pub webhook_secret: SecretString,
    pub webhook_secret_file: PathBuf,
    pub slot: String,
    pub events: EventDetail,
    pub skip_unchanged: bool,
}
