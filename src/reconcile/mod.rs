//! The application: how one run goes, how many go side by side, and what is done about an error. It sees
//! Salla, the database and the clock only through [`ports`].

mod config;
mod engine;
mod liveness;
mod metrics;
pub mod ports;
mod progress;
mod run;
mod sorted;
pub mod span;
mod walk;

pub use self::{
    config::Config,
    liveness::{Heartbeat, Liveness},
    metrics::Metrics,
    progress::{Ended, Progress, ProgressSender},
    run::{
        lease_renewal::Leases,
        report::report,
        runner::{OnStop, Runner},
        sweep::Sweep,
        worker::Worker,
    },
    walk::ListWalk,
};

#[cfg(test)]
mod tests;
