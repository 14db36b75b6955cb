//! The webhooks of the simulated Salla: signed, tried three times, and some of them lost.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use url::Url;

use super::shop::Shop;

/// Salla repeats a webhook after minutes. The simulation is shorter.
const TRIES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(5)];

/// Salla waits so long for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A webhook that is to be sent.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Such as `order.updated`.
    pub event: &'static str,
    /// The merchant.
    pub merchant_id: i64,
    /// The record, if it is about one.
    pub record: Option<i64>,
    body: String,
}

/// What became of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The receiver accepted it.
    Delivered,
    /// It was not sent at all.
    Lost,
    /// The receiver refused it each time, or did not answer.
    Refused,
}

/// Sends webhooks to one address.
#[derive(Debug)]
pub struct WebhookSender {
    client: Client,
    url: Url,
    secret: String,
    /// The share that is lost, from 0 to 1.
    loss: f64,
    rng: StdRng,
}

impl Webhook {
    /// A webhook about an order.
    #[must_use]
    pub fn of_order(event: &'static str, merchant_id: i64, order_id: i64, order: Value, at: DateTime<Utc>) -> Self {
        Self { event, merchant_id, record: Some(order_id), body: body(event, merchant_id, at, order) }
    }

    /// The installation of the app by a store: it hands out the tokens.
    #[must_use]
    pub fn installation(shop: &Shop, at: DateTime<Utc>) -> Self {
        let (access_token, refresh_token) = shop.tokens();
        let data = json!({
            "access_token": access_token, "refresh_token": refresh_token,
            "expires": (at + TimeDelta::days(14)).timestamp(), "scope": "orders.read offline_access", "token_type": "bearer",
        });
        let event = "app.store.authorize";
        Self { event, merchant_id: shop.merchant_id, record: None, body: body(event, shop.merchant_id, at, data) }
    }
}

impl WebhookSender {
    /// Sends to `url`, signed with `secret`, and loses a share of the webhooks about records.
    ///
    /// # Errors
    /// When the TLS of this machine cannot be set up.
    pub fn new(url: Url, secret: &str, loss: f64, seed: u64) -> reqwest::Result<Self> {
        let client = Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        Ok(Self { client, url, secret: secret.to_owned(), loss, rng: StdRng::seed_from_u64(seed) })
    }

    /// Sends a webhook, up to three times, or loses it.
    pub async fn send(&mut self, webhook: &Webhook) -> Delivery {
        if webhook.record.is_some() && self.rng.random_bool(self.loss) {
            return Delivery::Lost;
        }
        for pause in TRIES {
            tokio::time::sleep(pause).await;
            let request = self
                .client
                .post(self.url.clone())
                .header("content-type", "application/json")
                .header("x-salla-security-strategy", "Signature")
                .header("x-salla-signature", sign(&self.secret, &webhook.body))
                .body(webhook.body.clone());
            let answer = request.send().await.map(|answer| answer.status());
            if matches!(answer, Ok(StatusCode::OK | StatusCode::CREATED)) {
                return Delivery::Delivered;
            }
        }
        Delivery::Refused
    }
}

/// The envelope. Salla writes its time in Riyadh, in words.
fn body(event: &str, merchant_id: i64, at: DateTime<Utc>, data: Value) -> String {
    let at = (at + TimeDelta::hours(3)).format("%a %b %d %Y %H:%M:%S GMT+0300").to_string();
    json!({"event": event, "merchant": merchant_id, "created_at": at, "data": data}).to_string()
}

/// Hex of HMAC-SHA256.
fn sign(secret: &str, body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
    mac.map_or_else(|_| String::new(), |mac| hex::encode(mac.chain_update(body).finalize().into_bytes()))
}
