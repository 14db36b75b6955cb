//! Queries about runs for the API, the dashboard and scrapes.

use std::{collections::BTreeSet, time::Duration};

use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QueryResult, QuerySelect};

use super::audit::KEEP_AUDIT;
use crate::{
    domain::{Found, MerchantState, Run, RunId, RunStatus, WaitReason, Waiting},
    reconcile::ports::{DatabaseError, Gauges, PRUNE_BATCH, RunFilter},
    store::{
        Store,
        connection::{dialect::Dialect, stamp::instant},
        entity::{discrepancy, read, run},
        runs::idempotency::KEEP_KEYS,
    },
};

/// A merchant is overdue when a nightly run is two hours late.
pub(in crate::store) const OVERDUE: Duration = Duration::from_secs(26 * 3600);

impl Store {
    pub(in crate::store) async fn runs(&self, filter: RunFilter) -> Result<Vec<Run>, DatabaseError> {
        self.call(|| async {
            let mut query = run::Entity::find().order_by_desc(run::Column::Id).limit(filter.limit);
            if let Some(merchant) = filter.merchant {
                query = query.filter(run::Column::MerchantId.eq(merchant.0));
            }
            if let Some(status) = filter.status {
                query = query.filter(run::Column::Status.eq(status.as_str()));
            }
            if let Some(before) = filter.before {
                query = query.filter(run::Column::Id.lt(before));
            }
            let mut runs: Vec<Run> = query.all(&self.db).await?.into_iter().map(read).collect::<Result<_, _>>()?;
            self.note_pauses(&mut runs).await?;
            self.unrecorded_waits.show(&mut runs);
            Ok(runs)
        })
        .await
    }

    pub(in crate::store) async fn run(&self, id: RunId) -> Result<Option<Run>, DatabaseError> {
        self.call(|| async {
            let mut run: Vec<Run> =
                run::Entity::find_by_id(id).one(&self.db).await?.map(read).transpose()?.into_iter().collect();
            self.note_pauses(&mut run).await?;
            self.unrecorded_waits.show(&mut run);
            Ok(run.pop())
        })
        .await
    }

