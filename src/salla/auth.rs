//! Which token a request carries, and when it is renewed.
//!
//! Any number of processes may find a token about to end; whoever sets the mark in the credential store
//! refreshes, the others wait for the result. The exchange runs in a task of its own, which nobody
//! aborts: once the refresh token has left, its successor must be saved.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::token::{Refresh, TokenEndpoint};
use crate::{
    domain::MerchantId,
    reconcile::{
        Metrics,
        ports::{CredentialStore, Credentials, REFRESH_TAKES_AT_MOST, SourceError, Tokens},
    },
};

/// A token is renewed when it ends sooner than this, or within the last quarter of its life.
const RENEW_AHEAD: TimeDelta = TimeDelta::days(1);

/// How long another's refresh is waited for, and how often its result is looked for.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(45);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often the tokens of all merchants are looked after, how many are renewed each time, and how soon after each other.
const KEEP_EVERY: Duration = Duration::from_secs(60);
const KEPT_AT_ONCE: u64 = 50;
const BETWEEN_REFRESHES: Duration = Duration::from_millis(500);

/// Pause before new tokens are saved again.
const SAVE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Keeps the tokens of all merchants usable.
#[derive(Debug)]
pub struct Auth<C> {
    store: Arc<C>,
    endpoint: TokenEndpoint,
    metrics: Arc<Metrics>,
    refreshes: TaskTracker,
}

impl<C> Clone for Auth<C> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            endpoint: self.endpoint.clone(),
            metrics: Arc::clone(&self.metrics),
            refreshes: self.refreshes.clone(),
        }
    }
}

impl<C: CredentialStore> Auth<C> {
    pub fn new(store: Arc<C>, endpoint: TokenEndpoint, metrics: Arc<Metrics>) -> Self {
        Self { store, endpoint, metrics, refreshes: TaskTracker::new() }
    }

    /// Waits until no refresh is under way.
    pub async fn drain(&self) {
        self.refreshes.close();
        self.refreshes.wait().await;
    }

