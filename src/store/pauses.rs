//! How long Salla wants a store left alone, by the database's clock.

use std::time::Duration;

use sea_orm::ConnectionTrait;

use super::connect::Store;
use crate::{
    domain::MerchantId,
    reconcile::ports::{LONGEST_PAUSE, PauseStore, TargetError},
};

impl PauseStore for Store {
    async fn pause(&self, merchant: MerchantId, pause: Duration) -> Result<(), TargetError> {
        // A merchant that was removed meanwhile has no pause to be kept.
        let sql = format!(
            "INSERT INTO pauses (merchant_id, ends_at) SELECT merchant_id, {ends_at} FROM merchants WHERE merchant_id = $1 \
             ON CONFLICT (merchant_id) DO UPDATE SET ends_at = excluded.ends_at WHERE pauses.ends_at < excluded.ends_at",
            ends_at = self.dialect.now_plus(pause.min(LONGEST_PAUSE)),
        );
        let sql = sql.as_str();
        self.call(|| async move {
            self.db.execute_raw(self.statement(sql, [merchant.0.into()])).await?;
            Ok(())
        })
        .await
    }

    async fn spent(&self, merchant: MerchantId, requests: u32) -> Result<(), TargetError> {
        let now = self.dialect.now();
        let sql = format!(
            "INSERT INTO pauses (merchant_id, ends_at, spent, spent_at) \
             SELECT merchant_id, {now}, $2, {now} FROM merchants WHERE merchant_id = $1 \
             ON CONFLICT (merchant_id) DO UPDATE SET spent = excluded.spent, spent_at = excluded.spent_at"
        );
        let sql = sql.as_str();
        self.call(|| async move {
            self.db.execute_raw(self.statement(sql, [merchant.0.into(), i64::from(requests).into()])).await?;
            Ok(())
        })
        .await
    }
}
