//! The application: how one run goes, how many go side by side, and what is done about an error. It sees
//! Salla, the database and the clock only through [`ports`].

mod config;
mod details;
mod engine;
mod foreground;
mod handback;
mod leases;
mod lines;
mod metrics;
mod parts;
mod policy;
pub mod ports;
mod progress;
mod pulse;
mod quiet;
mod report;
mod runner;
pub mod span;
mod summary;
mod survey;
mod sweep;
mod turn;
mod vanished;
mod waits;
mod walk;
mod worker;

pub use config::Config;
pub use leases::Leases;
pub use metrics::Metrics;
pub use progress::{Progress, ProgressSender};
pub use pulse::{Liveness, Pulse};
pub use report::report;
pub use runner::{Ended, OnStop, Runner};
pub use sweep::Sweep;
pub use walk::Walk;
pub use worker::Worker;
