//! The audit: an entry is written in the transaction of its action, and kept for a year.

use std::time::Duration;

use chrono::DateTime;
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};

use crate::{
    domain::MerchantId,
    reconcile::ports::{Audited, DatabaseError},
    store::{Store, connection::stamp::instant},
};

/// Longer than the runs that it may name.
pub(in crate::store) const KEEP_AUDIT: Duration = Duration::from_secs(365 * 86_400);

impl Store {
    /// Entries older than `before`, newest first.
    pub(in crate::store) async fn audit(&self, before: Option<i64>, limit: u64) -> Result<Vec<Audited>, DatabaseError> {
        let at = self.dialect.finite("at");
        let sql = &format!(
            "SELECT id, {at} AS at, actor, action, merchant_id, run_id, CAST(detail AS text) AS detail \
             FROM audit WHERE id < $1 ORDER BY id DESC LIMIT $2"
        );
        self.call(|| async move {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let values: [Value; 2] = [before.unwrap_or(i64::MAX).into(), limit.into()];
            let rows = self.db.query_all_raw(self.statement(sql, values)).await?;
            rows.iter().map(audited).collect()
        })
        .await
    }
}

fn audited(row: &QueryResult) -> Result<Audited, DbErr> {
    let detail: String = row.try_get("", "detail")?;
    let merchant: Option<i64> = row.try_get("", "merchant_id")?;
    Ok(Audited {
        id: row.try_get("", "id")?,
        at: instant(row, "at").unwrap_or(DateTime::UNIX_EPOCH),
        actor: row.try_get("", "actor")?,
        action: row.try_get("", "action")?,
        merchant_id: merchant.map(MerchantId),
        run_id: row.try_get("", "run_id")?,
        detail: serde_json::from_str(&detail).map_err(|error| DbErr::Json(error.to_string()))?,
    })
}
