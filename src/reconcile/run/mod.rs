//! One run from its claim to its end, and the workers.

pub mod disposition;
pub mod end;
pub mod foreground;
pub mod lease_renewal;
pub mod release;
pub mod report;
pub mod resource_runs;
pub mod runner;
pub mod show_waits;
pub mod summary;
pub mod sweep;
pub mod worker;
