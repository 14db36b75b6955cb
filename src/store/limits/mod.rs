//! Request limits that all processes share.

pub mod ip_rate_limit;
pub mod rate_limit_backoffs;
