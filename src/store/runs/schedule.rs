//! The sweeps of the schedule: each is on record once, together with the runs it made.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, QueryResult, Value};

use super::fence::count;
use crate::{
    domain::{Backfilled, MerchantId, RunStatus, Totals, UnknownValue},
    reconcile::ports::{DatabaseError, EndedSweep, RecordedSweep, SweepDecision},
    store::{
        Store,
        connection::{dialect::Dialect, error::json, stamp::instant},
    },
};

/// The advisory lock under which sweeps are recorded, one after the other.
const SWEEPS: i64 = 0x5a11_a001;

impl Store {
    pub(in crate::store) async fn last_sweep(&self, cron: &str) -> Result<Option<DateTime<Utc>>, DatabaseError> {
        self.call(|| async move {
            let sql = "SELECT scheduled_for FROM sweeps WHERE cron = $1 AND {} IS NOT NULL ORDER BY scheduled_for DESC LIMIT 1";
            let sql = sql.replace("{}", &self.dialect.comparable("scheduled_for"));
            let row = self.db.query_one_raw(self.statement(&sql, [cron.into()])).await?;
            Ok(row.and_then(|row| instant(&row, "scheduled_for")))
        })
        .await
    }

    pub(in crate::store) async fn record_sweep(
        &self,
        scheduled_for: DateTime<Utc>,
        cron: &str,
        decision: SweepDecision,
    ) -> Result<Option<RecordedSweep>, DatabaseError> {
        self.call(|| self.record_sweep_once(scheduled_for, cron, decision)).await
    }

    /// The record and the runs in one transaction: a process that dies in between leaves neither.
    async fn record_sweep_once(
        &self,
        scheduled_for: DateTime<Utc>,
        cron: &str,
        decision: SweepDecision,
    ) -> Result<Option<RecordedSweep>, DbErr> {
        let txn = self.begin_write().await?;
        self.lock_sweeps(&txn).await?;
        let outcome = match decision {
            SweepDecision::Run { trigger, .. } => trigger.as_str(),
            SweepDecision::Skip => "skipped",
            SweepDecision::Begin => "began",
        };
        let sql = "INSERT INTO sweeps (scheduled_for, cron, outcome) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        let values: [Value; 3] = [scheduled_for.into(), cron.into(), outcome.into()];
        if txn.execute_raw(self.statement(sql, values)).await?.rows_affected() == 0 {
            return Ok(None);
        }
        let mut recorded = RecordedSweep::default();
        if let SweepDecision::Run { trigger, spread } = decision {
            recorded = self.make_runs(&txn, scheduled_for, trigger.as_str(), spread, None).await?;
            self.add_runs(&txn, scheduled_for, cron, &recorded).await?;
        }
        failpoint!("sweep_before_commit");
        txn.commit().await?;
        failpoint!("sweep_after_commit");
        Ok(Some(recorded))
    }

    /// Makes the runs of earlier sweeps whose merchants another session held; a later sweep of the same schedule has
    /// made them superfluous.
    pub(in crate::store) async fn enqueue_deferred(&self) -> Result<RecordedSweep, DatabaseError> {
        self.call(|| self.enqueue_deferred_once()).await
    }

