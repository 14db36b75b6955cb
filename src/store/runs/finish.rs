//! How a run leaves its worker: it ends, is released, or is cancelled.

use sea_orm::{ConnectionTrait, DbErr, EntityTrait, FromQueryResult, Value};
use uuid::Uuid;

use super::{
    fence::{count, counts},
    release::words,
};
use crate::{
    domain::{Listing, MerchantId, MerchantState, MerchantStatus, ResourceRun, Run, RunId, RunStatus},
    reconcile::ports::{Action, Actor, Again, Audit, DatabaseError, Lease, RunOutcome, WATERMARK_TOLERANCE},
    store::{
        Store,
        connection::{dialect::Dialect, error::json},
        entity::run,
    },
};

impl Store {
    /// Status, totals, watermark and the event, in one transaction.
    pub(in crate::store) async fn finish(&self, lease: &Lease, ending: RunOutcome) -> Result<Run, DatabaseError> {
        let ending = &ending;
        let ended = self.call(|| self.finish_once(lease, ending)).await?;
        let row = ended.ok_or(DatabaseError::LeaseLost(lease.run_id))?;
        row.try_into().map_err(|error: crate::domain::UnknownValue| DatabaseError::Refused(error.into()))
    }

    /// `None`: the lease is lost.
    async fn finish_once(&self, lease: &Lease, ending: &RunOutcome) -> Result<Option<run::Model>, DbErr> {
        if self.can_end_in_one_statement(ending) {
            return self.end_in_one_statement(lease, ending).await;
        }
        let txn = self.begin_write().await?;
        // Lock the merchant before the run, in the same order as every change of a merchant.
        let state = match ending.again {
            Some(_) => self.lock_merchant_status(&txn, lease.merchant).await?.map(MerchantStatus::state),
            None => None,
        };
        let sql = format!("{} RETURNING *", self.ended());
        let Some(row) = txn.query_one_raw(self.statement(&sql, values_of(lease, ending)?)).await? else {
            txn.rollback().await?;
            return self.ended_before(lease, ending.status).await;
        };
        for (resource, watermark) in &ending.watermarks {
            let sql = format!(
                "INSERT INTO watermarks (merchant_id, resource, watermark, target) \
                       SELECT merchant_id, $2, $3, $4 FROM merchants WHERE merchant_id = $1 {never_back}",
                never_back = self.never_back(),
            );
            let target = self.target_of(*resource);
            let values: [Value; 4] =
                [lease.merchant.0.into(), resource.as_str().into(), (*watermark).into(), target.into()];
            txn.execute_raw(self.statement(&sql, values)).await?;
            self.rotate(&txn, lease.merchant, *resource, &ending.resource_runs).await?;
            self.save_sorted_list(&txn, lease.merchant, *resource, &ending.resource_runs).await?;
        }
        // A contradiction counts although the scan after it did not end.
        let row = run::Model::from_query_result(&row, "")?;
        let is_violated =
            |resource_run: &&ResourceRun| resource_run.sorted_list.is_some_and(|list| list.violation.is_some());
        for resource_run in ending.resource_runs.iter().filter(|_| !row.dry_run).filter(is_violated) {
            self.save_sorted_list(&txn, lease.merchant, resource_run.resource, &ending.resource_runs).await?;
        }
        if let (Some(again), Some(state)) = (&ending.again, state) {
            self.take_up_later(&txn, lease.run_id, again, state).await?;
        }
        let seen = "DELETE FROM run_seen_ids WHERE run_id = $1";
        txn.execute_raw(self.statement(seen, [lease.run_id.into()])).await?;
        self.add_run_event(&txn, &row).await?;
        failpoint!("finish_before_commit", lease.merchant.0);
        txn.commit().await?;
        failpoint!("finish_after_commit", lease.merchant.0);
        Ok(Some(row))
    }

    /// Whether the end of a run concerns only its row, its seen ids and its watermarks. The
    /// database must also be able to write them in one statement. For a merchant with few records,
    /// the end is most of the work.
    fn can_end_in_one_statement(&self, ending: &RunOutcome) -> bool {
        self.dialect == Dialect::Postgres
            && self.event_settings.is_none()
            && ending.again.is_none()
            && ending
                .resource_runs
                .iter()
                .all(|resource_run| resource_run.slice.is_none() && resource_run.sorted_list.is_none())
    }

