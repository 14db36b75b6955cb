//! The firings of the schedule: each is on record once, together with the runs it made.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Value};

use super::connect::Store;
use crate::{
    domain::{RunStatus, Totals, UnknownWord},
    reconcile::ports::{EndedSweep, Firing, TargetError},
};

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
                "INSERT INTO runs (id, merchant_id, trigger, status, firing, run_at, covered_until) \
                 SELECT {id}, merchant_id, $2, 'queued', $1, {run_at}, {covered_until} \
                 FROM merchants WHERE {covered} {locked} ON CONFLICT DO NOTHING",
                covered = self.covered(),
                covered_until = self.covered_until("merchants.merchant_id"),
                id = self.dialect.uuid_v7(),
                // A merchant that is paused or retired at this moment has no run, or one that is cancelled.
                locked = self.dialect.for_share(),
                run_at = self.dialect.first_parameter_plus(&offset),
            );
            let values: [Value; 2] = [slot.into(), trigger.as_str().into()];
            runs = txn.execute_raw(self.statement(&sql, values)).await?.rows_affected();
            let sql = "UPDATE firings SET runs = $1 WHERE slot = $2 AND pattern = $3";
            let count = i64::try_from(runs).unwrap_or(i64::MAX);
            let values: [Value; 3] = [count.into(), slot.into(), pattern.into()];
            txn.execute_raw(self.statement(sql, values)).await?;
        }
        failpoint!("firing_before_commit");
        txn.commit().await?;
        failpoint!("firing_after_commit");
        Ok(Some(runs))
    }

    pub(super) async fn close_sweeps(&self) -> Result<Vec<EndedSweep>, TargetError> {
        self.call(|| self.close_sweeps_once()).await
    }

    /// The update hands each sweep to one process only, which keeps what its runs came to.
    async fn close_sweeps_once(&self) -> Result<Vec<EndedSweep>, DbErr> {
        let txn = self.begin_write().await?;
        let sql = format!(
            "UPDATE firings SET ended_at = {now} WHERE ended_at IS NULL AND runs > 0 AND slot NOT IN (\
             SELECT r.firing FROM runs r WHERE r.status IN ('queued', 'running') AND r.firing IS NOT NULL) \
             RETURNING slot, pattern, {took} AS took",
            now = self.dialect.now(),
            took = self.dialect.seconds_between("fired_at", self.dialect.now()),
        );
        let mut ended = Vec::new();
        for row in txn.query_all_raw(self.statement(&sql, [])).await? {
            let (slot, pattern): (DateTime<Utc>, String) = (row.try_get("", "slot")?, row.try_get("", "pattern")?);
            let seconds: f64 = row.try_get("", "took")?;
            let took = Duration::from_secs_f64(seconds.max(0.0));
            let runs = self.runs_of(&txn, slot).await?;
            let tally = serde_json::to_string(&runs).map_err(|error| DbErr::Json(error.to_string()))?;
            let sql = "UPDATE firings SET tally = $1 WHERE slot = $2 AND pattern = $3";
            let values: [Value; 3] = [tally.into(), slot.into(), pattern.into()];
            txn.execute_raw(self.statement(sql, values)).await?;
            ended.push(EndedSweep { slot, took, runs });
        }
        txn.commit().await?;
        Ok(ended)
    }

    /// How many runs of a firing stand so, and what they counted.
    pub(super) async fn runs_of(
        &self,
        db: &impl ConnectionTrait,
        slot: DateTime<Utc>,
    ) -> Result<Vec<(RunStatus, u64, Totals)>, DbErr> {
        let sum = |name: &str| format!("CAST(sum({name}) AS bigint) AS {name}");
        let sums = ["fetched", "created", "updated", "unchanged", "skipped", "failed"].map(sum).join(", ");
        let sql = format!("SELECT status, count(*) AS runs, {sums} FROM runs WHERE firing = $1 GROUP BY status");
        let rows = db.query_all_raw(self.statement(&sql, [slot.into()])).await?;
        rows.iter()
            .map(|row| {
                let status: String = row.try_get("", "status")?;
                let count = |name| row.try_get("", name).map(|count: i64| u64::try_from(count).unwrap_or(0));
                let totals = Totals {
                    fetched: count("fetched")?,
                    created: count("created")?,
                    updated: count("updated")?,
                    unchanged: count("unchanged")?,
                    skipped: count("skipped")?,
                    failed: count("failed")?,
                    // Only each run shows these.
                    newer_locally: 0,
                };
                let status = status.parse().map_err(|error: UnknownWord| DbErr::Type(error.to_string()))?;
                Ok((status, count("runs")?, totals))
            })
            .collect()
    }
}
