//! Which token a request carries, and when it is renewed.
//!
//! Any number of processes may find that a token ends soon. The one that sets the mark in the
//! credential store refreshes it, and the others wait for the result. The exchange runs in a
//! separate task that no caller aborts. Once the refresh token is sent, its successor must be
//! saved.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{
    backoff::Backoff,
    save_tokens::save_until,
    token_endpoint::{Refresh, TokenEndpoint},
    user_info::{UnknownOwners, UserInfo},
};
use crate::{
    domain::MerchantId,
    reconcile::{
        Metrics,
        ports::{CredentialStore, Credentials, REFRESH_TAKES_AT_MOST, SourceError},
    },
    ttl_map::TtlMap,
};

/// A token is refreshed if it expires sooner than this, or in the last quarter of its lifetime.
pub(in crate::salla) const RENEW_AHEAD: TimeDelta = TimeDelta::days(1);

/// How long another's refresh is waited for, and how often its result is looked for.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(45);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// For so long a token is used without reading it again. If another process replaces it meanwhile, Salla's answer says so,
/// as it does to a request that was under way.
const TOKEN_USED_FOR: Duration = Duration::from_secs(1);

/// Keeps the tokens of all merchants usable.
#[derive(Debug)]
pub struct Auth<C> {
    pub(in crate::salla) store: Arc<C>,
    endpoint: TokenEndpoint,
    pub(in crate::salla) user_info: UserInfo,
    pub(in crate::salla) unknown_owners: Arc<UnknownOwners>,
    metrics: Arc<Metrics>,
    refreshes: TaskTracker,
    backoff: Arc<Mutex<Backoff>>,
    known: Arc<TtlMap<MerchantId, Credentials>>,
    /// The right to send a request to the token endpoint. A failing endpoint may lose the token that it receives. With
    /// one request at a time, this is only one token.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl<C> Clone for Auth<C> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            endpoint: self.endpoint.clone(),
            user_info: self.user_info.clone(),
            unknown_owners: Arc::clone(&self.unknown_owners),
            metrics: Arc::clone(&self.metrics),
            refreshes: self.refreshes.clone(),
            backoff: Arc::clone(&self.backoff),
            known: Arc::clone(&self.known),
            turn: Arc::clone(&self.turn),
        }
    }
}

impl<C: CredentialStore> Auth<C> {
    pub fn new(store: Arc<C>, endpoint: TokenEndpoint, user_info: UserInfo, metrics: Arc<Metrics>) -> Self {
        let (refreshes, backoff, turn) = (TaskTracker::new(), Arc::default(), Arc::default());
        let known = Arc::new(TtlMap::new(TOKEN_USED_FOR, usize::MAX));
        Self { store, endpoint, user_info, unknown_owners: Arc::default(), metrics, refreshes, backoff, known, turn }
    }

    /// The number of running refreshes.
    pub fn under_way(&self) -> usize {
        self.refreshes.len()
    }

    /// Waits until no refresh runs.
    pub async fn drain(&self) {
        self.refreshes.close();
        self.refreshes.wait().await;
    }

