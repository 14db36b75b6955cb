//! The effects of refreshes on the state of a merchant: Salla refuses the tokens, their state is unknown, or new tokens
//! come. Each function looks at the tokens while it holds the row of the merchant. New tokens may come at the same
//! moment.

use sea_orm::{ConnectionTrait, DbErr, Value};

use crate::{
    domain::{MerchantId, Transition},
    reconcile::ports::{DatabaseError, REFRESH_TAKES_AT_MOST, Sealed, Tokens},
    store::Store,
};

impl Store {
    /// Salla refuses the tokens of `version` for good.
    pub(in crate::store) async fn refuse_tokens(&self, id: MerchantId, version: i64) -> Result<(), DatabaseError> {
        let refuse = format!(
            "UPDATE credentials SET revoked_at = COALESCE(revoked_at, {}) \
             WHERE merchant_id = $1 AND version = $2 RETURNING merchant_id",
            self.dialect.now()
        );
        let refuse = refuse.as_str();
        self.call(|| async move { self.doubt_one(id, refuse, &[id.0.into(), version.into()]).await.map(drop) }).await
    }

    /// Marks refresh tokens as unknown whose refresh took too long, or is `merchant`'s: they may be used up.
    /// Returns the merchants that stood otherwise.
    pub(in crate::store) async fn doubt_tokens(
        &self,
        merchant: Option<MerchantId>,
    ) -> Result<Vec<MerchantId>, DatabaseError> {
        let lost = format!("c.refresh_started_at < {}", self.dialect.now_minus(REFRESH_TAKES_AT_MOST));
        let candidates = format!(
            "SELECT m.merchant_id FROM credentials c JOIN merchants m ON m.merchant_id = c.merchant_id \
             WHERE ({lost} OR c.refresh_started_at IS NOT NULL AND m.merchant_id = $1) \
             AND (m.state = 'active' OR m.state = 'paused' AND COALESCE(m.state_before_pause, 'active') = 'active')"
        );
        let candidates = candidates.as_str();
        let ids: Vec<i64> = self
            .call(|| async move {
                let rows = self.db.query_all_raw(self.statement(candidates, [merchant.map(|id| id.0).into()])).await?;
                rows.iter().map(|row| row.try_get("", "merchant_id")).collect()
            })
            .await?;
        let mut shown = Vec::new();
        for id in ids.into_iter().map(MerchantId) {
            let still = if merchant == Some(id) { "c.refresh_started_at IS NOT NULL" } else { lost.as_str() };
            let still = &format!("SELECT c.merchant_id FROM credentials c WHERE c.merchant_id = $1 AND {still}");
            match self.call(|| async move { self.doubt_one(id, still, &[id.0.into()]).await }).await {
                Ok(true) => shown.push(id),
                Ok(false) => {}
                Err(error) if merchant == Some(id) => return Err(error),
                // Another session holds its row: the next round looks again.
                Err(error) => {
                    tracing::warn!(merchant.id = id.0, error = %error, "interrupted refreshes could not be determined");
                }
            }
        }
        Ok(shown)
    }

    /// If `sql` returns the tokens that are meant, the merchant stands as one whose tokens are refused; true when it
    /// stood otherwise.
    async fn doubt_one(&self, id: MerchantId, sql: &str, values: &[Value]) -> Result<bool, DbErr> {
        let txn = self.begin_write().await?;
        let Some(before) = self.lock_merchant_status(&txn, id).await? else {
            return Ok(false);
        };
        if txn.query_one_raw(self.statement(sql, values.to_vec())).await?.is_none() {
            return Ok(false);
        }
        let after = before.after(Transition::RefuseTokens).unwrap_or(before);
        self.change_merchant_status(&txn, id, before, after).await?;
        txn.commit().await?;
        Ok(after != before)
    }

    /// Saves what a renewal brought. It may come so late that others have given it up.
    pub(in crate::store) async fn renew_tokens(
        &self,
        id: MerchantId,
        version: i64,
        tokens: &Tokens<Sealed>,
    ) -> Result<(), DatabaseError> {
        let sql = format!(
            "UPDATE credentials SET access_token = $1, refresh_token = $2, expires_at = $3, version = $4, \
             owner_confirmed = FALSE, issued_at = {}, refresh_started_at = NULL, refresh_attempt = NULL, \
             revoked_at = NULL WHERE merchant_id = $5 AND version = $6",
            self.dialect.now()
        );
        let sql = sql.as_str();
        self.call(|| async move {
            let txn = self.begin_write().await?;
            let status = self.lock_merchant_status(&txn, id).await?;
            let values: [Value; 6] = [
                tokens.access.0.clone().into(),
                tokens.refresh.as_ref().map(|token| token.0.clone()).into(),
                tokens.expires_at.into(),
                (version + 1).into(),
                id.0.into(),
                version.into(),
            ];
            let saved = txn.execute_raw(self.statement(sql, values)).await?.rows_affected() > 0;
            if let Some(status) = status.filter(|_| saved) {
                self.set_merchant_status(&txn, id, status.authorized()).await?;
            }
            failpoint!("refresh_save_before_commit", id.0);
            txn.commit().await?;
            failpoint!("refresh_save_after_commit", id.0);
            Ok(())
        })
        .await
    }
}
