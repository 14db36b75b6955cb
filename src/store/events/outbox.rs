//! Events until they are delivered: those of one merchant in their order, those of different merchants beside each other.
//!
//! A row for each merchant says when its next event is due. Adding an event locks the row. A delivery locks it before it
//! looks for the next event. So neither misses the other.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};

use crate::{
    domain::{EventDetail, MerchantId},
    reconcile::ports::{Backlog, DELIVERY_LEASE, DatabaseError, Outbox, OutboxEvent, PendingDelivery},
    store::Store,
};

/// How many merchants' positions in the log are noted at once.
const PLACED_AT_ONCE: u32 = 1000;

/// At most so many events of a merchant are taken at once.
const EVENTS_AT_ONCE: u32 = 100;

/// Which events are sent, and what each waits for.
#[derive(Debug, Clone)]
pub struct EventSettings {
    /// Whether events about single records are sent.
    pub scope: EventDetail,
    /// A run without a difference sends no event.
    pub skip_unchanged: bool,
    /// An event waits until the consumer of this replication slot has confirmed its changes.
    pub slot: Option<String>,
}

impl Outbox for Store {
    async fn take(&self, limit: u32) -> Result<Vec<PendingDelivery>, DatabaseError> {
        self.call(|| self.take_events(limit)).await
    }

    async fn delivered(&self, deliveries: &[PendingDelivery]) -> Result<(), DatabaseError> {
        if deliveries.is_empty() {
            return Ok(());
        }
        // In one order everywhere, so that two that hold some of them never wait for each other.
        let mut deliveries: Vec<&PendingDelivery> = deliveries.iter().collect();
        deliveries.sort_by_key(|delivery| delivery.merchant);
        let deliveries = &deliveries;
        self.call(|| self.remove_delivered(deliveries)).await
    }

    async fn reschedule(&self, delivery: &PendingDelivery, pause: Duration) -> Result<(), DatabaseError> {
        let sql = format!(
            "UPDATE outbox_delivery_state SET next_attempt_at = {} WHERE merchant_id = $1 AND lease_epoch = $2",
            self.dialect.now_plus(pause)
        );
        let sql = sql.as_str();
        self.call(|| async move {
            self.db
                .execute_raw(self.statement(sql, [delivery.merchant.0.into(), delivery.epoch.into()]))
                .await
                .map(drop)
        })
        .await
    }

    async fn slot_problem(&self) -> Result<Option<&'static str>, DatabaseError> {
        let Some(slot) = self.slot() else {
            return Ok(None);
        };
        let sql = "SELECT confirmed_flush_lsn IS NOT NULL AND database = current_database() AS usable, \
                   COALESCE(wal_status, '') = 'lost' AS lost FROM pg_replication_slots WHERE slot_name = $1";
        self.call(|| async move {
            let Some(row) = self.db.query_one_raw(self.statement(sql, [slot.into()])).await? else {
                return Ok(Some("no slot has this name"));
            };
            Ok(if row.try_get("", "lost")? {
                Some("the slot is lost, because the server removed WAL before the consumer read it: create it again, and copy the tables again")
            } else if !row.try_get::<bool>("", "usable")? {
                Some("it is not a logical slot of this database")
            } else {
                None
            })
        })
        .await
    }
}

impl Store {
    /// Adds events to the outbox, as `settings` say.
    #[must_use]
    pub fn with_events(mut self, settings: EventSettings) -> Self {
        self.event_settings = Some(settings.into());
        self
    }

    fn slot(&self) -> Option<&str> {
        self.event_settings.as_ref()?.slot.as_deref()
    }

