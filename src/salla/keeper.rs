//! Keeps tokens alive whose stores no run asks for, and tells of refreshes whose outcome nobody knows.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::auth::{Auth, RENEW_AHEAD};
use crate::reconcile::ports::{CredentialError, CredentialStore, SourceError};

/// How often the tokens of all merchants are looked after, how many are renewed each time, and how soon after each other.
const KEEP_EVERY: Duration = Duration::from_secs(60);
const KEPT_AT_ONCE: u64 = 50;
const BETWEEN_REFRESHES: Duration = Duration::from_millis(500);

impl<C: CredentialStore> Auth<C> {
    /// Does so until `stop` is called.
    pub async fn keep(&self, stop: &CancellationToken) {
        let mut pause = Duration::ZERO;
        while stop.run_until_cancelled(sleep(pause)).await.is_some() {
            pause = match self.look_after_all(stop).await {
                Ok(()) => KEEP_EVERY,
                Err(error) => {
                    tracing::warn!(error = %error, "tokens could not be looked after; trying again");
                    // A database that comes back may hold marks whose outcome nobody knows.
                    let database = matches!(error, SourceError::Credentials(_));
                    if database { KEEP_EVERY } else { KEEP_EVERY * 10 }
                }
            };
        }
    }

    async fn look_after_all(&self, stop: &CancellationToken) -> Result<(), SourceError> {
        self.doubt(None).await?;
        let ahead = RENEW_AHEAD.to_std().unwrap_or_default();
        for merchant in self.store.ending_within(ahead, KEPT_AT_ONCE).await? {
            match self.credentials(merchant).await {
                Ok(_) | Err(SourceError::Unauthorized { .. }) => {}
                // One merchant's trouble keeps nobody else from being looked after.
                Err(
                    error @ (SourceError::NoToken(_) | SourceError::Credentials(CredentialError::Unreadable { .. })),
                ) => tracing::warn!(merchant.id = merchant.0, error = %error, "its token cannot be kept alive"),
                Err(error) => return Err(error),
            }
            if self.endpoint_rests().is_some() {
                break;
            }
            if stop.run_until_cancelled(sleep(BETWEEN_REFRESHES)).await.is_none() {
                break;
            }
        }
        Ok(())
    }
}
