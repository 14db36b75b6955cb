//! The port of rate-limit backoffs.

use std::{future::Future, time::Duration};

use super::DatabaseError;
use crate::domain::{MerchantId, Wait};

/// A longer `Retry-After` is not believed. A server that is asked too early says so again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(7 * 86_400);

/// Stores the rate-limit backoffs for all processes.
pub trait BackoffStore: Send + Sync + 'static {
    /// No process sends a request for the merchant for `pause` from now. A stored pause that ends later stays.
    fn pause(&self, merchant: MerchantId, pause: Duration) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// So many requests were sent to the merchant within the last minute, whose answers do not say what is left.
    fn save_recent_requests(
        &self,
        merchant: MerchantId,
        requests: u32,
    ) -> impl Future<Output = Result<(), DatabaseError>> + Send;
}

/// What Salla counts by the address that requests come from: all merchants' together, whichever process sends them.
pub trait IpRateLimitStore: Send + Sync + 'static {
    /// Takes one request of `allowance` in ten minutes; or after how long, at the earliest, there is another.
    fn take(&self, allowance: u32) -> impl Future<Output = Result<Result<(), Duration>, DatabaseError>> + Send;

    /// No process sends such a request for `pause` from now.
    fn close(&self, pause: Duration) -> impl Future<Output = Result<(), DatabaseError>> + Send;
}

/// The state of the rate limits of merchants that only this process knows.
pub trait RateLimitState: Send + Sync {
    /// The number of requests that were sent for a merchant within the last minute. It is 0 if the
    /// answers announce the remaining requests, or if the number is too small to matter.
    fn recent_requests(&self, merchant: MerchantId) -> u32;

    /// Another process has sent so many within the last minute; `None`: unknown.
    fn add_recent_requests(&self, merchant: MerchantId, recent_requests: Option<u32>);

    /// What the merchant's requests wait for, and for how long.
    fn waiting(&self, merchant: MerchantId) -> Option<(Wait, Duration)>;
}
