//! The application: how one run goes, how many go side by side, and what is done about an error. It sees
//! Salla, the database and the clock only through [`ports`].

mod config;
mod details;
mod engine;
mod foreground;
mod leases;
mod lines;
mod list_reader;
mod liveness;
mod metrics;
mod missing;
mod pending_commit;
mod policy;
pub mod ports;
mod progress;
mod release;
mod report;
mod resource_runs;
mod runner;
pub mod span;
mod summary;
mod sweep;
mod time_slice;
mod waits;
mod walk;
mod worker;

pub use config::Config;
pub use leases::Leases;
pub use liveness::{Heartbeat, Liveness};
pub use metrics::Metrics;
pub use progress::{Progress, ProgressSender};
pub use report::report;
pub use runner::{Ended, OnStop, Runner};
pub use sweep::Sweep;
pub use walk::ListWalk;
pub use worker::Worker;
