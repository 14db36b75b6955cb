//! How long Salla wants a store left alone, by the database's clock.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};

use super::connect::Store;
use crate::{
    domain::MerchantId,
    reconcile::ports::{LONGEST_PAUSE, PauseStore, TargetError},
};

impl Store {
    /// Ends the pause that Salla asked for: the store may be asked at once, and its runs that waited are due.
    pub(super) async fn lift_pause(&self, txn: &DatabaseTransaction, merchant: MerchantId) -> Result<(), DbErr> {
        let now = self.dialect.now();
        let due = format!(
            "UPDATE runs SET run_at = {now} WHERE merchant_id = $1 AND status = 'queued' AND run_at > {now} \
             AND EXISTS (SELECT 1 FROM pauses p WHERE p.merchant_id = $1 AND p.ends_at > {now})"
        );
        let ended = format!("UPDATE pauses SET ends_at = {now} WHERE merchant_id = $1 AND ends_at > {now}");
        for sql in [due, ended] {
            txn.execute_raw(self.statement(&sql, [merchant.0.into()])).await?;
        }
        Ok(())
    }
}

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
