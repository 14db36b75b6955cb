//! How a run starts: queued, or begun at once in the foreground.

use std::time::Duration;

use chrono::DateTime;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, QueryFilter, RuntimeErr, Value, sqlx,
};
use uuid::Uuid;

use super::idempotency::Known;
use crate::{
    domain::{MerchantId, MerchantState, MerchantStatus, Run, RunId, Trigger},
    reconcile::ports::{Action, Audit, Claim, DatabaseError, EnqueueOutcome, NewRun, StartOutcome},
    store::{
        Store,
        connection::{
            error::{ErrorClass, error_class},
            stamp::instant,
        },
        entity::run,
    },
};

/// A run that a person asked for goes before the schedule's.
const BY_HAND: i64 = 10;

impl Store {
    pub(in crate::store) async fn enqueue(&self, new: NewRun) -> Result<EnqueueOutcome, DatabaseError> {
        let id = Uuid::now_v7();
        let (new, audit) = (&new, &triggered(id, &new));
        let done = self.call(|| self.enqueue_once(id, new, audit)).await?;
        if done == EnqueueOutcome::Queued(id) {
            audit.tell();
        }
        Ok(done)
    }

    async fn enqueue_once(&self, id: RunId, new: &NewRun, audit: &Audit) -> Result<EnqueueOutcome, DbErr> {
        let txn = self.begin_write().await?;
        // Of two requests for a run the second sees the first's.
        let state = self.lock_merchant_status(&txn, new.merchant).await?.map(MerchantStatus::state);
        if let Some(key) = &new.key {
            match self.known_key(&txn, &new.by, key).await? {
                // The same id: an earlier attempt, whose answer was lost, did it.
                Some(Known::Same(run)) if run == id => return Ok(EnqueueOutcome::Queued(id)),
                Some(Known::Same(run)) => return Ok(EnqueueOutcome::Replayed(run)),
                Some(Known::Other) => return Ok(EnqueueOutcome::KeyTaken),
                None => {}
            }
        }
        match state {
            None => return Ok(EnqueueOutcome::UnknownMerchant),
            Some(MerchantState::Uninstalled) => return Ok(EnqueueOutcome::Uninstalled),
            Some(_) => {}
        }
        if let Some(active) = active_run(&txn, new.merchant).await? {
            // The same id: an earlier attempt, whose answer was lost, did it.
            return Ok(if active.id == id { EnqueueOutcome::Queued(id) } else { EnqueueOutcome::Active(active.id) });
        }
        match self.insert(&txn, id, new, "queued").await {
            Ok(_) => {
                if let Some(key) = &new.key
                    && !self.remember_key(&txn, &new.by, key, id).await?
                {
                    txn.rollback().await?;
                    return Err(again("another request with this key"));
                }
                self.insert_audit(&txn, audit).await?;
                failpoint!("enqueue_before_commit", new.merchant.0);
                txn.commit().await?;
                failpoint!("enqueue_after_commit", new.merchant.0);
                Ok(EnqueueOutcome::Queued(id))
            }
            Err(error) if error_class(&error) == ErrorClass::UniqueViolation => {
                txn.rollback().await?;
                let other = active_run(&self.db, new.merchant).await?;
                // The run has ended: the call is repeated.
                other.map(|run| EnqueueOutcome::Active(run.id)).ok_or_else(|| again(error))
            }
            Err(error) => Err(error),
        }
    }

    pub(in crate::store) async fn start(&self, new: NewRun) -> Result<StartOutcome, DatabaseError> {
        let id = Uuid::now_v7();
        let (new, audit) = (&new, &triggered(id, &new));
        let begun = self.call(|| self.start_once(id, new, audit)).await?;
        if let StartOutcome::Claimed { .. } = begun {
            audit.tell();
        }
        Ok(begun)
    }

    async fn start_once(&self, id: RunId, new: &NewRun, audit: &Audit) -> Result<StartOutcome, DbErr> {
        let txn = self.begin_write().await?;
        match self.lock_merchant_status(&txn, new.merchant).await?.map(MerchantStatus::state) {
            None => return Ok(StartOutcome::UnknownMerchant),
            Some(MerchantState::Uninstalled) => return Ok(StartOutcome::Uninstalled),
            Some(_) => {}
        }
        let abandoned = self.clear_orphan(&txn, new.merchant).await?;
        if let Some(ours) = run::Entity::find_by_id(id).one(&txn).await?.filter(|run| run.status == "running") {
            // An earlier attempt, whose answer was lost, did it.
            let claim = self.read_claim(&txn, ours.id).await?;
            return claimed(claim, abandoned);
        }
        let row = match self.insert(&txn, id, new, "running").await {
            Ok(row) => row,
            Err(error) if error_class(&error) == ErrorClass::UniqueViolation => {
                txn.rollback().await?;
                return self.busy(new.merchant).await?.ok_or_else(|| again(error));
            }
            Err(error) => return Err(error),
        };
        let claim = self.read_claim(&txn, row.id).await?;
        self.insert_audit(&txn, audit).await?;
        txn.commit().await?;
        claimed(claim, abandoned)
    }

