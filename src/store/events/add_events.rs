//! Adds events to the outbox, in the transaction of what they report.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DbErr, Value};
use uuid::Uuid;

use crate::{
    domain::{Columns, Discrepancy, EventDetail, FieldChange, RecordChange, RecordEvent, Run, RunId, RunStatus},
    reconcile::ports::{Lease, PageCommit},
    store::{
        Store,
        connection::{dialect::Dialect, error::json},
        entity::{read, run},
        records::{discrepancies::without_personal_data, stored::Stored},
    },
};

/// A row of the outbox without its merchant.
struct Event {
    id: Uuid,
    run: RunId,
    event_type: String,
    subject: String,
    data: String,
}

impl Store {
    /// Adds the event of a run that has ended in `db`'s transaction, as the last of the rows that are locked there.
    pub(in crate::store) async fn add_run_event(
        &self,
        db: &impl ConnectionTrait,
        row: &run::Model,
    ) -> Result<(), DbErr> {
        let Some(settings) = &self.event_settings else {
            return Ok(());
        };
        let well = [RunStatus::Succeeded, RunStatus::Partial].iter().any(|status| row.status == status.as_str());
        if !well || row.dry_run {
            return Ok(());
        }
        let may_be_silent = settings.skip_unchanged && row.status == RunStatus::Succeeded.as_str();
        if may_be_silent && !self.has_discrepancies(db, row.id).await? {
            return Ok(());
        }
        let run: Run = read(row.clone())?;
        let event = Event {
            id: run.run_id,
            run: run.run_id,
            event_type: format!("run.{}", run.status),
            subject: format!("merchants/{}", run.merchant_id),
            data: json(&run)?,
        };
        self.lock_delivery(db, row.merchant_id).await?;
        let sql = "INSERT INTO outbox (merchant_id, event_id, run_id, type, subject, data, created_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let at: Value = run.finished_at.unwrap_or_default().into();
        db.execute_raw(self.statement(sql, event.values(row.merchant_id).into_iter().chain([at]))).await.map(drop)
    }

    /// Adds an event for each record that a page has written, as the last of the rows that are locked in `db`'s transaction.
    pub(in crate::store) async fn add_record_events<R: Stored>(
        &self,
        db: &impl ConnectionTrait,
        lease: &Lease,
        page: &PageCommit<'_, R>,
        found: impl Iterator<Item = &Discrepancy>,
    ) -> Result<(), DbErr> {
        let is_wanted = self.event_settings.as_ref().is_some_and(|settings| settings.scope == EventDetail::Record);
        if page.dry_run || !is_wanted {
            return Ok(());
        }
        let records: HashMap<i64, &R> =
            page.batch.records.iter().map(|planned| (planned.record.id(), &planned.record)).collect();
        let mut events = Vec::new();
        for one in found {
            let (Some(salla_id), Some(kind)) = (one.salla_id, RecordChange::of(one)) else {
                continue;
            };
            let created = records.get(&salla_id).filter(|_| kind == RecordChange::Created);
            let created = created.map(|record| values_of(*record));
            events.push(event(lease, kind, salla_id, one, created.as_deref())?);
        }
        if events.is_empty() {
            return Ok(());
        }
        self.lock_delivery(db, lease.merchant.0).await?;
        match self.dialect {
            Dialect::Postgres => {
                let sql = "INSERT INTO outbox (merchant_id, event_id, run_id, type, subject, data) \
                           SELECT $1, CAST(e.id AS uuid), $2, e.type, e.subject, e.data \
                           FROM unnest($3::text[], $4::text[], $5::text[], $6::text[]) \
                             WITH ORDINALITY AS e(id, type, subject, data, place) ORDER BY e.place";
                let column = |of: &dyn Fn(&Event) -> String| Value::from(events.iter().map(of).collect::<Vec<_>>());
                let values: [Value; 6] = [
                    lease.merchant.0.into(),
                    lease.run_id.into(),
                    column(&|event| event.id.to_string()),
                    column(&|event| event.event_type.clone()),
                    column(&|event| event.subject.clone()),
                    column(&|event| event.data.clone()),
                ];
                db.execute_raw(self.statement(sql, values)).await.map(drop)
            }
            Dialect::Sqlite => {
                let sql = "INSERT INTO outbox (merchant_id, event_id, run_id, type, subject, data) \
                           VALUES ($1, $2, $3, $4, $5, $6)";
                for event in events {
                    db.execute_raw(self.statement(sql, event.values(lease.merchant.0))).await?;
                }
                Ok(())
            }
        }
    }

    /// Locks the delivery row of a merchant, or adds one whose event is due at once. The epochs of a new row begin above those
    /// of an earlier row that was removed.
    async fn lock_delivery(&self, db: &impl ConnectionTrait, merchant: i64) -> Result<(), DbErr> {
        let sql = "INSERT INTO outbox_delivery_state (merchant_id, lease_epoch) VALUES ($1, $2) \
                   ON CONFLICT (merchant_id) DO UPDATE SET merchant_id = excluded.merchant_id";
        let epoch = chrono::Utc::now().timestamp_micros();
        db.execute_raw(self.statement(sql, [merchant.into(), epoch.into()])).await.map(drop)
    }

    async fn has_discrepancies(&self, db: &impl ConnectionTrait, run: RunId) -> Result<bool, DbErr> {
        let sql = "SELECT 1 AS found FROM discrepancies WHERE run_id = $1 LIMIT 1";
        Ok(db.query_one_raw(self.statement(sql, [run.into()])).await?.is_some())
    }
}

impl Event {
    /// The columns `merchant_id`, `event_id`, `run_id`, `type`, `subject` and `data`.
    fn values(self, merchant: i64) -> [Value; 6] {
        let Self { id, run, event_type, subject, data } = self;
        [merchant.into(), id.into(), run.into(), event_type.into(), subject.into(), data.into()]
    }
}

/// The event of a record. `created`: the values of one that was missing.
fn event(
    lease: &Lease,
    kind: RecordChange,
    salla_id: i64,
    found: &Discrepancy,
    created: Option<&[FieldChange]>,
) -> Result<Event, DbErr> {
    let data = RecordEvent {
        run_id: lease.run_id,
        merchant_id: lease.merchant,
        resource: found.resource,
        salla_id,
        kind,
        fields: &found.fields,
        changes: created.unwrap_or(&found.changes),
        salla_updated_at: found.remote_updated_at,
        backfill: found.backfill,
    };
    Ok(Event {
        id: Uuid::now_v7(),
        run: lease.run_id,
        event_type: format!("record.{kind}"),
        subject: format!("merchants/{}/{}/{salla_id}", lease.merchant, found.resource),
        data: json(&data)?,
    })
}

/// All values of a record.
fn values_of<R: Stored>(record: &R) -> Vec<FieldChange> {
    without_personal_data::<R>(record.columns().changes(&R::Columns::default()))
}
