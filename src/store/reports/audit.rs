//! The audit: an entry is written in the transaction of its action, and kept for a year.

use std::time::Duration;

use chrono::DateTime;
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};

use crate::{
    domain::MerchantId,
    reconcile::ports::{Audit, Audited, DatabaseError},
    store::{
        Store,
        connection::{dialect::Dialect, stamp::instant},
    },
};

/// Longer than the runs that it may name.
pub(in crate::store) const KEEP_AUDIT: Duration = Duration::from_secs(365 * 86_400);

impl Store {
    /// Makes an entry, in the transaction `db`. [`Audit::tell`] follows when that is committed.
    pub(in crate::store) async fn record(&self, db: &impl ConnectionTrait, audit: &Audit) -> Result<(), DbErr> {
        let detail = match self.dialect {
            Dialect::Postgres => "CAST($5 AS jsonb)",
            Dialect::Sqlite => "$5",
        };
        let sql =
            format!("INSERT INTO audit (actor, action, merchant_id, run_id, detail) VALUES ($1, $2, $3, $4, {detail})");
        let values: [Value; 5] = [
            audit.actor.to_string().into(),
            audit.action.as_str().into(),
            audit.merchant.map(|merchant| merchant.0).into(),
            audit.run.into(),
            audit.detail.to_string().into(),
        ];
        db.execute_raw(self.statement(&sql, values)).await?;
        Ok(())
    }

    /// Makes an entry about what was done in many transactions.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn note(&self, audit: &Audit) -> Result<(), DatabaseError> {
        self.call(|| self.record(&self.db, audit)).await?;
        audit.tell();
        Ok(())
    }

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
