//! The credential store as everyone else sees it: tokens in the clear, sealed on their way in and opened
//! on their way out.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::backend::{TokenBackend, TokenBackends};
use crate::{
    domain::{Merchant, MerchantId, Transition},
    reconcile::ports::{
        Actor, AppEvent, Applied, Changed, CredentialError, CredentialStore, Credentials, DatabaseError,
        MerchantFilter, MerchantRegistry, Registered, Registration, Sealed, Tokens,
    },
};

/// Seals and opens what `S` keeps.
#[derive(Debug, Clone)]
pub struct Vault<S> {
    backends: TokenBackends,
    store: S,
}

impl<S> Vault<S> {
    /// A vault over `store`.
    pub fn new(backends: TokenBackends, store: S) -> Self {
        Self { backends, store }
    }

    /// The key that seals, as people are shown it.
    ///
    /// # Errors
    /// When it is kept elsewhere and cannot be had.
    pub async fn key(&self) -> Result<String, CredentialError> {
        self.backends.active().key().await
    }

    /// More keys that can decrypt here.
    #[must_use]
    pub fn other_keys(&self) -> Vec<String> {
        self.backends.other_keys()
    }

    /// The key that a sealed token names.
    #[must_use]
    pub fn key_of(&self, sealed: &Sealed) -> Option<String> {
        self.backends.of(sealed)?.key_of(sealed)
    }

    /// Seals a merchant's tokens under the key that seals now.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn seal(&self, merchant: MerchantId, tokens: &Tokens) -> Result<Tokens<Sealed>, CredentialError> {
        self.backends.active().seal(merchant, tokens, None).await
    }

    /// Opens a merchant's tokens.
    ///
    /// # Errors
    /// When a key is missing or wrong, or the text was changed; names the merchant and the key. When who has the key does
    /// not answer.
    pub async fn open(&self, merchant: MerchantId, sealed: &Tokens<Sealed>) -> Result<Tokens, CredentialError> {
        match self.backends.of(&sealed.access) {
            Some(backend) => backend.open(merchant, sealed).await,
            None => {
                Err(CredentialError::Unreadable { merchant, reason: Self::unknown_format(&sealed.access).to_owned() })
            }
        }
    }

    fn unknown_format(sealed: &Sealed) -> &'static str {
        if cfg!(not(feature = "aws")) && (sealed.0.starts_with("kms1.") || sealed.0.starts_with("sm1.")) {
            return "it is in AWS, and this program was built without the feature aws";
        }
        "the stored text is not an encrypted token"
    }

    /// Whether every token is under `key` already.
    #[must_use]
    pub fn is_encrypted_with(&self, key: &str, sealed: &Tokens<Sealed>) -> bool {
        [Some(&sealed.access), sealed.refresh.as_ref()]
            .into_iter()
            .flatten()
            .all(|token| self.key_of(token).as_deref() == Some(key))
    }
}

impl<S: CredentialStore<Sealed>> Vault<S> {
    /// Brings the token store up to date with the database. `before`: the earlier state of the database.
    ///
    /// # Errors
    /// When a secret is left behind.
    pub async fn settle(&self, merchant: MerchantId, before: Option<&Tokens<Sealed>>) -> Result<(), CredentialError> {
        let of_before = before.and_then(|tokens| self.backends.of(&tokens.access));
        let touched = [Some(self.backends.active()), of_before];
        if !touched.into_iter().flatten().any(TokenBackend::is_outside) {
            return Ok(());
        }
        let held = self.store.load(merchant).await?.map(|held| held.tokens);
        for backend in self.backends.outside() {
            backend.settle(merchant, held.as_ref()).await?;
        }
        Ok(())
    }

    /// The same, where what was to be done is done; if it fails, the next reader of the tokens completes it.
    async fn settle_if_possible(&self, merchant: MerchantId, before: Option<&Tokens<Sealed>>) {
        if let Err(error) = self.settle(merchant, before).await {
            tracing::warn!(merchant.id = merchant.0, error = %error, "the token store is not up to date with the database yet");
        }
    }

    /// The tokens of a merchant in the database, if anything is kept outside of it.
    async fn before(&self, merchant: MerchantId) -> Result<Option<Tokens<Sealed>>, CredentialError> {
        if self.backends.outside().next().is_none() {
            return Ok(None);
        }
        Ok(self.store.load(merchant).await?.map(|held| held.tokens))
    }

    /// Finds tokens that a process which went away has sealed, and of which the database was not told. True: there were
    /// some, and it is told now.
    ///
    /// # Errors
    /// When the database or the token backend does not answer.
    pub async fn find_lost(&self, merchant: MerchantId) -> Result<bool, CredentialError> {
        match self.store.load(merchant).await? {
            Some(stored) => self.recover(merchant, &stored).await,
            None => Ok(false),
        }
    }

    /// Tells the database of tokens that a process which went away has sealed, and had no time to tell it of. True:
    /// there
    /// were some.
    async fn recover(&self, merchant: MerchantId, stored: &Credentials<Sealed>) -> Result<bool, CredentialError> {
        let Some(backend) = self.backends.of(&stored.tokens.access).filter(|_| stored.refreshing_for.is_some()) else {
            return Ok(false);
        };
        let Some(successor) = backend.successor(merchant, &stored.tokens).await? else {
            return Ok(false);
        };
        self.store.complete_refresh(merchant, stored.version, &successor).await?;
        tracing::info!(merchant.id = merchant.0, "the tokens of an interrupted refresh were found and stored");
        Ok(true)
    }
}

