#![doc = include_str!("../README.md")]

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
