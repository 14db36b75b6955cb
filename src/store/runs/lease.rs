//! The claim of a worker on a run, and the lease, which the worker renews.

use std::{panic::AssertUnwindSafe, time::Duration};

use chrono::{DateTime, Utc};
use futures::FutureExt;
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, QueryFilter, QueryResult, Statement,
    sea_query::Expr,
};

use crate::{
    domain::{MerchantId, Resource, Run, RunId, Trigger},
    reconcile::ports::{Claim, Cursor, DatabaseError, Lease, Resumed},
    store::{
        Store,
        connection::{
            error::{ErrorClass, error_class},
            stamp::instant,
        },
        entity::{read, run},
    },
};

impl Store {
    /// The columns that a claim needs besides the row of the run.
    pub(in crate::store) fn claim_columns(&self) -> String {
        let now = self.dialect.now();
        let of_one = |resource: &Resource| {
            format!(
                ", (SELECT w.watermark FROM watermarks w \
                   WHERE w.merchant_id = runs.merchant_id AND w.resource = '{resource}' AND w.target = '{target}') AS watermark_{resource}",
                target = self.target_of(*resource)
            )
        };
        format!(
            "{now} AS claimed_at{watermarks}, \
             COALESCE((SELECT m.created_at FROM merchants m WHERE m.merchant_id = runs.merchant_id), runs.queued_at) \
               AS registered_at, \
             EXISTS (SELECT 1 FROM erased_customers e WHERE e.merchant_id = runs.merchant_id) AS has_erasures, \
             EXISTS (SELECT 1 FROM failed_records f WHERE f.merchant_id = runs.merchant_id) AS has_failed_records, \
             (SELECT b.recent_requests FROM rate_limit_backoffs b WHERE b.merchant_id = runs.merchant_id AND b.recorded_at > {minute_ago}) AS recent_requests, \
             (SELECT {pause} FROM rate_limit_backoffs b WHERE b.merchant_id = runs.merchant_id AND b.retry_at > {now}) AS pause",
            watermarks = Resource::ALL.iter().map(of_one).collect::<String>(),
            minute_ago = self.dialect.now_minus(Duration::from_secs(60)),
            pause = self.dialect.seconds_between(now, "b.retry_at")
        )
    }

    /// The claim on a run that this process holds.
    pub(in crate::store) async fn read_claim(
        &self,
        db: &impl ConnectionTrait,
        id: RunId,
    ) -> Result<Option<Claim>, DbErr> {
        let sql = format!("SELECT runs.*, {} FROM runs WHERE id = $1", self.claim_columns());
        let row = db.query_all_raw(self.statement(&sql, [id.into()])).await?;
        Ok(self.claims(db, &row).await?.pop())
    }

    /// Reads each row separately, so that a value that cannot be read costs only its run.
    pub(in crate::store) async fn claims(
        &self,
        db: &impl ConnectionTrait,
        rows: &[QueryResult],
    ) -> Result<Vec<Claim>, DbErr> {
        let mut claims = Vec::with_capacity(rows.len());
        for row in rows {
            match AssertUnwindSafe(self.claim_from(db, row)).catch_unwind().await {
                Ok(Ok(claim)) => claims.extend(claim),
                Ok(Err(error)) if error_class(&error) == ErrorClass::Transient => return Err(error),
                Ok(Err(error)) => self.fail_unreadable(db, row, &error.to_string()).await?,
                Err(_) => self.fail_unreadable(db, row, "reading it panicked").await?,
            }
        }
        Ok(claims)
    }

    async fn claim_from(&self, db: &impl ConnectionTrait, row: &QueryResult) -> Result<Option<Claim>, DbErr> {
        let run = run::Model::from_query_result(row, "")?;
        let Ok(trigger) = run.trigger.parse() else {
            // Of a newer version of this program, which will take it up when our lease lapses.
            tracing::error!(run.id = %run.id, trigger = run.trigger, "a run with an unknown kind of record is skipped");
            return Ok(None);
        };
        let pause: Option<f64> = row.try_get("", "pause")?;
        let now: DateTime<Utc> = row.try_get("", "claimed_at")?;
        Ok(Some(Claim {
            lease: run.lease(),
            trigger,
            failed_attempts: u32::try_from(run.failed_attempts).unwrap_or(u32::MAX),
            request: run.request(),
            now,
            watermarks: watermarks(row),
            registered_at: instant(row, "registered_at").unwrap_or(now),
            pause: pause.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
            recent_requests: row
                .try_get::<Option<i64>>("", "recent_requests")?
                .and_then(|recent_requests| recent_requests.try_into().ok())
                .unwrap_or(0),
            has_failed_records: row.try_get("", "has_failed_records")?,
            resumed: self.resumed(db, &run).await?,
            // Few merchants have any, and a claim must not wait for another answer.
            erased: if row.try_get("", "has_erasures")? {
                self.erased(db, MerchantId(run.merchant_id)).await?
            } else {
                Vec::new()
            },
        }))
    }

