//! How workers take runs from the queue.

use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};

use super::queue_position::QueueKey;
use crate::{
    domain::{MerchantId, Run},
    reconcile::ports::{ClaimedRuns, DatabaseError, MAX_FAILED_ATTEMPTS},
    store::{
        Store,
        connection::{
            dialect::Dialect,
            error::{ErrorClass, error_class},
        },
    },
};

/// As in the index `runs_due`.
const IN_ORDER: &str = "ORDER BY r.priority DESC, r.scheduled_at, r.watermark_at_enqueue, r.id";

/// While all merchants are paused, nothing is taken.
const UNLESS_GLOBAL_PAUSE: &str = "NOT EXISTS (SELECT 1 FROM global_pause)";

impl Store {
    /// Takes what is due: first the runs whose holder is gone, then those by hand, then by time.
    pub(in crate::store) async fn claim(&self, limit: u32) -> Result<ClaimedRuns, DatabaseError> {
        let room = |taken: &[QueryResult]| limit.saturating_sub(u32::try_from(taken.len()).unwrap_or(u32::MAX));
        let mut taken = Vec::new();
        if let Some(from) = self.queue_position.key() {
            taken = self.call(|| self.claim_after(from, limit)).await?;
            if room(&taken) == 0 {
                self.queue_position.advance(&queue_keys(&taken));
                return self.taken(&taken, Vec::new()).await;
            }
        }
        // Claimed runs are executed, even if a later claim fails.
        let mut abandoned = Vec::new();
        let looked = async {
            taken.extend(self.call(|| self.take_first(room(&taken))).await?);
            if room(&taken) > 0 {
                abandoned = self.call(|| self.fail_crash_loops(&self.db, None)).await?;
                if !abandoned.is_empty() {
                    taken.extend(self.call(|| self.take_first(room(&taken))).await?);
                }
            }
            Ok(())
        }
        .await;
        match looked {
            Err(error) if taken.is_empty() && abandoned.is_empty() => return Err(error),
            Err(error) => tracing::debug!(error = %error, "the queue could not be read to its end"),
            Ok(()) => {}
        }
        if self.dialect == Dialect::Postgres {
            self.queue_position.begin(&queue_keys(&taken));
        }
        self.taken(&taken, abandoned).await
    }

    async fn taken(&self, rows: &[QueryResult], abandoned: Vec<Run>) -> Result<ClaimedRuns, DatabaseError> {
        if !rows.is_empty() {
            failpoint!("claim_after_commit");
        }
        let claims = self.call(|| self.claims(&self.db, rows)).await?;
        Ok(ClaimedRuns { claims, abandoned })
    }

    /// Ends the lapsed runs, or `merchant`'s, that are not worth another process.
    pub(in crate::store) async fn fail_crash_loops(
        &self,
        db: &impl ConnectionTrait,
        merchant: Option<MerchantId>,
    ) -> Result<Vec<Run>, DbErr> {
        let now = self.dialect.now();
        let whose = merchant.map_or_else(String::new, |id| format!("AND merchant_id = {id}"));
        let sql = format!(
            "UPDATE runs SET status = 'failed', error_kind = 'worker_crash_loop', finished_at = {now}, lease_expires_at = NULL, \
             failed_attempts = failed_attempts + 1, \
             error_message = 'its process ended {MAX_FAILED_ATTEMPTS} times in a row without a committed page; check the logs of the \
             processes for a crash, the memory limit or a supervisor; the next run covers this window' \
             WHERE status = 'running' AND lease_expires_at < {now} AND failed_attempts + 1 >= {MAX_FAILED_ATTEMPTS} {whose} RETURNING *"
        );
        self.returned_runs(db, self.statement(&sql, [])).await
    }

    /// From the whole queue.
    async fn take_first(&self, limit: u32) -> Result<Vec<QueryResult>, DbErr> {
        let skip_locked = self.dialect.for_update_skip_locked();
        let found = format!(
            "suspect AS MATERIALIZED (SELECT r.id FROM runs r WHERE {suspect} LIMIT 1 {skip_locked}), \
             lapsed AS MATERIALIZED (SELECT r.id FROM runs r WHERE r.failed_attempts = 0 AND {lapsed} ORDER BY r.lease_expires_at \
               LIMIT ($2 - (SELECT count(*) FROM suspect)) {skip_locked}), \
             due AS MATERIALIZED (SELECT r.id FROM runs r WHERE r.failed_attempts = 0 AND {due} {IN_ORDER} \
               LIMIT ($2 - (SELECT count(*) FROM suspect) - (SELECT count(*) FROM lapsed)) {skip_locked})",
            suspect = self.suspect(),
            lapsed = self.lapsed(),
            due = self.due(),
        );
        self.take_found(&found, &["suspect", "lapsed", "due"], limit, []).await
    }

