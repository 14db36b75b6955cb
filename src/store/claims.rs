//! How a run comes into a worker's hands: claimed from the queue, and renewed.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, QueryFilter, QueryResult, Statement,
    Value, sea_query::Expr,
};

use super::{
    connect::Store,
    entity::run,
    error::{Trouble, trouble},
    queries::read,
};
use crate::{
    domain::{MerchantId, Order, Record, Run, RunId, Trigger},
    reconcile::ports::{Claim, Cursor, Lease, MAX_SETBACKS, Resumed, Taken, TargetError},
};

/// While all stores are paused, nothing is taken.
const UNLESS_STANDSTILL: &str = "NOT EXISTS (SELECT 1 FROM standstill)";

impl Store {
    /// Takes what is due: first the runs whose holder is gone, then those by hand, then by time.
    pub(super) async fn take(&self, limit: u32) -> Result<Taken, TargetError> {
        let mut abandoned = Vec::new();
        let mut taken = self.call(|| self.take_once(limit)).await?;
        let room = limit.saturating_sub(u32::try_from(taken.len()).unwrap_or(u32::MAX));
        if room > 0 {
            // What is taken by now is to be worked at, whatever becomes of this.
            match self.call(|| self.park(&self.db, None)).await {
                Ok(parked) if parked.is_empty() => {}
                Ok(parked) => {
                    abandoned = parked;
                    taken.extend(self.call(|| self.take_once(room)).await.unwrap_or_default());
                }
                Err(error) if taken.is_empty() => return Err(error),
                Err(error) => tracing::debug!(error = %error, "runs whose holders died too often could not be ended"),
            }
        }
        if !taken.is_empty() {
            failpoint!("claim_after_commit");
        }
        let claims = self.call(|| self.claims(&self.db, &taken)).await?;
        Ok(Taken { claims, abandoned })
    }

    /// Ends the lapsed runs, or `merchant`'s, that are not worth another process.
    pub(super) async fn park(
        &self,
        db: &impl ConnectionTrait,
        merchant: Option<MerchantId>,
    ) -> Result<Vec<Run>, DbErr> {
        let now = self.dialect.now();
        let whose = merchant.map_or_else(String::new, |id| format!("AND merchant_id = {id}"));
        let sql = format!(
            "UPDATE runs SET status = 'failed', error_kind = 'abandoned', finished_at = {now}, lease_until = NULL, \
             setbacks = setbacks + 1, \
             error_message = 'its process went away {MAX_SETBACKS} times in a row without committing a page of it; \
             look in the log, and in the system''s, for what ended the processes while this store was read: a crash, \
             the memory limit, a supervisor; the next run covers its window' \
             WHERE status = 'running' AND lease_until < {now} AND setbacks + 1 >= {MAX_SETBACKS} {whose} RETURNING *"
        );
        self.returned_runs(db, self.statement(&sql, [])).await
    }

    /// In one statement, which is a transaction of its own: others that claim at the same moment may lock what is taken,
    /// in its new version, before they see that it is, and whoever ends it waits for them.
    async fn take_once(&self, limit: u32) -> Result<Vec<QueryResult>, DbErr> {
        let skip_locked = self.dialect.for_update_skip_locked();
        let sql = format!(
            "WITH suspect AS MATERIALIZED (SELECT r.id FROM runs r WHERE {suspect} LIMIT 1 {skip_locked}), \
               lapsed AS MATERIALIZED (SELECT r.id FROM runs r WHERE r.setbacks = 0 AND {lapsed} ORDER BY r.lease_until \
                 LIMIT ({limit} - (SELECT count(*) FROM suspect)) {skip_locked}), \
               due AS MATERIALIZED (SELECT r.id FROM runs r WHERE r.setbacks = 0 AND {due} \
                 ORDER BY r.priority DESC, r.run_at, r.covered_until, r.id \
                 LIMIT ({limit} - (SELECT count(*) FROM suspect) - (SELECT count(*) FROM lapsed)) {skip_locked}) \
             UPDATE runs SET status = 'running', epoch = epoch + 1, attempt = attempt + 1, owner = $1, \
               setbacks = setbacks + CASE status WHEN 'running' THEN 1 ELSE 0 END, \
               lease_until = {lease_until}, started_at = COALESCE(started_at, {now}) \
             WHERE id IN (SELECT id FROM suspect UNION ALL SELECT id FROM lapsed UNION ALL SELECT id FROM due) \
             RETURNING *, {beside}",
            suspect = self.suspect(),
            lapsed = self.lapsed(),
            due = self.due(),
            lease_until = self.dialect.now_plus(self.lease),
            now = self.dialect.now(),
            beside = self.beside(),
        );
        match self.db.query_all_raw(self.statement(&sql, [self.owner.into()])).await {
            // Another process took a run of the same merchant at this very moment.
            Err(error) if trouble(&error) == Trouble::Taken => Ok(Vec::new()),
            taken => taken,
        }
    }

