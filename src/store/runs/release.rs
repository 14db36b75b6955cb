//! A run goes back into the queue at its cursor, and shows what it waits for.

use std::time::Duration;

use sea_orm::{ConnectionTrait, Value};

use crate::{
    domain::Wait,
    reconcile::ports::{DatabaseError, Lease, Released},
    store::{
        Store,
        connection::error::{ErrorClass, error_class},
    },
};

impl Store {
    /// Back into the queue at its cursor; the claim is not counted, but a failed attempt is. One that was to be cancelled
    /// ends so.
    pub(in crate::store) async fn release_run(
        &self,
        lease: &Lease,
        pause: Duration,
        wait: Option<&Wait>,
        setback: bool,
    ) -> Result<Released, DatabaseError> {
        let now = self.dialect.now();
        let back = format!(
            "UPDATE runs SET worker_id = NULL, lease_expires_at = NULL, attempt = attempt - 1, failed_attempts = failed_attempts + {setback}, scheduled_at = {scheduled_at}, \
             waiting_reason = $3, waiting_message = $4, waiting_until = {until}, waiting_attempts = waiting_attempts + {waits}, \
             status = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'queued' END, \
             finished_at = CASE WHEN cancel_requested THEN {now} END \
             WHERE id = $1 AND epoch = $2 AND status = 'running' RETURNING status",
            setback = i32::from(setback),
            scheduled_at = if pause.is_zero() { "scheduled_at".to_owned() } else { self.dialect.now_plus(pause) },
            until = if wait.is_some() { self.dialect.now_plus(pause) } else { "NULL".to_owned() },
            waits = i32::from(wait.is_some()),
        );
        let give_way = format!(
            "UPDATE runs SET status = 'failed', error_kind = 'abandoned', finished_at = {now}, lease_expires_at = NULL, \
             error_message = 'another run of the merchant waits in the queue, and covers its window' \
             WHERE id = $1 AND epoch = $2 AND status = 'running'"
        );
        let (back, give_way) = (back.as_str(), give_way.as_str());
        let released = self
            .call(|| async move {
                let values: [Value; 2] = [lease.run_id.into(), lease.epoch.into()];
                let [reason, message] = words(wait);
                let with_wait = values.clone().into_iter().chain([reason, message]);
                failpoint!("release_before_commit", lease.merchant.0);
                // Fetch all rows: SQLite commits after the last one, and `query_one` does not wait for an error of the commit.
                let released = match self.db.query_all_raw(self.statement(back, with_wait)).await {
                    // There can be one run by hand in the queue.
                    Err(error) if error_class(&error) == ErrorClass::UniqueViolation => {
                        let given_way = self.db.execute_raw(self.statement(give_way, values)).await?;
                        if given_way.rows_affected() > 0 { Released::Superseded } else { Released::LeaseLost }
                    }
                    rows => {
                        match rows?.first().map(|row| row.try_get::<String>("", "status")).transpose()?.as_deref() {
                            Some("cancelled") => Released::Cancelled,
                            Some(_) => Released::Queued,
                            None => Released::LeaseLost,
                        }
                    }
                };
                failpoint!("release_after_commit", lease.merchant.0);
                self.queue_position.forget();
                Ok(released)
            })
            .await;
        self.unrecorded_waits.note(lease.run_id, wait.map(|wait| (wait, pause)), released.is_ok());
        released
    }

    /// What a run that a worker holds waits for.
    pub(in crate::store) async fn note_wait(
        &self,
        lease: &Lease,
        wait: Option<(&Wait, Duration)>,
    ) -> Result<(), DatabaseError> {
        let sql = format!(
            "UPDATE runs SET waiting_reason = $3, waiting_message = $4, waiting_until = {until}, \
             waiting_attempts = waiting_attempts + {waits} WHERE id = $1 AND epoch = $2 AND status = 'running'",
            until = wait.map_or_else(|| "NULL".to_owned(), |(_, pause)| self.dialect.now_plus(pause)),
            waits = i32::from(wait.is_some()),
        );
        let [reason, message] = words(wait.map(|(wait, _)| wait));
        let values = [lease.run_id.into(), lease.epoch.into(), reason, message];
        let (sql, values) = (sql.as_str(), &values);
        let noted =
            self.call(|| async move { self.db.execute_raw(self.statement(sql, values.clone())).await.map(drop) }).await;
        self.unrecorded_waits.note(lease.run_id, wait, noted.is_ok());
        noted
    }

    /// Back into the queue at its cursor, behind all that is due, where anything of another merchant's is. The attempt is
    /// not counted. False: the run continues, or the lease is lost.
    pub(in crate::store) async fn yield_run(&self, lease: &Lease) -> Result<bool, DatabaseError> {
        let sql = format!(
            "UPDATE runs SET status = 'queued', worker_id = NULL, lease_expires_at = NULL, attempt = attempt - 1, \
             scheduled_at = {now}, priority = 0 \
             WHERE id = $1 AND epoch = $2 AND status = 'running' AND NOT cancel_requested \
             AND EXISTS (SELECT 1 FROM runs r WHERE r.merchant_id <> runs.merchant_id AND {due} LIMIT 1 OFFSET 0) \
             AND NOT EXISTS (SELECT 1 FROM runs o WHERE o.merchant_id = runs.merchant_id AND o.status = 'queued' \
                 AND o.sweep_scheduled_for IS NULL)",
            now = self.dialect.now(),
            due = self.due(),
        );
        let sql = sql.as_str();
        self.call(|| async move {
            let values: [Value; 2] = [lease.run_id.into(), lease.epoch.into()];
            match self.db.execute_raw(self.statement(sql, values)).await {
                // A run by hand has come into the queue at this very moment.
                Err(error) if error_class(&error) == ErrorClass::UniqueViolation => Ok(false),
                done => {
                    self.queue_position.forget();
                    Ok(done?.rows_affected() > 0)
                }
            }
        })
        .await
    }
}

/// What a run waits for, as the columns `waiting_reason` and `waiting_message`.
pub(in crate::store) fn words(wait: Option<&Wait>) -> [Value; 2] {
    [wait.map(|wait| wait.reason.as_str()).into(), wait.map(|wait| wait.message.as_str()).into()]
}
