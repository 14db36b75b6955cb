//! How long a store is to be left alone.

use std::{future::Future, time::Duration};

use super::TargetError;
use crate::domain::MerchantId;

/// Where the pauses that Salla asks for are kept, for whichever process has the store next.
pub trait PauseStore: Send + Sync + 'static {
    /// Nobody sends anything to the store for `pause` from now; a pause on record that ends later stays.
    fn pause(&self, merchant: MerchantId, pause: Duration) -> impl Future<Output = Result<(), TargetError>> + Send;
}
