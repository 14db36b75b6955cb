//! Refreshes tokens of merchants without runs, and reports refreshes with an unknown outcome.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::refresh::{Auth, RENEW_AHEAD};
use crate::{
    domain::MerchantId,
    reconcile::{
        Heartbeat,
        ports::{CredentialError, CredentialStore, SourceError},
    },
};

/// How often the tokens of all merchants are looked after, how many are renewed each time, and how soon after each other.
const KEEP_EVERY: Duration = Duration::from_secs(60);
const KEPT_AT_ONCE: u64 = 50;
const BETWEEN_REFRESHES: Duration = Duration::from_millis(500);

/// So many are looked at each time, those included that cannot be renewed.
const LOOKED_AT: usize = 1_000;

/// The last token that was looked at: when it ends, and whose it is.
type RefreshPosition = (DateTime<Utc>, MerchantId);

impl<C: CredentialStore> Auth<C> {
    /// Does so until `stop` is called.
    pub async fn keep(&self, heartbeat: &Heartbeat, stop: &CancellationToken) {
        let (mut pause, mut place) = (Duration::ZERO, None);
        while stop.run_until_cancelled(heartbeat.sleep(pause)).await.is_some() {
            (pause, place) = match self.look_after_all(place, heartbeat, stop).await {
                Ok(place) => (KEEP_EVERY, place),
                Err(error) => {
                    tracing::warn!(error = %error, "tokens could not be refreshed; trying again");
                    // A database that comes back may hold marks with an unknown outcome.
                    let database = matches!(error, SourceError::Credentials(_));
                    (if database { KEEP_EVERY } else { KEEP_EVERY * 10 }, None)
                }
            };
        }
    }

    /// Goes on behind `place`, and says where to go on the next time; `None`: at the token that ends first.
    async fn look_after_all(
        &self,
        mut place: Option<RefreshPosition>,
        heartbeat: &Heartbeat,
        stop: &CancellationToken,
    ) -> Result<Option<RefreshPosition>, SourceError> {
        self.doubt(None).await?;
        let ahead = RENEW_AHEAD.to_std().unwrap_or_default();
        let (mut renewed, mut looked_at) = (0, 0);
        while renewed < KEPT_AT_ONCE {
            let ending = self.store.ending_within(ahead, place, KEPT_AT_ONCE).await?;
            let Some(last) = ending.last().copied() else {
                return Ok(None);
            };
            for (_, merchant) in &ending {
                heartbeat.beat();
                if self.keep_alive(*merchant).await? {
                    renewed += 1;
                    let stopped = stop.run_until_cancelled(sleep(BETWEEN_REFRESHES)).await.is_none();
                    if stopped || self.endpoint_rests().is_some() {
                        return Ok(None);
                    }
                }
            }
            looked_at += ending.len();
            place = Some(last);
            if looked_at >= LOOKED_AT {
                return Ok(place);
            }
        }
        Ok(None)
    }

    /// Whether the merchant's token could be looked after; a failure of one merchant does not affect others.
    async fn keep_alive(&self, merchant: MerchantId) -> Result<bool, SourceError> {
        match self.credentials(merchant).await {
            Ok(_) | Err(SourceError::Unauthorized { .. }) => Ok(true),
            Err(
                error @ (SourceError::NoToken(_)
                | SourceError::Credentials(CredentialError::Unreadable { .. } | CredentialError::Store(_))),
            ) => {
                tracing::warn!(merchant.id = merchant.0, error = %error, "the token cannot be refreshed");
                Ok(false)
            }
            // Salla does not confirm the owner of this token now.
            Err(error @ SourceError::Unavailable { .. }) => {
                tracing::warn!(merchant.id = merchant.0, error = %error, "the token cannot be used yet");
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}