    /// A run that has had a setback is suspected of having caused it, and a process holds one such run at a time, the
    /// one with the fewest first: so what ends processes is soon alone in being charged with it, and the runs that it
    /// took along get done.
    fn suspect(&self) -> String {
        format!(
            "r.setbacks > 0 AND ({lapsed} OR {due}) \
             AND NOT EXISTS (SELECT 1 FROM runs h WHERE h.owner = $1 AND h.status = 'running' AND h.setbacks > 0 \
                 AND h.lease_until >= {now}) \
             ORDER BY r.setbacks, r.priority DESC, r.run_at, r.id",
            lapsed = self.lapsed(),
            due = self.due(),
            now = self.dialect.now(),
        )
    }

    /// A run `r` whose holder is gone, and which is worth another. So few are running that all of them are looked at.
    fn lapsed(&self) -> String {
        let now = self.dialect.now();
        format!(
            "r.status = 'running' AND r.lease_until < {now} AND r.setbacks + 1 < {MAX_SETBACKS} AND {UNLESS_STANDSTILL}"
        )
    }

    /// A run `r` that waits for nothing but a worker; of a merchant's, one. What may stand in a run's way is asked of
    /// one run at a time, in the order of the index `runs_due`, so that none is looked at behind the last that is taken
    /// (`OFFSET 0` says so to PostgreSQL, whose planner would rather gather all that stands in any run's way).
    pub(super) fn due(&self) -> String {
        let now = self.dialect.now();
        format!(
            "r.status = 'queued' AND r.run_at <= {now} AND {UNLESS_STANDSTILL} \
             AND NOT EXISTS (SELECT 1 FROM pauses p WHERE p.merchant_id = r.merchant_id AND p.ends_at > {now} \
                 LIMIT 1 OFFSET 0) \
             AND NOT EXISTS (SELECT 1 FROM runs o WHERE o.merchant_id = r.merchant_id AND o.status = 'running' \
                 LIMIT 1 OFFSET 0) \
             AND NOT EXISTS (SELECT 1 FROM runs o WHERE o.merchant_id = r.merchant_id AND o.status = 'queued' \
                 AND o.run_at <= {now} AND (o.priority > r.priority OR o.priority = r.priority \
                 AND (o.run_at < r.run_at OR o.run_at = r.run_at AND o.id < r.id)) LIMIT 1 OFFSET 0)"
        )
    }

    /// What a claim needs beside the row of the run, as columns.
    fn beside(&self) -> String {
        let (now, resource) = (self.dialect.now(), Order::RESOURCE.as_str());
        format!(
            "{now} AS claimed_at, (SELECT w.watermark FROM watermarks w \
               WHERE w.merchant_id = runs.merchant_id AND w.resource = '{resource}') AS watermark, \
             (SELECT {pause} FROM pauses p WHERE p.merchant_id = runs.merchant_id AND p.ends_at > {now}) AS pause",
            pause = self.dialect.seconds_between(now, "p.ends_at")
        )
    }

    /// The claim on a run that this process holds.
    pub(super) async fn claim_of(&self, db: &impl ConnectionTrait, id: RunId) -> Result<Option<Claim>, DbErr> {
        let sql = format!("SELECT runs.*, {} FROM runs WHERE id = $1", self.beside());
        let row = db.query_all_raw(self.statement(&sql, [id.into()])).await?;
        Ok(self.claims(db, &row).await?.pop())
    }