    /// Says of queued runs that Salla asked to leave their merchants alone, where nothing else is known to keep them.
    async fn note_pauses(&self, runs: &mut [Run]) -> Result<(), DbErr> {
        let waits = |run: &&mut Run| run.status == RunStatus::Queued && run.waiting.is_none();
        let merchants: BTreeSet<i64> = runs.iter_mut().filter(waits).map(|run| run.merchant_id.0).collect();
        if merchants.is_empty() {
            return Ok(());
        }
        // Numbers, which need no quotes.
        let ids = merchants.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT merchant_id, retry_at FROM rate_limit_backoffs WHERE merchant_id IN ({ids}) AND retry_at > {}",
            self.dialect.now()
        );
        for row in self.db.query_all_raw(self.statement(&sql, [])).await? {
            let merchant: i64 = row.try_get("", "merchant_id")?;
            let Some(until) = instant(&row, "retry_at") else { continue };
            let message = "Salla asked to wait".to_owned();
            for run in runs.iter_mut().filter(waits).filter(|run| run.merchant_id.0 == merchant) {
                let message = message.clone();
                run.waiting = Some(Waiting { reason: WaitReason::RateLimited, message, until, attempts: 0 });
            }
        }
        Ok(())
    }

    pub(in crate::store) async fn discrepancies(
        &self,
        id: RunId,
        skip: u64,
        limit: u64,
    ) -> Result<Vec<Found>, DatabaseError> {
        self.call(|| async {
            discrepancy::Entity::find()
                .filter(discrepancy::Column::RunId.eq(id))
                .order_by_asc(discrepancy::Column::Id)
                .offset(skip)
                .limit(limit)
                .all(&self.db)
                .await?
                .into_iter()
                .map(read)
                .collect()
        })
        .await
    }

    pub(in crate::store) async fn gauges(&self) -> Result<Gauges, DatabaseError> {
        self.call(|| self.gauges_once()).await
    }

    async fn gauges_once(&self) -> Result<Gauges, DbErr> {
        let txn = self.begin_read().await?;
        if self.dialect == Dialect::Postgres {
            // The one thing that reads the register whole: see `pool` for why nothing else may.
            txn.execute_unprepared("SET LOCAL enable_seqscan = on").await?;
        }
        let sql = format!(
            "SELECT (SELECT count(*) FROM runs WHERE status = 'running') AS active, queue.queued, queue.due, \
             (SELECT max(finished_at) FROM runs WHERE status = 'succeeded' AND NOT dry_run) AS last_success, \
             (SELECT max(scheduled_for) FROM sweeps WHERE outcome <> 'skipped') AS last_sweep, \
             EXISTS (SELECT 1 FROM global_pause) AS global_pause \
             FROM (SELECT count(*) AS queued, count(*) FILTER (WHERE scheduled_at <= {now}) AS due \
               FROM runs WHERE status = 'queued') queue",
            now = self.dialect.now(),
        );
        let row = txn.query_one_raw(self.statement(&sql, [])).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("counts".to_owned()))?;
        let mut gauges = Gauges {
            runs_active: count(&row, "active")?,
            runs_queued: count(&row, "queued")?,
            runs_due: count(&row, "due")?,
            last_success: instant(&row, "last_success"),
            last_sweep: instant(&row, "last_sweep"),
            global_pause: row.try_get("", "global_pause")?,
            merchants: MerchantState::ALL.map(|state| (state, 0)).to_vec(),
            merchants_overdue: 0,
            oldest_watermark: None,
            backlog: self.backlog(&txn).await?,
        };
        let sql = format!(
            "SELECT m.state, count(*) AS merchants, min(w.watermark) AS oldest, \
             count(*) FILTER (WHERE COALESCE(w.watermark, m.created_at) < {overdue}) AS overdue \
             FROM merchants m LEFT JOIN {covered} w ON w.merchant_id = m.merchant_id GROUP BY m.state",
            covered = self.oldest_watermarks(),
            overdue = self.dialect.now_minus(OVERDUE)
        );
        for row in txn.query_all_raw(self.statement(&sql, [])).await? {
            let state: String = row.try_get("", "state")?;
            if state == MerchantState::Active.as_str() {
                gauges.merchants_overdue = count(&row, "overdue")?;
                gauges.oldest_watermark = instant(&row, "oldest");
            }
            for (known, held) in &mut gauges.merchants {
                if known.as_str() == state {
                    *held = count(&row, "merchants")?;
                }
            }
        }
        txn.commit().await?;
        Ok(gauges)
    }

    pub(in crate::store) async fn prune(&self, keep: Duration) -> Result<u64, DatabaseError> {
        let runs = format!(
            "DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE finished_at IS NOT NULL AND finished_at < {} ORDER BY finished_at LIMIT {PRUNE_BATCH})",
            self.dialect.now_minus(keep)
        );
        // The seen ids of an ended run are not needed. The query goes from one run with seen ids to the next, so that
        // it reads neither the ids of active runs nor ended runs.
        let seen = "WITH RECURSIVE held(run_id) AS (\
               SELECT (SELECT p.run_id FROM run_seen_ids p ORDER BY p.run_id LIMIT 1) \
               UNION ALL \
               SELECT (SELECT p.run_id FROM run_seen_ids p WHERE p.run_id > held.run_id ORDER BY p.run_id LIMIT 1) \
               FROM held WHERE held.run_id IS NOT NULL) \
             DELETE FROM run_seen_ids WHERE run_id IN (\
               SELECT r.id FROM held JOIN runs r ON r.id = held.run_id WHERE r.finished_at IS NOT NULL)";
        let keys = format!("DELETE FROM idempotency_keys WHERE created_at <= {}", self.dialect.now_minus(KEEP_KEYS));
        let audit = format!("DELETE FROM audit WHERE at < {}", self.dialect.now_minus(KEEP_AUDIT));
        let sessions = format!("DELETE FROM ended_sessions WHERE ends_at < {}", self.dialect.now());
        let (runs, others) = (runs.as_str(), [seen, keys.as_str(), audit.as_str(), sessions.as_str()]);
        self.call(|| async move {
            for sql in others {
                self.db.execute_raw(self.statement(sql, [])).await?;
            }
            failpoint!("retention_before_commit");
            let removed = self.db.execute_raw(self.statement(runs, [])).await?.rows_affected();
            failpoint!("retention_after_commit");
            Ok(removed)
        })
        .await
    }
}

fn count(row: &QueryResult, name: &str) -> Result<u64, DbErr> {
    row.try_get("", name).map(|count: i64| u64::try_from(count).unwrap_or(0))
}
