//! How long a store is to be left alone.

use std::{future::Future, time::Duration};

use super::TargetError;
use crate::domain::MerchantId;

/// Nobody means longer than this by a `Retry-After`; a store that is asked too early says so again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(7 * 86_400);

/// Where the pauses that Salla asks for are kept, for whichever process has the store next.
pub trait PauseStore: Send + Sync + 'static {
    /// Nobody sends anything to the store for `pause` from now; a pause on record that ends later stays.
    fn pause(&self, merchant: MerchantId, pause: Duration) -> impl Future<Output = Result<(), TargetError>> + Send;
}
