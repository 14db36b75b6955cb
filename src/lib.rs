#![doc = include_str!("../README.md")]

#[macro_use]
pub mod failpoint;

pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod foreign;
pub mod http;
pub mod outbox;
pub mod reconcile;
pub mod salla;
pub mod schedule;
#[cfg(feature = "demo")]
pub mod simulator;
pub mod store;
pub mod telemetry;
pub mod vault;