    /// The token of the merchant, refreshed ahead of its expiry. If the refresh fails, the old token is used until it
    /// expires.
    pub async fn credentials(&self, merchant: MerchantId) -> Result<Credentials, SourceError> {
        if let Some(known) = self.known.get(&merchant, Duration::ZERO) {
            return Ok(known);
        }
        let current = self.store.load(merchant).await?.ok_or(SourceError::NoToken(merchant))?;
        if current.refused {
            // It may have come back into sweeps by a way that does not know of that.
            self.give_up(merchant, current.version).await?;
            return Err(unauthorized(merchant, "it refused them before"));
        }
        let now = Utc::now();
        if current.tokens.expires_at.is_none_or(|end| end > now) {
            self.require_owner(merchant, current.version, &current.tokens).await?;
        }
        let lasts = current.tokens.expires_at > Some(now);
        let ends_soon = current.tokens.expires_at.is_some_and(|end| end - now < renew_ahead(current.issued_at, end));
        let idle = current.tokens.refresh.is_none() || current.refreshing_for.is_some();
        if !ends_soon {
            self.known.insert(merchant, current.clone());
        }
        if !ends_soon || idle || lasts && self.endpoint_rests().is_some() {
            return Ok(current);
        }
        match self.renew(merchant, current.clone()).await {
            Ok(renewed) => Ok(renewed),
            Err(error) if lasts && self.store.load(merchant).await?.is_some_and(|current| !current.refused) => {
                tracing::warn!(merchant.id = merchant.0, error = %error, "the token could not be refreshed ahead of its expiry");
                Ok(current)
            }
            Err(error @ SourceError::Unauthorized { .. }) => {
                self.give_up(merchant, current.version).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the tokens of a merchant from the store next time.
    pub fn forget(&self, merchant: MerchantId) {
        self.known.remove(&merchant);
    }

    /// The remaining backoff of the token endpoint.
    pub(in crate::salla) fn endpoint_rests(&self) -> Option<Duration> {
        self.backoff.lock().rests(Instant::now())
    }

    /// Replaces a token that Salla no longer takes.
    pub async fn renew(&self, merchant: MerchantId, stale: Credentials) -> Result<Credentials, SourceError> {
        self.known.remove(&merchant);
        let version = stale.version;
        // Run in a task that no caller drops: a mark without a process behind it would cost the installation.
        let this = self.clone();
        let renewal = self.refreshes.spawn(async move { this.begin(merchant, stale).await });
        let renewed = renewal.await.unwrap_or_else(|_| {
            Err(unauthorized(merchant, "the token refresh was interrupted; its outcome is unknown"))
        })?;
        let renewed = match renewed {
            Some(renewed) => renewed,
            None => self.await_other(merchant, version).await?,
        };
        self.require_owner(merchant, renewed.version, &renewed.tokens).await?;
        Ok(renewed)
    }

    /// Marks the refresh token as being used, and uses it; `None`: another is at it.
    async fn begin(&self, merchant: MerchantId, stale: Credentials) -> Result<Option<Credentials>, SourceError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if let Some(pause) = self.endpoint_rests() {
            return Err(SourceError::OpenCircuit { pause, reason: "the token endpoint does not answer".to_owned() });
        }
        let attempt = Uuid::new_v4();
        match self.store.begin_refresh(merchant, stale.version, attempt).await {
            Ok(true) => self.exchange(merchant, stale, attempt, turn).await.map(Some),
            Ok(false) => Ok(None),
            Err(error) => {
                // The mark may be set although the answer says otherwise.
                self.abandon(merchant, attempt).await?;
                Err(error.into())
            }
        }
    }

    /// Takes the mark away: as long as there is hope.
    async fn abandon(&self, merchant: MerchantId, attempt: Uuid) -> Result<(), SourceError> {
        let deadline = Some(Instant::now() + REFRESH_TAKES_AT_MOST);
        let abandon = || self.store.abandon_refresh(merchant, attempt);
        save_until(merchant, "the mark of a refresh that was not sent", deadline, abandon).await
    }

    /// Uses the refresh token and saves the new tokens. The mark is set before the call. The turn ends with the answer,
    /// because a failure to save concerns only one merchant.
    async fn exchange(
        &self,
        merchant: MerchantId,
        stale: Credentials,
        attempt: Uuid,
        turn: OwnedMutexGuard<()>,
    ) -> Result<Credentials, SourceError> {
        let version = stale.version;
        let Some(refresh_token) = &stale.tokens.refresh else {
            self.abandon(merchant, attempt).await?;
            return Err(unauthorized(merchant, "the access token expired, and no refresh token is stored"));
        };
        let refresh = self.endpoint.refresh(refresh_token, Utc::now()).await;
        let result = match &refresh {
            Refresh::Renewed(_) => "renewed",
            Refresh::Refused(_) => "refused",
            Refresh::NotUsed { .. } | Refresh::Misconfigured(_) => "not_attempted",
            Refresh::Unknown(_) => "unknown",
        };
        self.metrics.token_refresh(result);
        let answered = matches!(refresh, Refresh::Renewed(_) | Refresh::Refused(_));
        let wants = if let Refresh::NotUsed { retry_after, .. } = &refresh { *retry_after } else { None };
        self.backoff.lock().heard(answered, wants, Instant::now());
        drop(turn);
        match refresh {
            Refresh::Renewed(tokens) => {
                let save = || self.store.complete_refresh(merchant, version, &tokens);
                // The tokens are in no other place. A mark that another process changed meanwhile does not prevent the
                // write.
                save_until(merchant, "new tokens", None, save).await?;
                tracing::info!(merchant.id = merchant.0, "token refreshed");
                Ok(Credentials {
                    tokens,
                    issued_at: Utc::now(),
                    version: version + 1,
                    refreshing_for: None,
                    refused: false,
                })
            }
            Refresh::Refused(reason) => {
                self.store.revoked(merchant, version).await?;
                Err(unauthorized(merchant, &reason))
            }
            Refresh::NotUsed { reason, .. } => {
                self.abandon(merchant, attempt).await?;
                let pause = self.endpoint_rests().unwrap_or_default();
                Err(SourceError::OpenCircuit { pause, reason: format!("the token could not be refreshed: {reason}") })
            }
            Refresh::Misconfigured(reason) => {
                self.abandon(merchant, attempt).await?;
                Err(SourceError::ClientCredentials(reason))
            }
            Refresh::Unknown(reason) => {
                self.doubt(Some(merchant)).await?;
                let outcome = format!("the outcome of the token refresh is unknown ({reason})");
                Err(unauthorized(merchant, &format!("{outcome}; another attempt could revoke the installation")))
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
                _ if current.refused => return Err(unauthorized(merchant, "another process got this answer")),
                Some(age) if age > REFRESH_TAKES_AT_MOST => {
                    self.doubt(Some(merchant)).await?;
                    return Err(unauthorized(
                        merchant,
                        "the outcome of a token refresh is unknown; another attempt could revoke the installation",
                    ));
                }
                Some(_) if Instant::now() < patience => sleep(LOOK_EVERY).await,
                _ => {
                    return Err(SourceError::Unavailable {
                        per_row: false,
                        reason: "another process could not refresh the token".to_owned(),
                    });
                }
            }
        }
    }

    /// Reports the merchants whose refresh has an unknown outcome: this one, and those whose process went away.
    pub(in crate::salla) async fn doubt(&self, merchant: Option<MerchantId>) -> Result<(), SourceError> {
        for merchant in self.store.doubt(merchant).await? {
            tracing::error!(
                merchant.id = merchant.0,
                "the outcome of the token refresh is unknown: let the merchant install the app again; the old access token is used until it expires"
            );
        }
        Ok(())
    }

    /// Salla refused the tokens of `version` finally.
    pub async fn give_up(&self, merchant: MerchantId, version: i64) -> Result<(), SourceError> {
        self.known.remove(&merchant);
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
