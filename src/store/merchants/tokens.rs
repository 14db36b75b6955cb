//! The tokens of a merchant: replaced with a registration, by an app event, or alone.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, Value};
use serde_json::json;

use crate::{
    domain::{MerchantId, MerchantState, TransitionError},
    reconcile::ports::{Action, Actor, Audit, Changed, Sealed, Tokens},
    store::Store,
};

impl Store {
    pub(in crate::store) async fn replace_tokens_once(
        &self,
        id: MerchantId,
        tokens: &Tokens<Sealed>,
        by: &Actor,
    ) -> Result<Changed, DbErr> {
        let txn = self.begin_write().await?;
        let Some(status) = self.lock_merchant_status(&txn, id).await? else {
            return Ok(Changed::Unknown);
        };
        if status.state() == MerchantState::Uninstalled {
            return Ok(Changed::Impossible(TransitionError::Uninstalled));
        }
        let after = status.authorized();
        self.set_merchant_status(&txn, id, after).await?;
        self.put_tokens(&txn, id, tokens).await?;
        let merchant = self.find_merchant(&txn, id).await?;
        let audit = Audit::of_merchant(by, Action::MerchantTokens, id, json!({"state": after.state()}));
        self.insert_audit(&txn, &audit).await?;
        txn.commit().await?;
        self.queue_position.forget();
        audit.tell();
        Ok(merchant.map_or(Changed::Unknown, Changed::Now))
    }

    /// Saves tokens under a version that no refresh in progress can reach. This includes a refresh
    /// that began with tokens that were deleted meanwhile: the clock is ahead of every count.
    pub(in crate::store) async fn put_tokens(
        &self,
        txn: &DatabaseTransaction,
        id: MerchantId,
        tokens: &Tokens<Sealed>,
    ) -> Result<(), DbErr> {
        let (now, clock) = (self.dialect.now(), self.dialect.clock_millis());
        let version = self.dialect.greatest("credentials.version + 2", clock);
        let sql = format!(
            "INSERT INTO credentials (merchant_id, access_token, refresh_token, expires_at, owner_confirmed, version) \
             VALUES ($1, $2, $3, $4, $5, {clock}) \
             ON CONFLICT (merchant_id) DO UPDATE SET access_token = excluded.access_token, \
             refresh_token = excluded.refresh_token, expires_at = excluded.expires_at, \
             owner_confirmed = excluded.owner_confirmed, \
             version = {version}, issued_at = {now}, refresh_started_at = NULL, refresh_attempt = NULL, \
             revoked_at = NULL"
        );
        let values: [Value; 5] = [
            id.0.into(),
            tokens.access.0.clone().into(),
            tokens.refresh.as_ref().map(|token| token.0.clone()).into(),
            tokens.expires_at.into(),
            tokens.owner_confirmed.into(),
        ];
        txn.execute_raw(self.statement(&sql, values)).await.map(drop)
    }
}