    /// A foreground run whose process is gone is over: no one waits for it, and the run that begins now
    /// covers its window. Any other is put back into the queue, at its cursor, unless it is parked.
    async fn clear_orphan(&self, db: &impl ConnectionTrait, merchant: MerchantId) -> Result<Vec<Run>, DbErr> {
        let now = self.dialect.now();
        let of_foreground = format!(
            "UPDATE runs SET status = 'failed', error_kind = 'abandoned', finished_at = {now}, \
             error_message = 'its process went away; a later run covers its window' \
             WHERE merchant_id = $1 AND status = 'running' AND lease_expires_at < {now} AND trigger = 'cli' RETURNING *"
        );
        let of_daemon = format!(
            "UPDATE runs SET status = 'queued', worker_id = NULL, lease_expires_at = NULL, failed_attempts = failed_attempts + 1 \
             WHERE merchant_id = $1 AND status = 'running' AND lease_expires_at < {now}"
        );
        let mut abandoned = self.returned_runs(db, self.statement(&of_foreground, [merchant.0.into()])).await?;
        abandoned.extend(self.fail_crash_loops(db, Some(merchant)).await?);
        db.execute_raw(self.statement(&of_daemon, [merchant.0.into()])).await?;
        Ok(abandoned)
    }

    async fn busy(&self, merchant: MerchantId) -> Result<Option<StartOutcome>, DbErr> {
        let sql = format!(
            "SELECT id, lease_expires_at, {} AS lapses_in FROM runs WHERE merchant_id = $1 AND status = 'running'",
            self.dialect.seconds_between(self.dialect.now(), "lease_expires_at")
        );
        let row = self.db.query_one_raw(self.statement(&sql, [merchant.0.into()])).await?;
        row.map(|row| {
            let seconds = row.try_get::<Option<f64>>("", "lapses_in")?.unwrap_or_default();
            Ok(StartOutcome::Busy {
                run_id: row.try_get("", "id")?,
                lease_expires_at: instant(&row, "lease_expires_at").unwrap_or(DateTime::UNIX_EPOCH),
                lapses_in: Duration::from_secs_f64(seconds.max(0.05)),
            })
        })
        .transpose()
    }

    /// The oldest watermark of a merchant, which decides its place in the queue. A merchant without a watermark is
    /// first.
    pub(in crate::store) fn watermark_at_enqueue(&self, merchant: &str) -> String {
        format!(
            "COALESCE((SELECT min({watermark}) FROM watermarks w WHERE w.merchant_id = {merchant} AND {kept}), \
             '1970-01-01T00:00:00+00:00')",
            watermark = self.dialect.finite("w.watermark"),
            kept = self.kept()
        )
    }

    async fn insert(
        &self,
        db: &impl ConnectionTrait,
        id: RunId,
        new: &NewRun,
        status: &str,
    ) -> Result<run::Model, DbErr> {
        let (worker_id, lease_expires_at, started_at, epoch) = if status == "running" {
            (Some(self.worker_id), self.dialect.now_plus(self.lease), self.dialect.now(), 1)
        } else {
            (None, "NULL".to_owned(), "NULL", 0)
        };
        let sql = format!(
            "INSERT INTO runs (id, merchant_id, trigger, status, since_requested, until_requested, full_history, \
             dry_run, priority, worker_id, epoch, attempt, resources_requested, lease_expires_at, started_at, watermark_at_enqueue) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12, {lease_expires_at}, {started_at}, {watermark_at_enqueue}) \
             RETURNING *",
            watermark_at_enqueue = self.watermark_at_enqueue("$2"),
        );
        let request = new.request;
        let priority = if matches!(new.trigger, Trigger::Http | Trigger::Cli) { BY_HAND } else { 0 };
        let resources = (!request.resources.is_empty()).then(|| request.resources.to_string());
        let values: [Value; 12] = [
            id.into(),
            new.merchant.0.into(),
            new.trigger.as_str().into(),
            status.into(),
            request.since.into(),
            request.until.into(),
            request.full.into(),
            request.dry_run.into(),
            priority.into(),
            worker_id.into(),
            i64::from(epoch).into(),
            resources.into(),
        ];
        let row = db.query_one_raw(self.statement(&sql, values)).await?;
        let row = row.ok_or(DbErr::RecordNotInserted)?;
        run::Model::from_query_result(&row, "")
    }
}

fn claimed(claim: Option<Claim>, abandoned: Vec<Run>) -> Result<StartOutcome, DbErr> {
    let claim = Box::new(claim.ok_or(DbErr::RecordNotInserted)?);
    Ok(StartOutcome::Claimed { claim, abandoned })
}

/// The merchant's run that is running, or else the first that waits.
async fn active_run(db: &impl ConnectionTrait, merchant: MerchantId) -> Result<Option<run::Model>, DbErr> {
    let mut active = run::Entity::find()
        .filter(run::Column::MerchantId.eq(merchant.0))
        .filter(run::Column::Status.is_in(["queued", "running"]))
        .all(db)
        .await?;
    active.sort_by_key(|run| (run.status != "running", run.id));
    Ok(active.into_iter().next())
}

fn triggered(id: RunId, new: &NewRun) -> Audit {
    Audit {
        actor: new.by.clone(),
        action: Action::RunTrigger,
        merchant: Some(new.merchant),
        run: Some(id),
        detail: serde_json::json!(new.request),
    }
}

/// The conflict is over: `Store::call` repeats the call.
fn again(what: impl std::fmt::Display) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(std::sync::Arc::new(sqlx::Error::Protocol(format!("requeued: {what}")))))
}