    async fn enqueue_deferred_once(&self) -> Result<RecordedSweep, DbErr> {
        let sql = "SELECT scheduled_for, cron, outcome, deferred, \
                   EXISTS (SELECT 1 FROM sweeps l WHERE l.cron = f.cron AND l.scheduled_for > f.scheduled_for AND l.outcome <> 'skipped') AS outlived \
                   FROM sweeps f WHERE deferred IS NOT NULL AND NOT EXISTS (SELECT 1 FROM global_pause) ORDER BY scheduled_for";
        if self.db.query_one_raw(self.statement(sql, [])).await?.is_none() {
            return Ok(RecordedSweep::default());
        }
        let txn = self.begin_write().await?;
        self.lock_sweeps(&txn).await?;
        let mut all = RecordedSweep::default();
        for row in txn.query_all_raw(self.statement(sql, [])).await? {
            let (cron, outcome): (String, String) = (row.try_get("", "cron")?, row.try_get("", "outcome")?);
            let (text, outlived): (String, bool) = (row.try_get("", "deferred")?, row.try_get("", "outlived")?);
            let Some(scheduled_for) = instant(&row, "scheduled_for") else { continue };
            let ids: Vec<i64> = serde_json::from_str(&text).unwrap_or_default();
            let recorded = if outlived || ids.is_empty() {
                // The runs of the later sweep cover the windows of these.
                RecordedSweep { already_queued: ids.into_iter().map(MerchantId).collect(), ..RecordedSweep::default() }
            } else {
                self.make_runs(&txn, scheduled_for, &outcome, Duration::ZERO, Some(&ids)).await?
            };
            self.add_runs(&txn, scheduled_for, &cron, &recorded).await?;
            all.runs += recorded.runs;
            all.locked.extend(recorded.locked);
            all.already_queued.extend(recorded.already_queued);
        }
        txn.commit().await?;
        Ok(all)
    }

    /// Adds the runs that were made to the record of their sweep.
    async fn add_runs(
        &self,
        txn: &DatabaseTransaction,
        scheduled_for: DateTime<Utc>,
        cron: &str,
        recorded: &RecordedSweep,
    ) -> Result<(), DbErr> {
        let deferred = if recorded.locked.is_empty() { None } else { Some(json(&recorded.locked)?) };
        let sql = "UPDATE sweeps SET run_count = run_count + $1, deferred = $2, already_queued = already_queued + $3 \
                   WHERE scheduled_for = $4 AND cron = $5";
        let values: [Value; 5] = [
            count(recorded.runs),
            deferred.into(),
            count(recorded.already_queued.len() as u64),
            scheduled_for.into(),
            cron.into(),
        ];
        txn.execute_raw(self.statement(sql, values)).await.map(drop)
    }

    /// Of two sweeps at one moment, the second sees the runs of the first. SQLite has one writer.
    async fn lock_sweeps(&self, txn: &DatabaseTransaction) -> Result<(), DbErr> {
        if self.dialect == Dialect::Postgres {
            txn.execute_raw(self.statement("SELECT pg_advisory_xact_lock($1)", [SWEEPS.into()])).await?;
        }
        Ok(())
    }

