//! The firings of the schedule: each is on record once, together with the runs it made.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, QueryResult, Value};

use super::{connect::Store, dialect::Dialect, error::json, fence::count, stamp::instant};
use crate::{
    domain::{MerchantId, RunStatus, Totals, UnknownWord},
    reconcile::ports::{EndedSweep, Fired, Firing, TargetError},
};

/// The advisory lock under which firings are recorded, one after the other.
const FIRINGS: i64 = 0x5a11_a001;

/// Merchants whose runs are yet to be made, as they are kept.
fn deferred(merchants: &[MerchantId]) -> Result<Option<String>, DbErr> {
    if merchants.is_empty() { Ok(None) } else { json(merchants).map(Some) }
}

impl Store {
    pub(super) async fn newest_firing(&self, pattern: &str) -> Result<Option<DateTime<Utc>>, TargetError> {
        self.call(|| async move {
            let sql = "SELECT slot FROM firings WHERE pattern = $1 AND {} IS NOT NULL ORDER BY slot DESC LIMIT 1";
            let sql = sql.replace("{}", &self.dialect.comparable("slot"));
            let row = self.db.query_one_raw(self.statement(&sql, [pattern.into()])).await?;
            Ok(row.and_then(|row| instant(&row, "slot")))
        })
        .await
    }

    pub(super) async fn record_firing(
        &self,
        slot: DateTime<Utc>,
        pattern: &str,
        firing: Firing,
    ) -> Result<Option<Fired>, TargetError> {
        self.call(|| self.record_firing_once(slot, pattern, firing)).await
    }

    /// The record and the runs in one transaction: a process that dies in between leaves neither.
    async fn record_firing_once(
        &self,
        slot: DateTime<Utc>,
        pattern: &str,
        firing: Firing,
    ) -> Result<Option<Fired>, DbErr> {
        let txn = self.begin_write().await?;
        self.lock_firings(&txn).await?;
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
        let mut fired = Fired::default();
        if let Firing::Run { trigger, spread } = firing {
            fired = self.make_runs(&txn, (slot, trigger.as_str()), spread, None).await?;
            let sql =
                "UPDATE firings SET runs = $1, deferred = $2, already_queued = $3 WHERE slot = $4 AND pattern = $5";
            let values: [Value; 5] = [
                count(fired.runs),
                deferred(&fired.locked)?.into(),
                count(fired.already_queued.len() as u64),
                slot.into(),
                pattern.into(),
            ];
            txn.execute_raw(self.statement(sql, values)).await?;
        }
        failpoint!("firing_before_commit");
        txn.commit().await?;
        failpoint!("firing_after_commit");
        Ok(Some(fired))
    }

    /// Makes the runs of earlier firings whose merchants another session held; a later firing of the same schedule has
    /// made them superfluous.
    pub(super) async fn make_deferred_runs(&self) -> Result<Fired, TargetError> {
        self.call(|| self.make_deferred_runs_once()).await
    }

    async fn make_deferred_runs_once(&self) -> Result<Fired, DbErr> {
        let sql = "SELECT slot, pattern, outcome, deferred, \
                   EXISTS (SELECT 1 FROM firings l WHERE l.pattern = f.pattern AND l.slot > f.slot AND l.outcome <> 'skipped') AS outlived \
                   FROM firings f WHERE deferred IS NOT NULL AND NOT EXISTS (SELECT 1 FROM standstill) ORDER BY slot";
        if self.db.query_one_raw(self.statement(sql, [])).await?.is_none() {
            return Ok(Fired::default());
        }
        let txn = self.begin_write().await?;
        self.lock_firings(&txn).await?;
        let mut all = Fired::default();
        for row in txn.query_all_raw(self.statement(sql, [])).await? {
            let (pattern, outcome): (String, String) = (row.try_get("", "pattern")?, row.try_get("", "outcome")?);
            let (text, outlived): (String, bool) = (row.try_get("", "deferred")?, row.try_get("", "outlived")?);
            let Some(slot) = instant(&row, "slot") else { continue };
            let ids: Vec<i64> = serde_json::from_str(&text).unwrap_or_default();
            let mut fired = Fired::default();
            if !outlived && !ids.is_empty() {
                fired = self.make_runs(&txn, (slot, &outcome), Duration::ZERO, Some(&ids)).await?;
            }
            let sql = "UPDATE firings SET runs = runs + $1, deferred = $2 WHERE slot = $3 AND pattern = $4";
            let values: [Value; 4] = [count(fired.runs), deferred(&fired.locked)?.into(), slot.into(), pattern.into()];
            txn.execute_raw(self.statement(sql, values)).await?;
            all.runs += fired.runs;
            all.locked.extend(fired.locked);
            all.already_queued.extend(fired.already_queued);
        }
        txn.commit().await?;
        Ok(all)
    }

    /// Of two firings at one moment, the second sees the runs of the first. SQLite has one writer.
    async fn lock_firings(&self, txn: &DatabaseTransaction) -> Result<(), DbErr> {
        if self.dialect == Dialect::Postgres {
            txn.execute_raw(self.statement("SELECT pg_advisory_xact_lock($1)", [FIRINGS.into()])).await?;
        }
        Ok(())
    }

