//! Salla's Merchant API. Its shapes, its moods and its limits end here; what leaves this module is in
//! the application's own terms.

mod answer;
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
mod keeper;
mod known;
mod large;
mod limiter;
mod list_rows;
mod listing;
mod money;
mod offered;
mod order_items;
mod order_statuses;
mod orders;
mod outbound;
mod page_query;
mod persist;
mod privacy;
mod products;
mod refusal;
mod request;
mod retry;
mod rows;
mod salvage;
mod secret;
mod shared;
mod throttle;
mod token;
mod too_long;
mod trace;
mod transform;
mod user_info;
mod waits;
mod wire;
mod words;

pub use circuit::WhenOpen;
pub use client::SallaClient;
pub use config::Config;
pub use events::read_event;
pub use offered::{Offered, Reading};
pub use outbound::plain_client;
pub use privacy::{Config as PrivacyConfig, Personal, Privacy};
/// For `fuzz/` only: how the client reads an answer.
#[doc(hidden)]
pub use user_info::UserInfo;
pub use wire::Envelope;
