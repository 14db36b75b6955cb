//! Event delivery.
//!
//! A warehouse that reads the log of changes of the database gets events about runs
//! that succeeded or were partial. With `cdc.events`, it can also get events about written records.
//! Each event is a signed `CloudEvent` and is sent at least once. The events of one merchant come
//! in order.
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