    async fn end_in_one_statement(&self, lease: &Lease, ending: &RunOutcome) -> Result<Option<run::Model>, DbErr> {
        let moved = &ending.watermarks;
        let resources: Vec<String> = moved.iter().map(|(resource, _)| resource.to_string()).collect();
        let targets: Vec<String> = moved.iter().map(|(resource, _)| self.target_of(*resource)).collect();
        let watermarks: Vec<_> = moved.iter().map(|(_, watermark)| *watermark).collect();
        let sql = format!(
            "WITH ended AS ({ended} RETURNING *), \
             moved AS (INSERT INTO watermarks (merchant_id, resource, watermark, target) \
               SELECT m.merchant_id, w.resource, w.watermark, w.target FROM ended JOIN merchants m USING (merchant_id), \
                 unnest($19::text[], $20::timestamptz[], $21::text[]) AS w(resource, watermark, target) {never_back}), \
             forgotten AS (DELETE FROM run_seen_ids USING ended WHERE run_seen_ids.run_id = ended.id) \
             SELECT * FROM ended",
            ended = self.ended(),
            never_back = self.never_back(),
        );
        let values = values_of(lease, ending)?.into_iter().chain([resources.into(), watermarks.into(), targets.into()]);
        failpoint!("finish_before_commit", lease.merchant.0);
        let row = self.db.query_one_raw(self.statement(&sql, values)).await?;
        failpoint!("finish_after_commit", lease.merchant.0);
        match row {
            Some(row) => run::Model::from_query_result(&row, "").map(Some),
            None => self.ended_before(lease, ending.status).await,
        }
    }

    /// Ends a run that is still ours, with [`values_of`] it.
    fn ended(&self) -> String {
        format!(
            "UPDATE runs SET status = $1, error_kind = $2, error_message = $3, requests = $4, \
             window_since = $5, window_until = $6, listing = $7, resource_results = $8, fetched = $9, created = $10, \
             updated = $11, unchanged = $12, skipped = $13, failed = $14, backfilled_created = $15, backfilled_updated = $16, \
             finished_at = {}, lease_expires_at = NULL \
             WHERE id = $17 AND epoch = $18 AND status = 'running'",
            self.dialect.now()
        )
    }

    /// The update of a stored watermark: it never moves back, unless it is unreadable, ahead of the clock or of another target.
    fn never_back(&self) -> String {
        let [ours, theirs] =
            ["watermarks.watermark", "excluded.watermark"].map(|column| self.dialect.comparable(column));
        format!(
            "ON CONFLICT (merchant_id, resource) DO UPDATE SET watermark = excluded.watermark, target = excluded.target, \
               rotation_cursor = CASE WHEN watermarks.target = excluded.target THEN watermarks.rotation_cursor END, \
               sorted_list = CASE WHEN watermarks.target = excluded.target THEN watermarks.sorted_list END \
             WHERE watermarks.target <> excluded.target OR COALESCE(({ours}) < ({theirs}) OR ({ours}) > {ahead}, TRUE)",
            ahead = self.dialect.age(&self.dialect.clock_plus(WATERMARK_TOLERANCE.to_std().unwrap_or_default()))
        )
    }

    /// An earlier attempt, whose answer was lost, may have ended the run.
    async fn ended_before(&self, lease: &Lease, status: RunStatus) -> Result<Option<run::Model>, DbErr> {
        let row = run::Entity::find_by_id(lease.run_id).one(&self.db).await?;
        Ok(row.filter(|row| row.epoch == lease.epoch && row.status == status.as_str()))
    }

