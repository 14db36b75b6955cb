//! How long Salla wants a store left alone, by the database's clock.

use std::{collections::HashMap, time::Duration};

use sea_orm::{ConnectionTrait, DbErr};

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
}

impl Store {
    /// Those of these merchants whose pause is not over, and how long it still is.
    pub(super) async fn pauses(
        &self,
        db: &impl ConnectionTrait,
        merchants: impl Iterator<Item = i64>,
    ) -> Result<HashMap<i64, Duration>, DbErr> {
        let now = self.dialect.now();
        let ids = merchants.map(|id| id.to_string()).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT merchant_id, {} AS pause FROM pauses WHERE merchant_id IN ({ids}) AND ends_at > {now}",
            self.dialect.seconds_between(now, "ends_at")
        );
        let rows = db.query_all_raw(self.statement(&sql, [])).await?;
        rows.iter()
            .map(|row| {
                let seconds: f64 = row.try_get("", "pause")?;
                Ok((row.try_get("", "merchant_id")?, Duration::from_secs_f64(seconds.max(0.0))))
            })
            .collect()
    }
}
