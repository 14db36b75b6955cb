//! The receiver of the events. Requests are signed as Standard Webhooks (version 1.0.0) has it, so that a receiver has a
//! library for it: HMAC-SHA256 over `{id}.{time}.{body}`.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use http::{StatusCode, header};
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{config::Config, event};
use crate::{domain::MerchantId, error_text::causes, reconcile::ports::OutboxEvent, response_headers::retry_after};

/// From the connection to the answer's head: a receiver is to take the event in, and to work afterwards. Well below the
/// minute after which another process tries.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest `Retry-After` of a receiver that is kept.
const LONGEST_WAIT: Duration = Duration::from_secs(900);

/// Before a key in base64.
const KEY_PREFIX: &str = "whsec_";

/// The key of the signatures.
pub struct SigningKey(Zeroizing<Vec<u8>>);

impl SigningKey {
    /// Reads a secret: the bytes after `whsec_` in base64, or else the text itself.
    ///
    /// # Errors
    /// When it is empty, or not base64 after `whsec_`.
    pub fn parse(secret: &SecretString) -> Result<Self, &'static str> {
        let secret = secret.expose_secret();
        let key = match secret.strip_prefix(KEY_PREFIX) {
            Some(encoded) => BASE64.decode(encoded).map_err(|_| "is not base64 after whsec_")?,
            None => secret.as_bytes().to_vec(),
        };
        if key.is_empty() { Err("is empty: events could not be signed") } else { Ok(Self(Zeroizing::new(key))) }
    }

    fn sign(&self, id: &str, time: i64, body: &[u8]) -> Option<String> {
        // A key of any length will do.
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        let mac = mac.chain_update(format!("{id}.{time}.")).chain_update(body);
        Some(format!("v1,{}", BASE64.encode(mac.finalize().into_bytes())))
    }
}

/// Why an event was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum Undeliverable {
    /// Another answer than 2xx.
    #[error("the receiver answered {status}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// The wait that it asks for.
        retry_after: Option<Duration>,
    },
    /// No answer.
    #[error("the receiver gave no answer: {0}")]
    Unanswered(String),
    /// There is nothing that could be sent.
    #[error("the event cannot be written: {0}")]
    Unwritable(String),
}

impl Undeliverable {
    /// The receiver answers, and may have something against this event alone.
    pub fn is_per_event(&self) -> bool {
        match self {
            Self::Unwritable(_) => true,
            Self::Unanswered(_) => false,
            Self::Refused { status, .. } => {
                let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
                status.is_client_error() && !passing.contains(status)
            }
        }
    }

    /// The word for it in the metrics.
    pub fn result(&self) -> &'static str {
        match self {
            Self::Refused { .. } | Self::Unwritable(_) => "rejected",
            Self::Unanswered(_) => "no_response",
        }
    }

    /// The wait that the receiver asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Unanswered(_) | Self::Unwritable(_) => None,
        }
    }
}

/// The receiver.
pub struct Webhook {
    client: reqwest::Client,
    url: SecretString,
    key: SigningKey,
}

impl Webhook {
    /// The client for the receiver. It connects to no other address: it follows no redirects, and ignores the proxies
    /// of the environment. `None`: the settings name no receiver.
    ///
    /// # Errors
    /// When the key cannot be read, or the TLS of this machine cannot be set up.
    pub fn new(config: &Config) -> anyhow::Result<Option<Self>> {
        if config.webhook_url.expose_secret().is_empty() {
            return Ok(None);
        }
        let key = SigningKey::parse(&config.webhook_secret)
            .map_err(|problem| anyhow::anyhow!("cdc.webhook_secret {problem}"))?;
        let client = reqwest::Client::builder()
            .user_agent(concat!("salla-reconciler/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .build()?;
        Ok(Some(Self { client, url: config.webhook_url.clone(), key }))
    }

    /// Sends one event.
    ///
    /// # Errors
    /// When it cannot be known to have been taken in.
    pub async fn send(&self, event: &OutboxEvent, merchant: MerchantId) -> Result<(), Undeliverable> {
        let body = event::body(event, merchant).map_err(|error| Undeliverable::Unwritable(error.to_string()))?;
        let (id, time) = (event.event_id.to_string(), Utc::now().timestamp());
        let signature = self.key.sign(&id, time, &body).unwrap_or_default();
        let request = self
            .client
            .post(self.url.expose_secret())
            .header(header::CONTENT_TYPE, event::MEDIA_TYPE)
            .header("webhook-id", id)
            .header("webhook-timestamp", time)
            .header("webhook-signature", signature)
            .body(body);
        let answer = request.send().await.map_err(|error| Undeliverable::Unanswered(causes(&error)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let retry_after = retry_after(answer.headers()).map(|wants| wants.min(LONGEST_WAIT));
        Err(Undeliverable::Refused { status, retry_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_as_the_specification_has_it() {
        // The example of the specification's reference libraries.
        let key = SigningKey::parse(&"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()).unwrap();
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn keys() {
        assert!(SigningKey::parse(&"a text of any kind".into()).is_ok());
        for wrong in ["", "whsec_", "whsec_not base64"] {
            assert!(SigningKey::parse(&wrong.into()).is_err(), "{wrong}");
        }
    }
}