    /// From behind a place in it, and those that have a higher priority than what is there.
    async fn claim_after(&self, from: QueueKey, limit: u32) -> Result<Vec<QueryResult>, DbErr> {
        let (due, skip_locked) = (self.due(), self.dialect.for_update_skip_locked());
        let found = format!(
            "ahead AS MATERIALIZED (SELECT r.id FROM runs r WHERE r.failed_attempts = 0 AND r.priority > $3 AND {due} {IN_ORDER} \
               LIMIT $2 {skip_locked}), \
             behind AS MATERIALIZED (SELECT r.id FROM runs r WHERE r.failed_attempts = 0 AND r.priority = $3 \
               AND (r.scheduled_at, r.watermark_at_enqueue, r.id) >= ($4, $5, $6) AND {due} {IN_ORDER} \
               LIMIT ($2 - (SELECT count(*) FROM ahead)) {skip_locked})"
        );
        let from = [from.priority.into(), from.scheduled_at.into(), from.watermark_at_enqueue.into(), from.id.into()];
        self.take_found(&found, &["ahead", "behind"], limit, from).await
    }

    /// Claims the found runs in one statement, which is a separate transaction. Processes that
    /// claim at the same moment may lock the new version of a claimed run before they see that it
    /// is claimed. The transaction that ends the run waits for these locks. `$2` is the limit. It
    /// is outside the text, because each text is prepared and planned once per session.
    async fn take_found(
        &self,
        found: &str,
        names: &[&str],
        limit: u32,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<QueryResult>, DbErr> {
        let sql = format!(
            "WITH {found} \
             UPDATE runs SET status = 'running', epoch = epoch + 1, attempt = attempt + 1, worker_id = $1, \
               failed_attempts = failed_attempts + CASE status WHEN 'running' THEN 1 ELSE 0 END, \
               lease_expires_at = {lease_expires_at}, started_at = COALESCE(started_at, {now}), \
               waiting_reason = NULL, waiting_message = NULL, waiting_until = NULL \
             WHERE id IN ({ids}) RETURNING *, {claim_columns}",
            ids = names.iter().map(|name| format!("SELECT id FROM {name}")).collect::<Vec<_>>().join(" UNION ALL "),
            lease_expires_at = self.dialect.now_plus(self.lease),
            now = self.dialect.now(),
            claim_columns = self.claim_columns(),
        );
        let values = [self.worker_id.into(), i64::from(limit).into()].into_iter().chain(values);
        match self.db.query_all_raw(self.statement(&sql, values)).await {
            // Another process took a run of the same merchant at this very moment.
            Err(error) if error_class(&error) == ErrorClass::UniqueViolation => Ok(Vec::new()),
            taken => taken,
        }
    }

    /// A run with failed attempts may have caused them. A process claims such a run only if it
    /// holds no other run with failed attempts. The run with the fewest comes first. So a run that
    /// ends processes is soon alone in each failed attempt, and the other runs end.
    fn suspect(&self) -> String {
        format!(
            "r.failed_attempts > 0 AND ({lapsed} OR {due}) \
             AND NOT EXISTS (SELECT 1 FROM runs h WHERE h.worker_id = $1 AND h.status = 'running' AND h.failed_attempts > 0 \
                 AND h.lease_expires_at >= {now}) \
             ORDER BY r.failed_attempts, r.priority DESC, r.scheduled_at, r.id",
            lapsed = self.lapsed(),
            due = self.due(),
            now = self.dialect.now(),
        )
    }

    /// A run `r` whose holder is gone, and which is worth another.
    fn lapsed(&self) -> String {
        let now = self.dialect.now();
        format!(
            "r.status = 'running' AND r.lease_expires_at < {now} AND r.failed_attempts + 1 < {MAX_FAILED_ATTEMPTS} AND {UNLESS_GLOBAL_PAUSE}"
        )
    }

    /// A run `r` that waits only for a worker, one per merchant. The conditions are checked one run
    /// at a time, in the order of the index `runs_due`. So the statement reads no run behind the
    /// last claimed one. `OFFSET 0` keeps PostgreSQL from evaluating the conditions for all runs
    /// first.
    pub(in crate::store) fn due(&self) -> String {
        let now = self.dialect.now();
        let is_pause = format!("{} IS NOT NULL", self.dialect.comparable("b.retry_at"));
        format!(
            "r.status = 'queued' AND r.scheduled_at <= {now} AND {UNLESS_GLOBAL_PAUSE} \
             AND NOT EXISTS (SELECT 1 FROM rate_limit_backoffs b WHERE b.merchant_id = r.merchant_id AND b.retry_at > {now} \
                 AND {is_pause} LIMIT 1 OFFSET 0) \
             AND NOT EXISTS (SELECT 1 FROM runs o WHERE o.merchant_id = r.merchant_id AND o.status = 'running' \
                 LIMIT 1 OFFSET 0) \
             AND NOT EXISTS (SELECT 1 FROM runs o WHERE o.merchant_id = r.merchant_id AND o.status = 'queued' \
                 AND o.scheduled_at <= {now} AND (o.priority > r.priority OR o.priority = r.priority \
                 AND (o.scheduled_at < r.scheduled_at OR o.scheduled_at = r.scheduled_at AND o.id < r.id)) LIMIT 1 OFFSET 0)"
        )
    }
}

fn queue_keys(rows: &[QueryResult]) -> Vec<QueueKey> {
    rows.iter().filter_map(QueueKey::of).collect()
}
