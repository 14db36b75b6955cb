//! The credential store as everyone else sees it: tokens in the clear, sealed on their way in and opened
//! on their way out.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::ring::{KeyRing, Kind, OpenError};
use crate::{
    domain::{Change, Merchant, MerchantId},
    reconcile::ports::{
        Actor, AppEvent, Applied, Changed, CredentialError, CredentialStore, Credentials, MerchantFilter, Register,
        Registered, Registration, Sealed, TargetError, Tokens,
    },
};

/// Seals and opens what `S` keeps.
#[derive(Debug, Clone)]
pub struct Vault<S> {
    ring: Arc<KeyRing>,
    store: S,
}

impl<S> Vault<S> {
    /// A vault over `store`.
    pub fn new(ring: Arc<KeyRing>, store: S) -> Self {
        Self { ring, store }
    }

    /// The key that seals.
    #[must_use]
    pub fn key_id(&self) -> &str {
        self.ring.first_id()
    }

    /// Every key's id, the one that seals first.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.ring.ids()
    }

    /// Seals a merchant's tokens under the first key.
    #[must_use]
    pub fn seal(&self, merchant: MerchantId, tokens: &Tokens) -> Tokens<Sealed> {
        let refresh = tokens.refresh.as_ref();
        Tokens {
            access: self.ring.seal(merchant, Kind::Access, &tokens.access),
            refresh: refresh.map(|token| self.ring.seal(merchant, Kind::Refresh, token)),
            expires_at: tokens.expires_at,
        }
    }

    /// Opens a merchant's tokens.
    ///
    /// # Errors
    /// When a key is missing or wrong, or the text was changed; names the merchant and the key.
    pub fn open(&self, merchant: MerchantId, sealed: &Tokens<Sealed>) -> Result<Tokens, CredentialError> {
        let open = |kind, sealed: &Sealed| {
            self.ring
                .open(merchant, kind, sealed)
                .map_err(|error: OpenError| CredentialError::Unreadable { merchant, reason: error.to_string() })
        };
        let refresh = sealed.refresh.as_ref();
        Ok(Tokens {
            access: open(Kind::Access, &sealed.access)?,
            refresh: refresh.map(|token| open(Kind::Refresh, token)).transpose()?,
            expires_at: sealed.expires_at,
        })
    }

    /// Whether every token is under the first key already.
    #[must_use]
    pub fn is_current(&self, sealed: &Tokens<Sealed>) -> bool {
        [Some(&sealed.access), sealed.refresh.as_ref()]
            .into_iter()
            .flatten()
            .all(|token| KeyRing::id_of(token) == Some(self.key_id()))
    }
}

impl<S: CredentialStore<Sealed>> CredentialStore for Vault<S> {
    async fn load(&self, merchant: MerchantId) -> Result<Option<Credentials>, CredentialError> {
        let Some(stored) = self.store.load(merchant).await? else {
            return Ok(None);
        };
        Ok(Some(Credentials {
            tokens: self.open(merchant, &stored.tokens)?,
            obtained_at: stored.obtained_at,
            version: stored.version,
            refreshing_for: stored.refreshing_for,
            refused: stored.refused,
        }))
    }

    async fn begin_refresh(&self, merchant: MerchantId, version: i64, attempt: Uuid) -> Result<bool, CredentialError> {
        self.store.begin_refresh(merchant, version, attempt).await
    }

    async fn complete_refresh(
        &self,
        merchant: MerchantId,
        version: i64,
        tokens: &Tokens,
    ) -> Result<(), CredentialError> {
        let sealed = self.seal(merchant, tokens);
        self.store.complete_refresh(merchant, version, &sealed).await
    }

    async fn abandon_refresh(&self, merchant: MerchantId, attempt: Uuid) -> Result<(), CredentialError> {
        self.store.abandon_refresh(merchant, attempt).await
    }

    async fn revoked(&self, merchant: MerchantId, version: i64) -> Result<(), CredentialError> {
        self.store.revoked(merchant, version).await
    }

    async fn doubt(&self, merchant: Option<MerchantId>) -> Result<Vec<MerchantId>, CredentialError> {
        self.store.doubt(merchant).await
    }

    async fn ending_within(
        &self,
        span: Duration,
        after: Option<(DateTime<Utc>, MerchantId)>,
        limit: u64,
    ) -> Result<Vec<(DateTime<Utc>, MerchantId)>, CredentialError> {
        self.store.ending_within(span, after, limit).await
    }
}

impl<S: Register<Sealed>> Register for Vault<S> {
    async fn register(&self, registration: &Registration, by: &Actor) -> Result<Registered, TargetError> {
        let sealed = Registration {
            merchant_id: registration.merchant_id,
            name: registration.name.clone(),
            tokens: self.seal(registration.merchant_id, &registration.tokens),
        };
        self.store.register(&sealed, by).await
    }

    async fn change(&self, id: MerchantId, change: Change, by: &Actor) -> Result<Changed, TargetError> {
        self.store.change(id, change, by).await
    }

    async fn remove(&self, id: MerchantId, by: &Actor) -> Result<bool, TargetError> {
        self.store.remove(id, by).await
    }

    async fn merchant(&self, id: MerchantId) -> Result<Option<Merchant>, TargetError> {
        self.store.merchant(id).await
    }

    async fn list(&self, filter: MerchantFilter) -> Result<Vec<Merchant>, TargetError> {
        self.store.list(filter).await
    }

    async fn stand_still(&self, still: bool, by: &Actor) -> Result<bool, TargetError> {
        self.store.stand_still(still, by).await
    }

    async fn apply(&self, event: &AppEvent) -> Result<Applied, TargetError> {
        let sealed = AppEvent {
            hash: event.hash.clone(),
            name: event.name,
            merchant: event.merchant,
            made: event.made,
            notice: event.notice,
            tokens: event.tokens.as_ref().map(|tokens| self.seal(event.merchant, tokens)),
        };
        self.store.apply(&sealed).await
    }
}
