//! The register.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select, Value};
use serde_json::json;

use crate::{
    domain::{Merchant, MerchantId, Resource, Resources, Transition, UnknownValue},
    reconcile::ports::{
        Action, Actor, AppEvent, Applied, Audit, Changed, CredentialError, DatabaseError, MerchantFilter,
        MerchantRegistry, REFRESH_TAKES_AT_MOST, Registered, Registration, Sealed, Tokens,
    },
    store::{
        PlatformNames, Store,
        connection::stamp::Stamp,
        entity::{credential, merchant, watermark},
    },
};

/// A merchant's sealed tokens, with the version that they are of.
#[derive(Debug, Clone)]
pub struct StoredTokens {
    /// The merchant.
    pub merchant: MerchantId,
    /// Raised by each change.
    pub version: i64,
    /// Sealed.
    pub tokens: Tokens<Sealed>,
}

impl MerchantRegistry<Sealed> for Store {
    async fn register(&self, registration: &Registration<Sealed>, by: &Actor) -> Result<Registered, CredentialError> {
        Ok(self.call(|| self.register_once(registration, by)).await?)
    }

    async fn replace_tokens(
        &self,
        id: MerchantId,
        tokens: &Tokens<Sealed>,
        by: &Actor,
    ) -> Result<Changed, CredentialError> {
        Ok(self.call(|| self.replace_tokens_once(id, tokens, by)).await?)
    }

    async fn change(&self, id: MerchantId, change: Transition, by: &Actor) -> Result<Changed, CredentialError> {
        Ok(self.call(|| self.change_once(id, change, by)).await?)
    }

    async fn remove(&self, id: MerchantId, by: &Actor) -> Result<bool, CredentialError> {
        let audit = &Audit::of_merchant(by, Action::MerchantRemove, id, json!({}));
        let removed = self.call(|| async move {
            let txn = self.begin_write().await?;
            self.cancel_runs(&txn, id, "status = 'queued'").await?;
            let removed = merchant::Entity::delete_by_id(id.0).exec(&txn).await?.rows_affected > 0;
            if removed {
                self.insert_audit(&txn, audit).await?;
                txn.commit().await?;
                audit.tell();
            }
            Ok(removed)
        });
        Ok(removed.await?)
    }

    async fn merchant(&self, id: MerchantId) -> Result<Option<Merchant>, DatabaseError> {
        self.call(|| self.find_merchant(&self.db, id)).await
    }

    async fn list(&self, filter: MerchantFilter) -> Result<Vec<Merchant>, DatabaseError> {
        self.call(|| async {
            let mut query = merchant::Entity::find().order_by_asc(merchant::Column::MerchantId).limit(filter.limit);
            if let Some(state) = filter.state {
                query = query.filter(merchant::Column::State.eq(state.as_str()));
            }
            if let Some(after) = filter.after {
                query = query.filter(merchant::Column::MerchantId.gt(after.0));
            }
            let rows = query.all(&self.db).await?;
            let ids: Vec<i64> = rows.iter().map(|row| row.merchant_id).collect();
            let watermarks = watermark::Entity::find().filter(watermark::Column::MerchantId.is_in(ids));
            self.with_watermarks(rows, watermarks, &self.db).await
        })
        .await
    }

    async fn set_global_pause(&self, still: bool, by: &Actor) -> Result<bool, DatabaseError> {
        self.call(|| self.set_global_pause_once(still, by)).await
    }

    async fn apply(&self, event: &AppEvent<Sealed>) -> Result<Applied, CredentialError> {
        Ok(self.call(|| self.apply_once(event)).await?)
    }
}

impl Store {
    /// Reconciles these resources in runs that name none, and tables of the platform through these views.
    #[must_use]
    pub fn with_resources_and_targets(mut self, resources: Resources, names: PlatformNames) -> Self {
        self.resources = resources;
        self.targets = Arc::new(names.into_iter().map(|(resource, view, _)| (resource, view.to_string())).collect());
        self
    }

    /// Returns the condition that a row of `watermarks` is for a reconciled kind of record and its
    /// present target. A kind or target that is no longer reconciled does not hold a merchant back.
    pub(in crate::store) fn kept(&self) -> String {
        let of_one = |resource| format!("('{resource}', '{}')", self.target_of(resource));
        let pairs: Vec<String> = self.resources.iter().map(of_one).collect();
        format!("(w.resource, w.target) IN (VALUES {})", pairs.join(", "))
    }

    /// Up to when all that is reconciled of a merchant is known to be right, as a table of `merchant_id` and `watermark`.
    pub(in crate::store) fn oldest_watermarks(&self) -> String {
        // One row per merchant needs no grouping, which would slow down a scrape of many merchants.
        let (oldest, grouped) = match self.resources.iter().count() {
            1 => ("w.watermark", ""),
            _ => ("min(w.watermark)", "GROUP BY w.merchant_id"),
        };
        let kept = self.kept();
        format!("(SELECT w.merchant_id, {oldest} AS watermark FROM watermarks w WHERE {kept} {grouped})")
    }