    /// A run for every merchant that the schedule covers, of `only` these. A merchant whose row another session holds gets
    /// none, and neither does one that has a scheduled run in the queue: that run covers the window of this one too.
    async fn make_runs(
        &self,
        txn: &DatabaseTransaction,
        (slot, trigger): (DateTime<Utc>, &str),
        spread: Duration,
        only: Option<&[i64]>,
    ) -> Result<Fired, DbErr> {
        // A prime multiplier scatters neighbouring ids; the remainder keeps the product small.
        let offset = match spread.as_secs() {
            0 => "0".to_owned(),
            seconds => format!("(abs(merchant_id % 1000003) * 7919) % {seconds}"),
        };
        // Numbers, which need no quotes.
        let only = only.map_or_else(String::new, |ids| {
            let ids = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            format!("AND merchant_id IN ({ids})")
        });
        let covered = format!("{} {only}", self.covered());
        let queued = |merchant: &str| {
            format!(
                "EXISTS (SELECT 1 FROM runs q WHERE q.merchant_id = {merchant}.merchant_id AND q.status = 'queued' \
                 AND q.trigger IN ('schedule', 'catch_up'))"
            )
        };
        let insert = |from: &str| {
            format!(
                "INSERT INTO runs (id, merchant_id, trigger, status, firing, run_at, covered_until) \
                 SELECT {id}, merchant_id, $2, 'queued', $1, {run_at}, {covered_until} FROM {from} \
                 WHERE NOT {queued} {and_covered} ON CONFLICT DO NOTHING",
                id = self.dialect.uuid_v7(),
                run_at = self.dialect.first_parameter_plus(&offset),
                covered_until = self.covered_until(&format!("{from}.merchant_id")),
                queued = queued(from),
                and_covered = if from == "merchants" { format!("AND {covered}") } else { String::new() },
            )
        };
        let values: [Value; 2] = [slot.into(), trigger.into()];
        let mut fired = Fired::default();
        match self.dialect {
            Dialect::Postgres => {
                // A merchant that is paused or retired at this moment has no run, or one that is cancelled.
                let sql = format!(
                    "WITH free AS MATERIALIZED (SELECT merchant_id FROM merchants WHERE {covered} \
                       FOR SHARE OF merchants SKIP LOCKED), \
                     made AS ({insert} RETURNING merchant_id) \
                     SELECT merchant_id, 'made' AS what FROM made \
                     UNION ALL SELECT merchant_id, 'locked' FROM merchants WHERE {covered} \
                       AND merchant_id NOT IN (SELECT merchant_id FROM free) \
                     UNION ALL SELECT merchant_id, 'queued' FROM free WHERE {queued}",
                    insert = insert("free"),
                    queued = queued("free"),
                );
                fired = outcome(&txn.query_all_raw(self.statement(&sql, values)).await?)?;
            }
            Dialect::Sqlite => {
                let sql = format!("SELECT merchant_id FROM merchants WHERE {covered} AND {}", queued("merchants"));
                for row in txn.query_all_raw(self.statement(&sql, [])).await? {
                    fired.already_queued.push(MerchantId(row.try_get("", "merchant_id")?));
                }
                fired.runs = txn.execute_raw(self.statement(&insert("merchants"), values)).await?.rows_affected();
            }
        }
        Ok(fired)
    }

    pub(super) async fn close_sweeps(&self) -> Result<Vec<EndedSweep>, TargetError> {
        self.call(|| self.close_sweeps_once()).await
    }

    /// The update hands each sweep to one process only, which keeps what its runs came to.
    async fn close_sweeps_once(&self) -> Result<Vec<EndedSweep>, DbErr> {
        let txn = self.begin_write().await?;
        let sql = format!(
            "UPDATE firings SET ended_at = {now} WHERE ended_at IS NULL AND deferred IS NULL \
             AND (runs > 0 OR already_queued > 0) AND slot NOT IN (\
             SELECT r.firing FROM runs r WHERE r.status IN ('queued', 'running') AND r.firing IS NOT NULL) \
             RETURNING slot, pattern, already_queued, {took} AS took",
            now = self.dialect.now(),
            took = self.dialect.seconds_between("fired_at", self.dialect.now()),
        );
        let mut ended = Vec::new();
        for row in txn.query_all_raw(self.statement(&sql, [])).await? {
            let Some(slot) = instant(&row, "slot") else { continue };
            let pattern: String = row.try_get("", "pattern")?;
            let seconds: Option<f64> = row.try_get("", "took")?;
            let took = Duration::from_secs_f64(seconds.unwrap_or_default().max(0.0));
            let already_queued: i64 = row.try_get("", "already_queued")?;
            let runs = self.runs_of(&txn, slot).await?;
            let tally = serde_json::to_string(&runs).map_err(|error| DbErr::Json(error.to_string()))?;
            let sql = "UPDATE firings SET tally = $1 WHERE slot = $2 AND pattern = $3";
            let values: [Value; 3] = [tally.into(), slot.into(), pattern.into()];
            txn.execute_raw(self.statement(sql, values)).await?;
            let already_queued = u64::try_from(already_queued).unwrap_or(0);
            ended.push(EndedSweep { slot, took, runs, already_queued });
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
                let number = |name| row.try_get("", name).map(|count: i64| u64::try_from(count).unwrap_or(0));
                let totals = Totals {
                    fetched: number("fetched")?,
                    created: number("created")?,
                    updated: number("updated")?,
                    unchanged: number("unchanged")?,
                    skipped: number("skipped")?,
                    failed: number("failed")?,
                    // Only each run shows these.
                    newer_locally: 0,
                };
                let status = status.parse().map_err(|error: UnknownWord| DbErr::Type(error.to_string()))?;
                Ok((status, number("runs")?, totals))
            })
            .collect()
    }
}

/// The outcome of a firing, from a row for each merchant.
fn outcome(rows: &[QueryResult]) -> Result<Fired, DbErr> {
    let mut fired = Fired::default();
    for row in rows {
        let merchant = MerchantId(row.try_get("", "merchant_id")?);
        match row.try_get::<String>("", "what")?.as_str() {
            "made" => fired.runs += 1,
            "locked" => fired.locked.push(merchant),
            _ => fired.already_queued.push(merchant),
        }
    }
    Ok(fired)
}
