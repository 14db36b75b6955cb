//! The program, driven from outside: the real binary, a simulated Salla on a real socket, and the real
//! databases. Every suite that touches a database runs unchanged on SQLite and on PostgreSQL 15 and 16.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test that cannot go on may panic, and says why"
)]

#[macro_use]
mod support;

mod api_access;
mod architecture;
#[cfg(feature = "aws")]
mod aws;
mod bad_input;
mod beside_a_platform;
mod broken_pages;
mod cdc;
mod chaos;
mod clock;
mod concurrent_writers;
mod configuration;
mod connection_limits;
mod crash;
mod daemon;
mod dashboard;
mod database_failover;
mod demo;
mod deploy;
mod deploy_files;
mod documents;
mod equal_time_stamps;
mod events;
#[cfg(feature = "failpoints")]
mod failpoints;
mod failure_isolation;
mod full_disk;
mod global_pause;
mod http_client;
mod invalid_times;
mod ip_rate_limit;
mod limits;
mod missing_records;
mod model;
mod onboarding;
mod openapi;
mod order_items;
mod own_schema;
mod platform;
mod privacy;
mod probe;
mod prometheus;
mod query_cost;
mod queue_order;
mod reconciliation;
mod record_events;
mod reference;
mod report;
mod requests_per_night;
mod resources;
mod rotation;
mod run_queue;
mod salla_samples;
mod scan_listing;
mod schema;
mod secrets;
mod simulate;
mod sorted_list;
mod terminal;
mod tokens;
mod traces;
mod vault;
mod waiting;
mod wrong_time_stamps;
