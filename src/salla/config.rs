//! The settings of Salla.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use crate::domain::words;

/// The section `salla`. `config/default.toml` documents each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Config {
    #[serde(deserialize_with = "crate::config::parsed")]
    pub api_url: Url,
    #[serde(deserialize_with = "crate::config::parsed")]
    pub token_url: Url,
    #[serde(deserialize_with = "crate::config::trimmed")]
    pub client_id: String,
    #[serde(deserialize_with = "crate::config::trimmed")]
    pub client_secret: SecretString,
    pub client_secret_file: PathBuf,
    #[serde(deserialize_with = "crate::config::trimmed")]
    pub webhook_secret: SecretString,
    pub webhook_secret_file: PathBuf,
    #[serde(deserialize_with = "crate::config::parsed")]
    pub listing: ListingChoice,
    #[serde(deserialize_with = "crate::config::duration")]
    pub request_timeout: Duration,
    pub max_attempts: u32,
    #[serde(deserialize_with = "crate::config::duration")]
    pub max_retry_after: Duration,
    pub requests_per_minute: u32,
    pub limit_share: f64,
    pub max_requests_per_minute: u32,
    pub customer_requests_per_10_minutes: u32,
    #[serde(deserialize_with = "crate::config::trimmed")]
    pub proxy: SecretString,
    pub proxy_file: PathBuf,
}

words! {
    /// How the orders that may have changed are found.
    ListingChoice ("way to list") {
        /// The first of the others that the server of a merchant supports.
        Auto = "auto",
        /// The filter `updated_at_min`, which the server must support.
        Filter = "filter",
        /// The list sorted by time of change, as long as it proves that it is; otherwise as `scan`.
        Sort = "sort",
        /// The whole list by days of creation, and details where they are needed.
        Scan = "scan",
    }
}
