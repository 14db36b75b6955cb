//! Salla's Merchant API. Its shapes, its moods and its limits end here; what leaves this module is in
//! the application's own terms.

mod answer;
mod api_resource;
mod auth;
mod backoff;
mod body;
mod breaker;
mod circuit;
mod client;
mod config;
mod customers;
mod date;
mod divide;
mod error;
mod events;
mod ip_rate_limit;
mod large;
mod limiter;
mod list_rows;
mod listing;
mod money;
mod order_items;
mod order_statuses;
mod orders;
mod outbound;
mod page_query;
mod privacy;
mod products;
mod request;
mod retry;
mod rows;
mod salvage;
mod save_tokens;
mod secret;
mod throttle;
mod token;
mod token_cache;
mod token_refresher;
mod too_long;
mod trace;
mod transform;
mod unauthorized;
mod user_info;
mod waits;
mod wire;
mod words;

pub use api_resource::{ApiResource, ReadOptions};
pub use circuit::OnOpenCircuit;
pub use client::SallaClient;
pub use config::Config;
pub use events::read_event;
pub use outbound::plain_client;
pub use privacy::{Config as PrivacyConfig, Personal, Privacy};
/// For `fuzz/` only: how the client reads an answer.
#[doc(hidden)]
pub use user_info::UserInfo;
pub use wire::Envelope;
