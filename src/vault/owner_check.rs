//! A merchant register that asks Salla which merchant each new token belongs to.

use std::sync::Arc;

use crate::{
    domain::{Merchant, MerchantId, Transition},
    reconcile::ports::{
        Actor, AppEvent, Applied, Changed, CredentialError, DatabaseError, MerchantFilter, MerchantRegistry,
        Registered, Registration, TokenOwner, Tokens,
    },
};

/// Refuses a token that belongs to another merchant, before it is stored. Asks Salla once for each.
#[derive(Debug)]
pub struct OwnerCheckedRegister<R, O> {
    register: R,
    owner: Arc<O>,
}

impl<R: Clone, O> Clone for OwnerCheckedRegister<R, O> {
    fn clone(&self) -> Self {
        Self { register: self.register.clone(), owner: Arc::clone(&self.owner) }
    }
}

impl<R: MerchantRegistry, O: TokenOwner> OwnerCheckedRegister<R, O> {
    /// Wraps `register`.
    pub fn new(register: R, owner: Arc<O>) -> Self {
        Self { register, owner }
    }

    /// The tokens, with the note whether Salla confirmed their owner.
    async fn confirmed(&self, merchant: MerchantId, tokens: &Tokens) -> Result<Tokens, CredentialError> {
        let owner_confirmed = match self.owner.owner(&tokens.access).await {
            Ok(owner) if owner != merchant => return Err(CredentialError::OtherMerchant { merchant, owner }),
            Ok(_) => true,
            Err(reason) => {
                tracing::warn!(
                    merchant.id = merchant.0,
                    reason = %reason,
                    "Salla does not say which merchant the token belongs to; it is stored unchecked"
                );
                false
            }
        };
        Ok(Tokens { owner_confirmed, ..tokens.clone() })
    }
}

impl<R: MerchantRegistry, O: TokenOwner> MerchantRegistry for OwnerCheckedRegister<R, O> {
    async fn register(&self, registration: &Registration, by: &Actor) -> Result<Registered, CredentialError> {
        let tokens = self.confirmed(registration.merchant_id, &registration.tokens).await?;
        self.register.register(&Registration { tokens, ..registration.clone() }, by).await
    }

    async fn replace_tokens(&self, id: MerchantId, tokens: &Tokens, by: &Actor) -> Result<Changed, CredentialError> {
        let tokens = self.confirmed(id, tokens).await?;
        self.register.replace_tokens(id, &tokens, by).await
    }

    async fn change(&self, id: MerchantId, change: Transition, by: &Actor) -> Result<Changed, CredentialError> {
        self.register.change(id, change, by).await
    }

    async fn remove(&self, id: MerchantId, by: &Actor) -> Result<bool, CredentialError> {
        self.register.remove(id, by).await
    }

    async fn merchant(&self, id: MerchantId) -> Result<Option<Merchant>, DatabaseError> {
        self.register.merchant(id).await
    }

    async fn list(&self, filter: MerchantFilter) -> Result<Vec<Merchant>, DatabaseError> {
        self.register.list(filter).await
    }

    async fn set_global_pause(&self, still: bool, by: &Actor) -> Result<bool, DatabaseError> {
        self.register.set_global_pause(still, by).await
    }

    async fn apply(&self, event: &AppEvent) -> Result<Applied, CredentialError> {
        let Some(tokens) = &event.tokens else {
            return self.register.apply(event).await;
        };
        let tokens = Some(self.confirmed(event.merchant, tokens).await?);
        self.register.apply(&AppEvent { tokens, ..event.clone() }).await
    }
}
