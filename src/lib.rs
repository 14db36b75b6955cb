//! A daemon that finds and repairs the orders that a platform missed because a Salla webhook was lost.
//!
//! `README.md` describes its use, and `docs/explanation/architecture.md` the modules and the way of one order through
//! them.

#[macro_use]
pub mod failpoint;

pub mod app;
pub mod cli;
pub mod config;
pub mod dashboard;
pub mod domain;
pub mod error_text;
pub mod http;
pub mod json_object;
pub mod outbox;
pub mod reconcile;
pub mod response_headers;
pub mod salla;
pub mod schedule;
#[cfg(feature = "demo")]
pub mod simulator;
pub mod store;
pub mod telemetry;
pub mod ttl_map;
pub mod vault;
