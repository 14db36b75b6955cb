//! The firings of the schedule: each is on record once, together with the runs it made.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Value};

use super::connect::Store;
use crate::reconcile::ports::{Firing, TargetError};

impl Store {
    pub(super) async fn newest_firing(&self, pattern: &str) -> Result<Option<DateTime<Utc>>, TargetError> {
        self.call(|| async move {
            let sql = "SELECT slot FROM firings WHERE pattern = $1 ORDER BY slot DESC LIMIT 1";
            let row = self.db.query_one_raw(self.statement(sql, [pattern.into()])).await?;
            row.map(|row| row.try_get("", "slot")).transpose()
        })
        .await
    }

    pub(super) async fn record_firing(
        &self,
        slot: DateTime<Utc>,
        pattern: &str,
        firing: Firing,
    ) -> Result<Option<u64>, TargetError> {
        self.call(|| self.record_firing_once(slot, pattern, firing)).await
    }

    /// The record and the runs in one transaction: a process that dies in between leaves neither.
    async fn record_firing_once(
        &self,
        slot: DateTime<Utc>,
        pattern: &str,
        firing: Firing,
    ) -> Result<Option<u64>, DbErr> {
        let txn = self.begin_write().await?;
        let outcome = match firing {
            Firing::Run { trigger, .. } => trigger.as_str(),
            Firing::Skip => "skipped",
            Firing::Begin => "began",
        };
        let sql = "INSERT INTO firings (slot, pattern, outcome) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        let values: [Value; 3] = [slot.into(), pattern.into(), outcome.into()];
        if txn.execute_raw(self.statement(sql, values)).await?.rows_affected() == 0 {
            return Ok(None);
        }
        let mut runs = 0;
        if let Firing::Run { trigger, spread } = firing {
            // A prime multiplier scatters neighbouring ids; the remainder keeps the product small.
            let offset = match spread.as_secs() {
                0 => "0".to_owned(),
                seconds => format!("(abs(merchant_id % 1000003) * 7919) % {seconds}"),
            };
            let sql = format!(
                "INSERT INTO runs (id, merchant_id, trigger, status, firing, run_at) \
                 SELECT {id}, merchant_id, $2, 'queued', $1, {run_at} FROM merchants WHERE state = 'active' \
                 ON CONFLICT DO NOTHING",
                id = self.dialect.uuid_v7(),
                run_at = self.dialect.first_parameter_plus(&offset),
            );
            let values: [Value; 2] = [slot.into(), trigger.as_str().into()];
            runs = txn.execute_raw(self.statement(&sql, values)).await?.rows_affected();
            let sql = "UPDATE firings SET runs = $1 WHERE slot = $2 AND pattern = $3";
            let count = i64::try_from(runs).unwrap_or(i64::MAX);
            let values: [Value; 3] = [count.into(), slot.into(), pattern.into()];
            txn.execute_raw(self.statement(sql, values)).await?;
        }
        txn.commit().await?;
        Ok(Some(runs))
    }
}
