//! The register.

use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Value};

use super::{
    connect::Store,
    entity::{credential, merchant, watermark},
};
use crate::{
    domain::{Merchant, MerchantId, MerchantState, Order, Record, UnknownWord},
    reconcile::ports::{Sealed, TargetError, Tokens},
};

/// A store to be put into the register, or to be replaced there.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Salla's id.
    pub merchant_id: MerchantId,
    /// For people; an absent name leaves the present one.
    pub name: Option<String>,
    /// Sealed.
    pub tokens: Tokens<Sealed>,
}

/// A merchant's sealed tokens, with the version that they are of.
#[derive(Debug, Clone)]
pub struct StoredTokens {
    /// Whose.
    pub merchant: MerchantId,
    /// Raised by each change.
    pub version: i64,
    /// Sealed.
    pub tokens: Tokens<Sealed>,
}

impl Store {
    /// Registers a store, or replaces its name and tokens; it is active afterwards.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn register(&self, registration: &Registration) -> Result<(), TargetError> {
        self.call(|| async {
            let txn = self.begin_write().await?;
            let sql = "INSERT INTO merchants (merchant_id, name, state) VALUES ($1, $2, 'active') \
                       ON CONFLICT (merchant_id) DO UPDATE SET state = 'active', name = COALESCE(excluded.name, merchants.name)";
            let values: [Value; 2] = [registration.merchant_id.0.into(), registration.name.clone().into()];
            txn.execute_raw(self.statement(sql, values)).await?;
            let now = self.dialect.now();
            let sql = format!("INSERT INTO credentials (merchant_id, access_token, refresh_token, expires_at) VALUES ($1, $2, $3, $4) \
                       ON CONFLICT (merchant_id) DO UPDATE SET access_token = excluded.access_token, \
                       refresh_token = excluded.refresh_token, expires_at = excluded.expires_at, \
                       version = credentials.version + 1, obtained_at = {now}, refresh_started_at = NULL, \
                       refused_at = NULL");
            let tokens = &registration.tokens;
            let values: [Value; 4] = [
                registration.merchant_id.0.into(),
                tokens.access.0.clone().into(),
                tokens.refresh.as_ref().map(|token| token.0.clone()).into(),
                tokens.expires_at.into(),
            ];
            txn.execute_raw(self.statement(&sql, values)).await?;
            txn.commit().await
        })
        .await
    }

    /// Sets whether sweeps cover a store; false when it is not registered.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn set_state(&self, id: MerchantId, state: MerchantState) -> Result<bool, TargetError> {
        self.call(|| async {
            let updated = merchant::Entity::update_many()
                .col_expr(merchant::Column::State, state.as_str().into())
                .filter(merchant::Column::MerchantId.eq(id.0))
                .exec(&self.db)
                .await?;
            Ok(updated.rows_affected > 0)
        })
        .await
    }

    /// Takes a store out of the register and destroys its tokens; its orders and runs stay. False when it
    /// is not registered.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn remove(&self, id: MerchantId) -> Result<bool, TargetError> {
        self.call(|| async {
            let removed = merchant::Entity::delete_by_id(id.0).exec(&self.db).await?;
            Ok(removed.rows_affected > 0)
        })
        .await
    }

    /// Which of the `merchants` a sweep covers: the active ones, and those whose refresh has an unknown outcome, while
    /// their old token lasts.
    pub(super) fn covered(&self) -> String {
        format!(
            "(state = 'active' OR state = 'needs_reauthorization' AND EXISTS (SELECT 1 FROM credentials c \
             WHERE c.merchant_id = merchants.merchant_id AND c.refused_at IS NULL AND (c.expires_at IS NULL OR c.expires_at > {})))",
            self.dialect.now()
        )
    }

    /// The merchants that a sweep covers now, by id.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn covered_merchants(&self) -> Result<Vec<MerchantId>, TargetError> {
        let sql = format!("SELECT merchant_id FROM merchants WHERE {} ORDER BY merchant_id", self.covered());
        let sql = sql.as_str();
        self.call(|| async move {
            let rows = self.db.query_all_raw(self.statement(sql, [])).await?;
            rows.iter().map(|row| row.try_get("", "merchant_id").map(MerchantId)).collect()
        })
        .await
    }

    pub(super) async fn register_rows(&self) -> Result<Vec<Merchant>, DbErr> {
        let watermarks: std::collections::HashMap<i64, DateTime<Utc>> = watermark::Entity::find()
            .filter(watermark::Column::Resource.eq(Order::RESOURCE.as_str()))
            .all(&self.db)
            .await?
            .into_iter()
            .map(|row| (row.merchant_id, row.watermark))
            .collect();
        let rows = merchant::Entity::find().order_by_asc(merchant::Column::MerchantId).all(&self.db).await?;
        rows.into_iter()
            .map(|row| {
                Ok(Merchant {
                    merchant_id: MerchantId(row.merchant_id),
                    name: row.name,
                    state: row.state.parse().map_err(|error: UnknownWord| DbErr::Type(error.to_string()))?,
                    watermark: watermarks.get(&row.merchant_id).copied(),
                })
            })
            .collect()
    }

    /// Sealed tokens in the order of their merchants' ids, after `after`.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn stored_tokens(&self, after: Option<MerchantId>, limit: u64) -> Result<Vec<StoredTokens>, TargetError> {
        self.call(|| async {
            let after = after.map_or(i64::MIN, |id| id.0);
            let rows = credential::Entity::find()
                .filter(credential::Column::MerchantId.gt(after))
                .order_by_asc(credential::Column::MerchantId)
                .limit(limit)
                .all(&self.db)
                .await?;
            Ok(rows
                .into_iter()
                .map(|row| StoredTokens {
                    merchant: MerchantId(row.merchant_id),
                    version: row.version,
                    tokens: sealed(&row),
                })
                .collect())
        })
        .await
    }

    /// Replaces sealed tokens by the same tokens sealed anew, unless they have changed meanwhile: then
    /// they are under the first key already, and false is returned.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn reseal(&self, stored: &StoredTokens, tokens: &Tokens<Sealed>) -> Result<bool, TargetError> {
        self.call(|| async {
            let sql = "UPDATE credentials SET access_token = $1, refresh_token = $2 \
                       WHERE merchant_id = $3 AND version = $4 AND access_token = $5";
            let values: [Value; 5] = [
                tokens.access.0.clone().into(),
                tokens.refresh.as_ref().map(|token| token.0.clone()).into(),
                stored.merchant.0.into(),
                stored.version.into(),
                stored.tokens.access.0.clone().into(),
            ];
            let done = self.db.execute_raw(self.statement(sql, values)).await?;
            Ok(done.rows_affected() > 0)
        })
        .await
    }
}

pub(super) fn sealed(row: &credential::Model) -> Tokens<Sealed> {
    Tokens {
        access: Sealed(row.access_token.clone()),
        refresh: row.refresh_token.clone().map(Sealed),
        expires_at: row.expires_at,
    }
}