    /// The merchant's token, renewed ahead of its end where that works; where it does not, the old one
    /// is used while it lasts.
    pub async fn credentials(&self, merchant: MerchantId) -> Result<Credentials, SourceError> {
        let current = self.store.load(merchant).await?.ok_or(SourceError::NoToken(merchant))?;
        if current.refused {
            return Err(unauthorized(merchant, "it has said so before, and is not asked again"));
        }
        let now = Utc::now();
        let ends_soon = current.tokens.expires_at.is_some_and(|end| end - now < renew_ahead(current.obtained_at, end));
        if !ends_soon || current.tokens.refresh.is_none() || current.refreshing_for.is_some() {
            return Ok(current);
        }
        match self.renew(merchant, current.clone()).await {
            Ok(renewed) => Ok(renewed),
            Err(error) if current.tokens.expires_at > Some(now) => {
                tracing::warn!(merchant.id = merchant.0, error = %error, "the token could not be renewed ahead of its end");
                Ok(current)
            }
            Err(error @ SourceError::Unauthorized { .. }) => {
                self.give_up(merchant, current.version).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Replaces a token that Salla no longer takes.
    pub async fn renew(&self, merchant: MerchantId, stale: Credentials) -> Result<Credentials, SourceError> {
        if self.store.begin_refresh(merchant, stale.version).await? {
            let this = self.clone();
            let exchange = self.refreshes.spawn(async move { this.exchange(merchant, stale).await });
            exchange
                .await
                .unwrap_or_else(|_| Err(unauthorized(merchant, "the token refresh died; its outcome is unknown")))
        } else {
            self.await_other(merchant, stale.version).await
        }
    }

    /// Uses the refresh token and saves what comes back. The mark is set.
    async fn exchange(&self, merchant: MerchantId, stale: Credentials) -> Result<Credentials, SourceError> {
        let version = stale.version;
        let Some(refresh_token) = &stale.tokens.refresh else {
            self.store.abandon_refresh(merchant, version).await?;
            return Err(unauthorized(merchant, "the token has ended and there is no refresh token"));
        };
        let refresh = self.endpoint.refresh(refresh_token, Utc::now()).await;
        let result = match &refresh {
            Refresh::Renewed(_) => "renewed",
            Refresh::Refused(_) => "refused",
            Refresh::NotUsed(_) | Refresh::Misconfigured(_) => "not_used",
            Refresh::Unknown(_) => "unknown",
        };
        self.metrics.token_refresh(result);
        match refresh {
            Refresh::Renewed(tokens) => {
                self.save(merchant, version, &tokens).await?;
                tracing::info!(merchant.id = merchant.0, "token renewed");
                Ok(Credentials {
                    tokens,
                    obtained_at: Utc::now(),
                    version: version + 1,
                    refreshing_for: None,
                    refused: false,
                })
            }
            Refresh::Refused(reason) => {
                self.store.revoked(merchant, version).await?;
                Err(unauthorized(merchant, &reason))
            }
            Refresh::NotUsed(reason) => {
                self.store.abandon_refresh(merchant, version).await?;
                Err(SourceError::Unavailable { reason: format!("the token could not be renewed: {reason}") })
            }
            Refresh::Misconfigured(reason) => {
                self.store.abandon_refresh(merchant, version).await?;
                Err(SourceError::ClientCredentials(reason))
            }
            Refresh::Unknown(reason) => {
                self.doubt(Some(merchant)).await?;
                Err(unauthorized(
                    merchant,
                    &format!(
                        "the outcome of the token refresh is unknown ({reason}), and trying again could revoke the installation"
                    ),
                ))
            }
        }
    }

    /// Saves new tokens, which exist nowhere else: as long as there is hope.
    async fn save(&self, merchant: MerchantId, version: i64, tokens: &Tokens) -> Result<(), SourceError> {
        let hope = Instant::now() + REFRESH_TAKES_AT_MOST;
        loop {
            match self.store.complete_refresh(merchant, version, tokens).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() < hope => {
                    tracing::error!(merchant.id = merchant.0, error = %error, "new tokens could not be saved; trying again");
                    sleep(SAVE_AGAIN_AFTER).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Another process is at it, or was.
    async fn await_other(&self, merchant: MerchantId, version: i64) -> Result<Credentials, SourceError> {
        let patience = Instant::now() + WAIT_FOR_OTHERS;
        loop {
            let current = self.store.load(merchant).await?.ok_or(SourceError::NoToken(merchant))?;
            match current.refreshing_for {
                _ if current.version > version => return Ok(current),
                Some(age) if age > REFRESH_TAKES_AT_MOST => {
                    self.doubt(Some(merchant)).await?;
                    return Err(unauthorized(
                        merchant,
                        "a token refresh was begun and its outcome is unknown; trying again could revoke the installation",
                    ));
                }
                Some(_) if Instant::now() < patience => sleep(LOOK_EVERY).await,
                _ => {
                    return Err(SourceError::Unavailable {
                        reason: "another process could not renew the token".to_owned(),
                    });
                }
            }
        }
    }

    /// Tells of the merchants whose refresh has an unknown outcome: this one, and those whose process went away.
    async fn doubt(&self, merchant: Option<MerchantId>) -> Result<(), SourceError> {
        for merchant in self.store.doubt(merchant).await? {
            tracing::error!(
                merchant.id = merchant.0,
                "the outcome of its token refresh is unknown: the merchant must install the app again; until then the old token is used while it lasts"
            );
        }
        Ok(())
    }

    /// Keeps tokens alive whose stores no run asks for, and tells of lost refreshes, until `stop` is called.
    pub async fn keep(&self, stop: &CancellationToken) {
        let mut pause = Duration::ZERO;
        while stop.run_until_cancelled(sleep(pause)).await.is_some() {
            pause = match self.look_after_all(stop).await {
                Ok(()) => KEEP_EVERY,
                Err(error) => {
                    tracing::warn!(error = %error, "tokens could not be looked after; trying again");
                    KEEP_EVERY * 10
                }
            };
        }
    }

    async fn look_after_all(&self, stop: &CancellationToken) -> Result<(), SourceError> {
        self.doubt(None).await?;
        let ahead = RENEW_AHEAD.to_std().unwrap_or_default();
        for merchant in self.store.ending_within(ahead, KEPT_AT_ONCE).await? {
            match self.credentials(merchant).await {
                Ok(_) => {}
                Err(SourceError::Unauthorized { .. }) => {}
                Err(error) => return Err(error),
            }
            if stop.run_until_cancelled(sleep(BETWEEN_REFRESHES)).await.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Salla says that nothing will come of the tokens of `version` any more.
    pub async fn give_up(&self, merchant: MerchantId, version: i64) -> Result<(), SourceError> {
        Ok(self.store.revoked(merchant, version).await?)
    }
}

/// A token of a short life is not renewed all the time.
fn renew_ahead(obtained: DateTime<Utc>, end: DateTime<Utc>) -> TimeDelta {
    RENEW_AHEAD.min((end - obtained) / 4)
}

/// The merchant must act.
pub fn unauthorized(merchant: MerchantId, reason: &str) -> SourceError {
    SourceError::Unauthorized { merchant, reason: reason.to_owned() }
}