    /// Queues a run that goes on at the cursor of `id`, with separate totals. It does nothing in
    /// these cases:
    ///
    /// - The cancellation of run `id` is requested.
    /// - The merchant is uninstalled.
    /// - The schedule made the run, and the merchant is paused or its subscription has expired.
    async fn take_up_later(
        &self,
        db: &impl ConnectionTrait,
        id: RunId,
        Again { pause, resource_runs, wait }: &Again,
        state: MerchantState,
    ) -> Result<(), DbErr> {
        let who = match state {
            MerchantState::Uninstalled => return Ok(()),
            MerchantState::Active | MerchantState::NeedsReauthorization => "TRUE",
            MerchantState::Paused | MerchantState::SubscriptionExpired => "trigger NOT IN ('schedule', 'catch_up')",
        };
        let sql = format!(
            "INSERT INTO runs (id, merchant_id, trigger, status, since_requested, until_requested, full_history, dry_run, \
             resources_requested, priority, scheduled_at, watermark_at_enqueue, window_since, window_until, cursor, targets, resource_results, \
             waiting_reason, waiting_message, waiting_until, waiting_attempts) \
             SELECT $1, merchant_id, trigger, 'queued', since_requested, until_requested, full_history, dry_run, \
             resources_requested, priority, {scheduled_at}, watermark_at_enqueue, window_since, window_until, cursor, targets, \
             CASE WHEN cursor IS NOT NULL THEN $3 END, $4, $5, {scheduled_at}, waiting_attempts + 1 FROM runs \
             WHERE id = $2 AND NOT cancel_requested AND {who} ON CONFLICT DO NOTHING",
            scheduled_at = self.dialect.now_plus(*pause)
        );
        let next = Uuid::now_v7();
        let [reason, message] = words(Some(wait));
        let values: [Value; 5] = [next.into(), id.into(), json(resource_runs)?.into(), reason, message];
        if db.execute_raw(self.statement(&sql, values)).await?.rows_affected() > 0 {
            let sql = "UPDATE run_seen_ids SET run_id = $1 WHERE run_id = $2";
            let values: [Value; 2] = [next.into(), id.into()];
            db.execute_raw(self.statement(sql, values)).await?;
        }
        Ok(())
    }

    /// Ends a run that waits; asks one that runs to stop at its next page.
    pub(in crate::store) async fn cancel(&self, id: RunId, by: &Actor) -> Result<Option<bool>, DatabaseError> {
        let sql = format!(
            "UPDATE runs SET cancel_requested = $1, \
             finished_at = CASE status WHEN 'queued' THEN {} ELSE finished_at END, \
             status = CASE status WHEN 'queued' THEN 'cancelled' ELSE status END \
             WHERE id = $2 AND status IN ('queued', 'running') RETURNING merchant_id",
            self.dialect.now()
        );
        let sql = sql.as_str();
        self.call(|| async move {
            let txn = self.begin_write().await?;
            let values: [Value; 2] = [true.into(), id.into()];
            let Some(row) = txn.query_one_raw(self.statement(sql, values)).await? else {
                return Ok(run::Entity::find_by_id(id).one(&txn).await?.map(|_| false));
            };
            let merchant = Some(MerchantId(row.try_get("", "merchant_id")?));
            let detail = serde_json::json!({});
            let audit = Audit { actor: by.clone(), action: Action::RunCancel, merchant, run: Some(id), detail };
            self.insert_audit(&txn, &audit).await?;
            failpoint!("cancel_before_commit");
            txn.commit().await?;
            failpoint!("cancel_after_commit");
            audit.tell();
            Ok(Some(true))
        })
        .await
    }
}

/// The parameters of [`Store::ended`].
fn values_of(lease: &Lease, ending: &RunOutcome) -> Result<Vec<Value>, DbErr> {
    let failure = ending.failure.as_ref();
    let window = ResourceRun::hull(&ending.resource_runs);
    let begin: [Value; 8] = [
        ending.status.as_str().into(),
        failure.map(|failure| failure.kind.as_str()).into(),
        failure.map(|failure| failure.message.as_str()).into(),
        count(ending.requests),
        window.map(|window| window.since).into(),
        window.map(|window| window.until).into(),
        ResourceRun::first_listing(&ending.resource_runs).map(Listing::as_str).into(),
        json(&ending.resource_runs)?.into(),
    ];
    let fence: [Value; 2] = [lease.run_id.into(), lease.epoch.into()];
    Ok(begin.into_iter().chain(counts(ResourceRun::sum(&ending.resource_runs))).chain(fence).collect())
}
