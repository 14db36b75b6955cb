//! The merchant that a token belongs to.

use std::future::Future;

use secrecy::SecretString;

use crate::domain::MerchantId;

/// Tells to which merchant a token belongs.
pub trait TokenOwner: Send + Sync + 'static {
    /// Asks Salla once; an error says why Salla did not tell.
    fn owner(&self, access: &SecretString) -> impl Future<Output = Result<MerchantId, String>> + Send;
}