    /// Merchants with their watermarks, of those that `watermarks` finds.
    pub(in crate::store) async fn with_watermarks(
        &self,
        rows: Vec<merchant::Model>,
        watermarks: Select<watermark::Entity>,
        db: &impl ConnectionTrait,
    ) -> Result<Vec<Merchant>, DbErr> {
        let mut covered: HashMap<i64, BTreeMap<Resource, DateTime<Utc>>> = HashMap::new();
        for row in watermarks.all(db).await? {
            let kind = row.resource.parse().ok();
            let is_kept = |kind: &Resource| {
                self.resources.iter().any(|kept| kept == *kind) && row.target == self.target_of(*kind)
            };
            if let Some(resource) = kind.filter(is_kept) {
                covered.entry(row.merchant_id).or_default().extend(row.watermark.map(|Stamp(at)| (resource, at)));
            }
        }
        rows.into_iter()
            .map(|row| {
                let watermarks = covered.remove(&row.merchant_id).unwrap_or_default();
                Ok(Merchant {
                    merchant_id: MerchantId(row.merchant_id),
                    name: row.name,
                    state: row.state.parse().map_err(|error: UnknownValue| DbErr::Type(error.to_string()))?,
                    watermark: watermarks.values().min().copied(),
                    watermarks,
                })
            })
            .collect()
    }

    /// Which of the `merchants` a sweep covers: the active ones, and those whose refresh has an unknown outcome, while
    /// their old token lasts.
    pub(in crate::store) fn covered(&self) -> String {
        format!(
            "(state = 'active' OR state = 'needs_reauthorization' AND EXISTS (SELECT 1 FROM credentials c \
             WHERE c.merchant_id = merchants.merchant_id AND c.revoked_at IS NULL AND (c.expires_at IS NULL OR c.expires_at > {})))",
            self.dialect.now()
        )
    }

    /// The merchants that a sweep covers now, by id.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn covered_merchants(&self) -> Result<Vec<MerchantId>, DatabaseError> {
        let sql = format!("SELECT merchant_id FROM merchants WHERE {} ORDER BY merchant_id", self.covered());
        let sql = sql.as_str();
        self.call(|| async move {
            let rows = self.db.query_all_raw(self.statement(sql, [])).await?;
            rows.iter().map(|row| row.try_get("", "merchant_id").map(MerchantId)).collect()
        })
        .await
    }

    pub(in crate::store) async fn register_rows(&self) -> Result<Vec<Merchant>, DbErr> {
        let rows = merchant::Entity::find().order_by_asc(merchant::Column::MerchantId).all(&self.db).await?;
        self.with_watermarks(rows, watermark::Entity::find(), &self.db).await
    }

    pub(in crate::store) async fn find_merchant(
        &self,
        db: &impl ConnectionTrait,
        id: MerchantId,
    ) -> Result<Option<Merchant>, DbErr> {
        let row = merchant::Entity::find_by_id(id.0).all(db).await?;
        let watermarks = watermark::Entity::find().filter(watermark::Column::MerchantId.eq(id.0));
        Ok(self.with_watermarks(row, watermarks, db).await?.pop())
    }

    /// Whether a merchant has a refresh token.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn has_refresh_tokens(&self) -> Result<bool, DatabaseError> {
        let sql = "SELECT 1 AS found FROM credentials WHERE refresh_token IS NOT NULL LIMIT 1";
        self.call(|| async { Ok(self.db.query_one_raw(self.statement(sql, [])).await?.is_some()) }).await
    }

    /// Sealed tokens in the order of their merchants' ids, after `after`.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn stored_tokens(
        &self,
        after: Option<MerchantId>,
        limit: u64,
    ) -> Result<Vec<StoredTokens>, DatabaseError> {
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

    /// Replaces encrypted tokens with the same tokens, re-encrypted; false when they have changed meanwhile or are being
    /// renewed, and nothing was replaced.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn reseal(&self, stored: &StoredTokens, tokens: &Tokens<Sealed>) -> Result<bool, DatabaseError> {
        self.call(|| async {
            // Their successors are looked for by what stands here.
            let sql = format!(
                "UPDATE credentials SET access_token = $1, refresh_token = $2 \
                 WHERE merchant_id = $3 AND version = $4 AND access_token = $5 \
                 AND (refresh_started_at IS NULL OR refresh_started_at < {})",
                self.dialect.now_minus(REFRESH_TAKES_AT_MOST)
            );
            let values: [Value; 5] = [
                tokens.access.0.clone().into(),
                tokens.refresh.as_ref().map(|token| token.0.clone()).into(),
                stored.merchant.0.into(),
                stored.version.into(),
                stored.tokens.access.0.clone().into(),
            ];
            let done = self.db.execute_raw(self.statement(&sql, values)).await?;
            Ok(done.rows_affected() > 0)
        })
        .await
    }
}

pub(in crate::store) fn sealed(row: &credential::Model) -> Tokens<Sealed> {
    Tokens {
        access: Sealed(row.access_token.clone()),
        refresh: row.refresh_token.clone().map(Sealed),
        expires_at: row.expires_at.map(|Stamp(at)| at),
        owner_confirmed: row.owner_confirmed,
    }
}
