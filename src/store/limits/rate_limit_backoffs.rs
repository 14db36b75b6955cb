//! The rate-limit backoffs of merchants, by the clock of the database.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};

use crate::{
    domain::MerchantId,
    reconcile::ports::{BackoffStore, DatabaseError, LONGEST_PAUSE},
    store::Store,
};

impl Store {
    /// Ends the pause that Salla asked for: the merchant may be asked at once, and its runs that waited are due.
    pub(in crate::store) async fn lift_pause(
        &self,
        txn: &DatabaseTransaction,
        merchant: MerchantId,
    ) -> Result<(), DbErr> {
        let now = self.dialect.now();
        let due = format!(
            "UPDATE runs SET scheduled_at = {now} WHERE merchant_id = $1 AND status = 'queued' AND scheduled_at > {now} \
             AND EXISTS (SELECT 1 FROM rate_limit_backoffs b WHERE b.merchant_id = $1 AND b.retry_at > {now})"
        );
        let ended =
            format!("UPDATE rate_limit_backoffs SET retry_at = {now} WHERE merchant_id = $1 AND retry_at > {now}");
        for sql in [due, ended] {
            txn.execute_raw(self.statement(&sql, [merchant.0.into()])).await?;
        }
        Ok(())
    }
}

impl BackoffStore for Store {
    async fn pause(&self, merchant: MerchantId, pause: Duration) -> Result<(), DatabaseError> {
        // A removed merchant needs no backoff.
        let sql = format!(
            "INSERT INTO rate_limit_backoffs (merchant_id, retry_at) SELECT merchant_id, {retry_at} FROM merchants WHERE merchant_id = $1 \
             ON CONFLICT (merchant_id) DO UPDATE SET retry_at = excluded.retry_at WHERE rate_limit_backoffs.retry_at < excluded.retry_at",
            retry_at = self.dialect.now_plus(pause.min(LONGEST_PAUSE)),
        );
        let sql = sql.as_str();
        self.call(|| async move {
            self.db.execute_raw(self.statement(sql, [merchant.0.into()])).await?;
            Ok(())
        })
        .await
    }

    async fn save_recent_requests(&self, merchant: MerchantId, requests: u32) -> Result<(), DatabaseError> {
        let now = self.dialect.now();
        let sql = format!(
            "INSERT INTO rate_limit_backoffs (merchant_id, retry_at, recent_requests, recorded_at) \
             SELECT merchant_id, {now}, $2, {now} FROM merchants WHERE merchant_id = $1 \
             ON CONFLICT (merchant_id) DO UPDATE SET recent_requests = excluded.recent_requests, recorded_at = excluded.recorded_at"
        );
        let sql = sql.as_str();
        self.call(|| async move {
            self.db.execute_raw(self.statement(sql, [merchant.0.into(), i64::from(requests).into()])).await?;
            Ok(())
        })
        .await
    }
}