    /// Makes a run for every merchant that the schedule covers, of `only` these. A merchant is left
    /// out if another session holds its row, or if a scheduled run of it is queued. The queued run
    /// also covers the window of this sweep.
    async fn make_runs(
        &self,
        txn: &DatabaseTransaction,
        scheduled_for: DateTime<Utc>,
        trigger: &str,
        spread: Duration,
        only: Option<&[i64]>,
    ) -> Result<RecordedSweep, DbErr> {
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
                "INSERT INTO runs (id, merchant_id, trigger, status, sweep_scheduled_for, scheduled_at, watermark_at_enqueue) \
                 SELECT {id}, merchant_id, $2, 'queued', $1, {scheduled_at}, {watermark_at_enqueue} FROM {from} \
                 WHERE NOT {queued} {and_covered} ON CONFLICT DO NOTHING",
                id = self.dialect.uuid_v7(),
                scheduled_at = self.dialect.first_parameter_plus(&offset),
                watermark_at_enqueue = self.watermark_at_enqueue(&format!("{from}.merchant_id")),
                queued = queued(from),
                and_covered = if from == "merchants" { format!("AND {covered}") } else { String::new() },
            )
        };
        let values: [Value; 2] = [scheduled_for.into(), trigger.into()];
        let mut recorded = RecordedSweep::default();
        match self.dialect {
            Dialect::Postgres => {
                // A merchant that is paused or uninstalled at this moment has no run, or one that is cancelled.
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
                recorded = outcome(&txn.query_all_raw(self.statement(&sql, values)).await?)?;
            }
            Dialect::Sqlite => {
                let sql = format!("SELECT merchant_id FROM merchants WHERE {covered} AND {}", queued("merchants"));
                for row in txn.query_all_raw(self.statement(&sql, [])).await? {
                    recorded.already_queued.push(MerchantId(row.try_get("", "merchant_id")?));
                }
                recorded.runs = txn.execute_raw(self.statement(&insert("merchants"), values)).await?.rows_affected();
            }
        }
        Ok(recorded)
    }

    pub(in crate::store) async fn ended_sweeps(&self) -> Result<Vec<EndedSweep>, DatabaseError> {
        self.call(|| self.ended_sweeps_once()).await
    }

    /// The update hands each sweep to one process only, which keeps what its runs came to.
    async fn ended_sweeps_once(&self) -> Result<Vec<EndedSweep>, DbErr> {
        let txn = self.begin_write().await?;
        let sql = format!(
            "UPDATE sweeps SET ended_at = {now} WHERE ended_at IS NULL AND deferred IS NULL \
             AND (run_count > 0 OR already_queued > 0) AND scheduled_for NOT IN (\
             SELECT r.sweep_scheduled_for FROM runs r WHERE r.status IN ('queued', 'running') AND r.sweep_scheduled_for IS NOT NULL) \
             RETURNING scheduled_for, cron, already_queued, {took} AS took",
            now = self.dialect.now(),
            took = self.dialect.seconds_between("started_at", self.dialect.now()),
        );
        let mut ended = Vec::new();
        for row in txn.query_all_raw(self.statement(&sql, [])).await? {
            let Some(scheduled_for) = instant(&row, "scheduled_for") else { continue };
            let cron: String = row.try_get("", "cron")?;
            let seconds: Option<f64> = row.try_get("", "took")?;
            let took = Duration::from_secs_f64(seconds.unwrap_or_default().max(0.0));
            let already_queued: i64 = row.try_get("", "already_queued")?;
            let runs = self.runs_of(&txn, scheduled_for).await?;
            let summary = serde_json::to_string(&runs).map_err(|error| DbErr::Json(error.to_string()))?;
            let sql = "UPDATE sweeps SET summary = $1 WHERE scheduled_for = $2 AND cron = $3";
            let values: [Value; 3] = [summary.into(), scheduled_for.into(), cron.into()];
            txn.execute_raw(self.statement(sql, values)).await?;
            let already_queued = u64::try_from(already_queued).unwrap_or(0);
            ended.push(EndedSweep { scheduled_for, took, runs, already_queued });
        }
        txn.commit().await?;
        Ok(ended)
    }

    /// The runs of a sweep by status, with their totals.
    pub(in crate::store) async fn runs_of(
        &self,
        db: &impl ConnectionTrait,
        scheduled_for: DateTime<Utc>,
    ) -> Result<Vec<(RunStatus, u64, Totals)>, DbErr> {
        let sum = |name: &str| format!("CAST(sum({name}) AS bigint) AS {name}");
        let counted = [
            "fetched",
            "created",
            "updated",
            "unchanged",
            "skipped",
            "failed",
            "backfilled_created",
            "backfilled_updated",
        ];
        let sums = counted.map(sum).join(", ");
        let sql =
            format!("SELECT status, count(*) AS runs, {sums} FROM runs WHERE sweep_scheduled_for = $1 GROUP BY status");
        let rows = db.query_all_raw(self.statement(&sql, [scheduled_for.into()])).await?;
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
                    backfilled: Backfilled {
                        created: number("backfilled_created")?,
                        updated: number("backfilled_updated")?,
                    },
                    // Only each run shows these.
                    newer_locally: 0,
                };
                let status = status.parse().map_err(|error: UnknownValue| DbErr::Type(error.to_string()))?;
                Ok((status, number("runs")?, totals))
            })
            .collect()
    }
}

/// The outcome of a sweep, from one row per merchant.
fn outcome(rows: &[QueryResult]) -> Result<RecordedSweep, DbErr> {
    let mut recorded = RecordedSweep::default();
    for row in rows {
        let merchant = MerchantId(row.try_get("", "merchant_id")?);
        match row.try_get::<String>("", "what")?.as_str() {
            "made" => recorded.runs += 1,
            "locked" => recorded.locked.push(merchant),
            _ => recorded.already_queued.push(merchant),
        }
    }
    Ok(recorded)
}