    /// Ends a claimed run whose row, or whose merchant's, holds a value that cannot be read.
    async fn fail_unreadable(&self, db: &impl ConnectionTrait, row: &QueryResult, why: &str) -> Result<(), DbErr> {
        let (id, epoch): (RunId, i64) = (row.try_get("", "id")?, row.try_get("", "epoch")?);
        tracing::error!(run.id = %id, merchant.id = row.try_get::<i64>("", "merchant_id").ok(), error = why, "a claimed run cannot be read; it fails");
        let sql = format!(
            "UPDATE runs SET status = 'failed', error_kind = 'internal', finished_at = {}, lease_expires_at = NULL, \
             error_message = 'a value in the row of the run or of its merchant cannot be read; the log has the cause' \
             WHERE id = $1 AND epoch = $2 AND status = 'running'",
            self.dialect.now()
        );
        db.execute_raw(self.statement(&sql, [id.into(), epoch.into()])).await.map(drop)
    }

    /// Returns the work of an earlier holder. `None`: the cursor is missing or of another version,
    /// or the pages went to other targets. Then the run reads the window from its start.
    async fn resumed(&self, db: &impl ConnectionTrait, row: &run::Model) -> Result<Option<Resumed>, DbErr> {
        let Some(cursor) = &row.cursor else {
            return Ok(None);
        };
        let has_these_targets = row.targets == self.targets_text();
        let (Ok(cursor), Some(resource_runs), true) =
            (serde_json::from_str::<Cursor>(cursor), row.resource_runs(), has_these_targets)
        else {
            for table in ["run_seen_ids", "discrepancies"] {
                let sql = format!("DELETE FROM {table} WHERE run_id = $1");
                db.execute_raw(self.statement(&sql, [row.id.into()])).await?;
            }
            return Ok(None);
        };
        let sql = "SELECT batch, ids FROM run_seen_ids WHERE run_id = $1 ORDER BY batch";
        let mut seen = Vec::new();
        for page in db.query_all_raw(self.statement(sql, [row.id.into()])).await? {
            let (number, ids): (i64, Vec<u8>) = (page.try_get("", "batch")?, page.try_get("", "ids")?);
            let (pass, commit) = ((number >> 32) as u32, number as u32);
            if commit <= cursor.commits_before {
                // Of the kinds of record before this one.
                continue;
            }
            seen.push((pass, ids.as_chunks().0.iter().copied().map(i64::from_le_bytes).collect()));
        }
        Ok(Some(Resumed { resource_runs, cursor, requests: row.requests(), seen }))
    }

    /// Renews the leases that are still held.
    pub(in crate::store) async fn renew_leases(&self, held: &[Lease]) -> Result<Vec<Lease>, DatabaseError> {
        let this_lease = |lease: &Lease| {
            Condition::all().add(run::Column::Id.eq(lease.run_id)).add(run::Column::Epoch.eq(lease.epoch))
        };
        let any = held.iter().fold(Condition::any(), |any, lease| any.add(this_lease(lease)));
        let (renewed, global_pause) = self
            .call(|| async {
                let renewed = run::Entity::update_many()
                    .col_expr(run::Column::LeaseExpiresAt, Expr::cust(self.dialect.now_plus(self.lease)))
                    .filter(run::Column::Status.eq("running"))
                    .filter(any.clone())
                    .exec_with_returning(&self.db)
                    .await?;
                Ok((renewed, self.find_global_pause(&self.db).await?))
            })
            .await?;
        // A run of the foreground is its maker's, until a daemon takes it over.
        let of_foreground = |run: &run::Model| run.trigger == Trigger::Cli.as_str() && run.epoch == 1;
        // Renew the lease of a run that must stop, so that no other process takes it over, and report it as lost.
        let goes_on = |run: &&run::Model| !run.cancel_requested && (global_pause.is_none() || of_foreground(run));
        Ok(renewed.iter().filter(goes_on).map(run::Model::lease).collect())
    }

    /// The runs that a statement changed and returns.
    pub(in crate::store) async fn returned_runs(
        &self,
        db: &impl ConnectionTrait,
        statement: Statement,
    ) -> Result<Vec<Run>, DbErr> {
        let rows = db.query_all_raw(statement).await?;
        rows.iter().map(|row| read(run::Model::from_query_result(row, "")?)).collect()
    }
}

/// Without a watermark that can be read, the run begins where the merchant was registered.
fn watermarks(row: &QueryResult) -> Vec<(Resource, DateTime<Utc>)> {
    let of = |resource: &Resource| Some((*resource, instant(row, &format!("watermark_{resource}"))?));
    Resource::ALL.iter().filter_map(of).collect()
}