impl<S: CredentialStore<Sealed>> CredentialStore for Vault<S> {
    async fn load(&self, merchant: MerchantId) -> Result<Option<Credentials>, CredentialError> {
        let Some(mut stored) = self.store.load(merchant).await? else {
            return Ok(None);
        };
        if self.recover(merchant, &stored).await? {
            match self.store.load(merchant).await? {
                Some(recovered) => stored = recovered,
                None => return Ok(None),
            }
        }
        Ok(Some(Credentials {
            tokens: self.open(merchant, &stored.tokens).await?,
            issued_at: stored.issued_at,
            version: stored.version,
            refreshing_for: stored.refreshing_for,
            refused: stored.refused,
        }))
    }

    async fn begin_refresh(&self, merchant: MerchantId, version: i64, attempt: Uuid) -> Result<bool, CredentialError> {
        // Once the refresh token is used, nothing may be in the way of keeping its successor.
        if let Some(stored) = self.store.load(merchant).await? {
            self.backends.active().prepare(merchant, &stored.tokens).await?;
        }
        self.store.begin_refresh(merchant, version, attempt).await
    }

    async fn complete_refresh(
        &self,
        merchant: MerchantId,
        version: i64,
        tokens: &Tokens,
    ) -> Result<(), CredentialError> {
        let Some(stored) = self.store.load(merchant).await?.filter(|stored| stored.version == version) else {
            // They are saved already, or others have come since.
            return Ok(());
        };
        let sealed = self.backends.active().seal(merchant, tokens, Some(&stored.tokens)).await?;
        self.store.complete_refresh(merchant, version, &sealed).await?;
        self.settle_if_possible(merchant, Some(&stored.tokens)).await;
        Ok(())
    }

    async fn confirm_owner(&self, merchant: MerchantId, version: i64) -> Result<(), CredentialError> {
        self.store.confirm_owner(merchant, version).await
    }

    async fn abandon_refresh(&self, merchant: MerchantId, attempt: Uuid) -> Result<(), CredentialError> {
        self.store.abandon_refresh(merchant, attempt).await
    }

    async fn revoked(&self, merchant: MerchantId, version: i64) -> Result<(), CredentialError> {
        self.store.revoked(merchant, version).await
    }

    async fn doubt(&self, merchant: Option<MerchantId>) -> Result<Vec<MerchantId>, CredentialError> {
        let mut doubted = Vec::new();
        for merchant in self.store.doubt(merchant).await? {
            match self.find_lost(merchant).await {
                Ok(true) => {}
                Ok(false) => doubted.push(merchant),
                // The next reader finds out.
                Err(error) => {
                    tracing::warn!(merchant.id = merchant.0, error = %error, "it is not known yet whether the tokens of the refresh were stored");
                }
            }
        }
        Ok(doubted)
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

impl<S: MerchantRegistry<Sealed> + CredentialStore<Sealed>> MerchantRegistry for Vault<S> {
    async fn register(&self, registration: &Registration, by: &Actor) -> Result<Registered, CredentialError> {
        let id = registration.merchant_id;
        let before = self.before(id).await?;
        let tokens = self.seal(id, &registration.tokens).await?;
        let sealed = Registration { merchant_id: id, name: registration.name.clone(), tokens };
        let registered = self.store.register(&sealed, by).await?;
        self.settle_if_possible(id, before.as_ref()).await;
        Ok(registered)
    }

    async fn replace_tokens(&self, id: MerchantId, tokens: &Tokens, by: &Actor) -> Result<Changed, CredentialError> {
        let before = self.before(id).await?;
        let sealed = self.seal(id, tokens).await?;
        let changed = self.store.replace_tokens(id, &sealed, by).await?;
        self.settle_if_possible(id, before.as_ref()).await;
        Ok(changed)
    }

    async fn change(&self, id: MerchantId, change: Transition, by: &Actor) -> Result<Changed, CredentialError> {
        let before = self.before(id).await?;
        let changed = self.store.change(id, change, by).await?;
        self.settle_if_possible(id, before.as_ref()).await;
        Ok(changed)
    }

    async fn remove(&self, id: MerchantId, by: &Actor) -> Result<bool, CredentialError> {
        let before = self.before(id).await?;
        let removed = self.store.remove(id, by).await?;
        self.settle(id, before.as_ref()).await?;
        Ok(removed)
    }

    async fn merchant(&self, id: MerchantId) -> Result<Option<Merchant>, DatabaseError> {
        self.store.merchant(id).await
    }

    async fn list(&self, filter: MerchantFilter) -> Result<Vec<Merchant>, DatabaseError> {
        self.store.list(filter).await
    }

    async fn set_global_pause(&self, still: bool, by: &Actor) -> Result<bool, DatabaseError> {
        self.store.set_global_pause(still, by).await
    }

    async fn apply(&self, event: &AppEvent) -> Result<Applied, CredentialError> {
        let before = self.before(event.merchant).await?;
        let tokens = match &event.tokens {
            Some(tokens) => Some(self.seal(event.merchant, tokens).await?),
            None => None,
        };
        let sealed = AppEvent {
            hash: event.hash.clone(),
            name: event.name,
            merchant: event.merchant,
            made: event.made,
            kind: event.kind,
            tokens,
        };
        let applied = self.store.apply(&sealed).await?;
        self.settle_if_possible(event.merchant, before.as_ref()).await;
        Ok(applied)
    }
}
