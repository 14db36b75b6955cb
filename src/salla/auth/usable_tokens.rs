//! The tokens of a merchant for callers outside of runs.

use chrono::Utc;

use super::refresh::{Auth, unauthorized};
use crate::{
    domain::MerchantId,
    reconcile::ports::{CredentialStore, Credentials, REFRESH_TAKES_AT_MOST, SourceError, Tokens},
};

impl<C: CredentialStore> Auth<C> {
    /// The stored tokens of a merchant, refreshed ahead of their expiry.
    ///
    /// # Errors
    /// When no token is stored, it has expired, Salla refuses it, or it cannot be refreshed now.
    pub async fn usable_tokens(&self, merchant: MerchantId) -> Result<Tokens, SourceError> {
        self.forget(merchant);
        let Credentials { tokens, refreshing_for, .. } = self.credentials(merchant).await?;
        if tokens.expires_at.is_none_or(|end| end > Utc::now()) {
            return Ok(tokens);
        }
        if refreshing_for.is_some_and(|began| began < REFRESH_TAKES_AT_MOST) {
            return Err(SourceError::Unavailable { reason: "the token is being refreshed".to_owned(), per_row: false });
        }
        Err(unauthorized(merchant, "the access token has expired, and it cannot be refreshed"))
    }
}
