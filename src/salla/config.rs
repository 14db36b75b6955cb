//! What can be set about Salla.

use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use crate::domain::words;

/// The section `salla`; `config/default.toml` tells what each key is for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Config {
    pub api_url: Url,
    pub token_url: Url,
    pub client_id: String,
    pub client_secret: SecretString,
    pub webhook_secret: SecretString,
    #[serde(deserialize_with = "crate::config::parsed")]
    pub listing: ListingChoice,
    #[serde(deserialize_with = "crate::config::duration")]
    pub request_timeout: Duration,
    pub max_attempts: u32,
    #[serde(deserialize_with = "crate::config::duration")]
    pub max_retry_after: Duration,
    pub requests_per_minute: u32,
    pub limit_share: f64,
    pub process_requests_per_minute: u32,
    pub address_requests_per_10_minutes: u32,
    pub proxy: SecretString,
}

words! {
    /// How the orders that may have changed are found.
    ListingChoice ("way to list") {
        /// The filter `updated_at_min`, and what is documented for a store whose server does not honour it.
        Auto = "auto",
        /// The filter `updated_at_min`, which the server must honour.
        UpdatedAtMin = "updated_at_min",
        /// What Salla's public documentation describes: summaries of the whole store, and details where they are needed.
        Documented = "documented",
    }
}