    async fn claims(&self, db: &impl ConnectionTrait, rows: &[QueryResult]) -> Result<Vec<Claim>, DbErr> {
        let mut claims = Vec::with_capacity(rows.len());
        for row in rows {
            let run = run::Model::from_query_result(row, "")?;
            let Ok(trigger) = run.trigger.parse() else {
                // Of a newer version of this program, which will take it up when our lease lapses.
                tracing::error!(run.id = %run.id, trigger = run.trigger, "a run of an unknown kind is left alone");
                continue;
            };
            let pause: Option<f64> = row.try_get("", "pause")?;
            claims.push(Claim {
                lease: run.lease(),
                trigger,
                setbacks: u32::try_from(run.setbacks).unwrap_or(u32::MAX),
                request: run.request(),
                now: row.try_get("", "claimed_at")?,
                watermark: row.try_get("", "watermark")?,
                pause: pause.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
                resumed: self.resumed(db, &run).await?,
            });
        }
        Ok(claims)
    }

    /// What an earlier holder got done; nothing, when its cursor is one of another version: then the window
    /// is walked anew.
    async fn resumed(&self, db: &impl ConnectionTrait, row: &run::Model) -> Result<Option<Resumed>, DbErr> {
        let (Some(window), Some(cursor)) = (row.window(), &row.next_page) else {
            return Ok(None);
        };
        let Ok(cursor) = serde_json::from_str::<Cursor>(cursor) else {
            for table in ["run_pages", "discrepancies"] {
                let sql = format!("DELETE FROM {table} WHERE run_id = $1");
                db.execute_raw(self.statement(&sql, [row.id.into()])).await?;
            }
            return Ok(None);
        };
        let sql = "SELECT number, ids FROM run_pages WHERE run_id = $1 ORDER BY number";
        let mut seen = Vec::new();
        for page in db.query_all_raw(self.statement(sql, [row.id.into()])).await? {
            let (number, ids): (i64, Vec<u8>) = (page.try_get("", "number")?, page.try_get("", "ids")?);
            let pass = u32::try_from(number >> 32).unwrap_or(0);
            seen.push((pass, ids.as_chunks().0.iter().copied().map(i64::from_le_bytes).collect()));
        }
        Ok(Some(Resumed { window, cursor, totals: row.totals(), requests: row.requests(), seen }))
    }

    /// Renews the leases that are still held.
    pub(super) async fn renew(&self, held: &[Lease]) -> Result<Vec<Lease>, TargetError> {
        let this_lease = |lease: &Lease| {
            Condition::all().add(run::Column::Id.eq(lease.run_id)).add(run::Column::Epoch.eq(lease.epoch))
        };
        let any = held.iter().fold(Condition::any(), |any, lease| any.add(this_lease(lease)));
        let (renewed, standstill) = self
            .call(|| async {
                let renewed = run::Entity::update_many()
                    .col_expr(run::Column::LeaseUntil, Expr::cust(self.dialect.now_plus(self.lease)))
                    .filter(run::Column::Status.eq("running"))
                    .filter(any.clone())
                    .exec_with_returning(&self.db)
                    .await?;
                Ok((renewed, self.find_standstill(&self.db).await?))
            })
            .await?;
        // What is to stop is renewed, so that nobody takes it over meanwhile, and shown as lost.
        let goes_on =
            |run: &&run::Model| !run.cancel_requested && (standstill.is_none() || run.trigger == Trigger::Cli.as_str());
        Ok(renewed.iter().filter(goes_on).map(run::Model::lease).collect())
    }

    pub(super) async fn clock(&self, db: &impl ConnectionTrait) -> Result<DateTime<Utc>, DbErr> {
        let sql = format!("SELECT {} AS now", self.dialect.clock());
        let row = db.query_one_raw(self.statement(&sql, [])).await?;
        row.ok_or_else(|| DbErr::RecordNotFound("the clock".to_owned()))?.try_get("", "now")
    }

    /// The runs that a statement changed and gives back whole.
    pub(super) async fn returned_runs(
        &self,
        db: &impl ConnectionTrait,
        statement: Statement,
    ) -> Result<Vec<Run>, DbErr> {
        let rows = db.query_all_raw(statement).await?;
        rows.iter().map(|row| read(run::Model::from_query_result(row, "")?)).collect()
    }

    pub(super) fn statement(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> Statement {
        Statement::from_sql_and_values(self.db.get_database_backend(), sql, values)
    }
}
