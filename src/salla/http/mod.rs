//! Requests: the client, its retries and limits, and the circuit breakers.

pub mod answer;
pub mod breakers;
pub mod circuit_breaker;
pub mod client;
pub mod ip_rate_limit;
pub mod large_responses;
pub mod limiter;
pub mod rate_limit;
pub mod request;
pub mod response;
pub mod retry;
pub mod too_many_requests;
pub mod waits;
