//! Event delivery: a warehouse that reads the database's log of changes gets an event for each succeeded run, as a
//! signed `CloudEvent`, at least once, and each merchant's in their order.
//!
//! The events wait in the database (see [`crate::reconcile::ports::Outbox`]); here they are delivered.

mod config;
mod delivery_backoff;
mod event;
mod relay;
mod webhook;

pub use config::Config;
pub use relay::Relay;
pub use webhook::{SigningKey, Webhook};
