//! The merchant that a token belongs to.

use std::future::Future;

use secrecy::SecretString;

use crate::domain::MerchantId;

/// Salla did not say to which merchant a token belongs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerUnknown {
    /// No answer came, or the server has trouble. A later request may succeed.
    #[error("{0}")]
    NotNow(String),
    /// The server refuses to say it, or its answer names no merchant.
    #[error("{0}")]
    NoAnswer(String),
}

/// Tells to which merchant a token belongs.
pub trait TokenOwner: Send + Sync + 'static {
    /// Asks Salla once.
    ///
    /// # Errors
    /// When Salla does not say it.
    fn owner(&self, access: &SecretString) -> impl Future<Output = Result<MerchantId, OwnerUnknown>> + Send;
}