    async fn take_events(&self, limit: u32) -> Result<Vec<PendingDelivery>, DbErr> {
        let now = self.dialect.now();
        // Most of the time nothing is, and a transaction that may write would keep SQLite's others waiting.
        let due = format!("SELECT merchant_id FROM outbox_delivery_state WHERE next_attempt_at <= {now} LIMIT 1");
        if self.db.query_one_raw(self.statement(&due, [])).await?.is_none() {
            return Ok(Vec::new());
        }
        let slot = self.slot();
        if slot.is_some() {
            self.note_positions().await?;
        }
        // In the order of what is limited most: where a consumer lags behind, nothing that waits for it is read.
        let (confirmed, order) = match slot {
            None => ("", "next_attempt_at"),
            Some(_) => {
                let slots = "pg_replication_slots WHERE slot_name = $1 AND database = current_database()";
                (&*format!("AND r.lsn <= (SELECT confirmed_flush_lsn FROM {slots})"), "lsn")
            }
        };
        let lock = self.dialect.for_update_skip_locked();
        // Merchants without a failed attempt come first. The others get the rest of the room, and at least a quarter of
        // `limit`.
        let sql = format!(
            "WITH fresh AS MATERIALIZED (SELECT r.merchant_id FROM outbox_delivery_state r \
               WHERE r.attempts = 0 AND r.next_attempt_at <= {now} {confirmed} ORDER BY r.{order} LIMIT {limit} {lock}), \
             again AS MATERIALIZED (SELECT r.merchant_id FROM outbox_delivery_state r \
               WHERE r.attempts > 0 AND r.next_attempt_at <= {now} {confirmed} ORDER BY r.next_attempt_at \
               LIMIT (SELECT CASE WHEN count(*) + {share} > {limit} THEN {share} ELSE {limit} - count(*) END FROM fresh) {lock}) \
             UPDATE outbox_delivery_state SET lease_epoch = lease_epoch + 1, attempts = attempts + 1, next_attempt_at = {lapse} \
             WHERE merchant_id IN (SELECT merchant_id FROM fresh UNION ALL SELECT merchant_id FROM again) \
             RETURNING merchant_id, lease_epoch, attempts, lsn_event_id",
            share = limit / 4,
            lapse = self.dialect.now_plus(DELIVERY_LEASE)
        );
        let oldest = format!(
            "SELECT id, event_id, run_id, type, subject, data, created_at FROM outbox \
             WHERE merchant_id = $1 AND id <= $2 ORDER BY id LIMIT {EVENTS_AT_ONCE}"
        );
        let txn = self.begin_write().await?;
        let rows = txn.query_all_raw(self.statement(&sql, slot.map(Value::from))).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            let merchant: i64 = row.try_get("", "merchant_id")?;
            let last = match slot {
                Some(_) => row.try_get::<Option<i64>>("", "lsn_event_id")?.unwrap_or_default(),
                None => i64::MAX,
            };
            let found = txn.query_all_raw(self.statement(&oldest, [merchant.into(), last.into()])).await?;
            events.push(PendingDelivery {
                events: found.iter().map(event_of).collect::<Result<_, _>>()?,
                merchant: MerchantId(merchant),
                epoch: row.try_get("", "lease_epoch")?,
                attempts: row.try_get::<i32>("", "attempts")?.try_into().unwrap_or(u32::MAX),
            });
        }
        failpoint!("event_take_before_commit");
        txn.commit().await?;
        failpoint!("event_take_after_commit");
        Ok(events)
    }

    /// Notes a position in the log of changes, and the last event that it covers. The position lies
    /// behind the commits of all events that are visible now. A position ahead of the end of the
    /// log is one of another server: the database was restored from a dump.
    async fn note_positions(&self) -> Result<(), DbErr> {
        let sql = format!(
            "WITH new AS MATERIALIZED (\
               SELECT r.merchant_id FROM outbox_delivery_state r WHERE r.lsn IS NULL OR r.lsn > (SELECT pg_current_wal_insert_lsn()) LIMIT {PLACED_AT_ONCE} {lock}) \
             UPDATE outbox_delivery_state AS s SET lsn = pg_current_wal_insert_lsn(), \
               lsn_event_id = (SELECT max(o.id) FROM outbox o WHERE o.merchant_id = s.merchant_id) \
             WHERE s.merchant_id IN (SELECT merchant_id FROM new)",
            lock = self.dialect.for_update_skip_locked()
        );
        self.db.execute_raw(self.statement(&sql, [])).await.map(drop)
    }

    async fn remove_delivered(&self, deliveries: &[&PendingDelivery]) -> Result<(), DbErr> {
        let lock = format!(
            "SELECT lease_epoch FROM outbox_delivery_state WHERE merchant_id = $1 {}",
            self.dialect.for_update()
        );
        let next = format!(
            "UPDATE outbox_delivery_state SET next_attempt_at = {}, attempts = 0 WHERE merchant_id = $1",
            self.dialect.now()
        );
        let none = "DELETE FROM outbox_delivery_state WHERE merchant_id = $1 \
                    AND NOT EXISTS (SELECT 1 FROM outbox WHERE merchant_id = $1)";
        let txn = self.begin_write().await?;
        for one in deliveries {
            let merchant = || [Value::from(one.merchant.0)];
            let turn = txn.query_one_raw(self.statement(&lock, merchant())).await?;
            // `events` are the oldest ones of the merchant, so the range has no other event.
            let range = one.events.first().map_or(0, |event| event.id)..=one.events.last().map_or(0, |event| event.id);
            let delivered = "DELETE FROM outbox WHERE merchant_id = $1 AND id >= $2 AND id <= $3";
            let values: [Value; 3] = [one.merchant.0.into(), (*range.start()).into(), (*range.end()).into()];
            let removed = txn.execute_raw(self.statement(delivered, values)).await?.rows_affected();
            if removed > 0 || one.events.is_empty() {
                // The position covers no later event.
                let unplaced = "UPDATE outbox_delivery_state SET lsn = NULL \
                                WHERE merchant_id = $1 AND ($2 = 0 OR COALESCE(lsn_event_id, $2) <= $2)";
                let values: [Value; 2] = [one.merchant.0.into(), (*range.end()).into()];
                txn.execute_raw(self.statement(unplaced, values)).await?;
            }
            let epoch = turn.map(|row| row.try_get::<i64>("", "lease_epoch")).transpose()?;
            // Otherwise it is another's turn by now.
            if epoch == Some(one.epoch) && txn.execute_raw(self.statement(none, merchant())).await?.rows_affected() == 0
            {
                txn.execute_raw(self.statement(&next, merchant())).await?;
            }
        }
        failpoint!("event_delivered_before_commit");
        txn.commit().await?;
        failpoint!("event_delivered_after_commit");
        Ok(())
    }

    /// The backlog of events for the scrape; `None` without a receiver.
    pub(in crate::store) async fn backlog(&self, db: &impl ConnectionTrait) -> Result<Option<Backlog>, DbErr> {
        if self.event_settings.is_none() {
            return Ok(None);
        }
        let sql =
            "SELECT count(*) AS pending, (SELECT created_at FROM outbox ORDER BY id LIMIT 1) AS oldest FROM outbox";
        let row = db.query_one_raw(self.statement(sql, [])).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("outbox".to_owned()))?;
        let mut backlog = Backlog {
            pending: row.try_get::<i64>("", "pending")?.try_into().unwrap_or(0),
            oldest: row.try_get("", "oldest")?,
            replication_slot_lag_bytes: None,
        };
        if let Some(slot) = self.slot() {
            let sql = "SELECT CAST(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) AS BIGINT) AS lag \
                       FROM pg_replication_slots WHERE slot_name = $1 AND database = current_database()";
            let row = db.query_one_raw(self.statement(sql, [slot.into()])).await?;
            let lag = row.map(|row| row.try_get::<Option<i64>>("", "lag")).transpose()?.flatten();
            backlog.replication_slot_lag_bytes = lag.map(|lag| lag.try_into().unwrap_or(0));
        }
        Ok(Some(backlog))
    }
}

fn event_of(row: &QueryResult) -> Result<OutboxEvent, DbErr> {
    Ok(OutboxEvent {
        id: row.try_get("", "id")?,
        event_id: row.try_get("", "event_id")?,
        run_id: row.try_get("", "run_id")?,
        event_type: row.try_get("", "type")?,
        subject: row.try_get("", "subject")?,
        data: row.try_get("", "data")?,
        at: row.try_get("", "created_at")?,
    })
}
