//! What people and scrapes read.

pub mod audit;
pub mod drift;
pub mod overview;
pub mod run_queries;
