//! Turns the outcome of a record into a row of `discrepancies`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    IdenStatic,
};

use super::stored::Stored;
use crate::{
    domain::{Columns, Decision, Discrepancy, DiscrepancyKind, FieldChange, Outcome, Record, Unreadable},
    reconcile::ports::{AssessedRecord, Batch, Lease, PageCommit, StoredVersion},
    store::{connection::stamp::Stamp, entity::discrepancy},
};

/// What became of a record, and why.
pub type Written = (Outcome, Option<String>);

/// All discrepancies of a page; `gone`: stored records that are deleted in Salla, with their versions, and those that the
/// database refuses to mark.
pub fn found<'a, R: Stored>(
    page: &PageCommit<'a, R>,
    written: &'a HashMap<i64, Written>,
    gone: &'a [StoredVersion],
    refused: &'a [Unreadable],
) -> impl Iterator<Item = Discrepancy> + 'a {
    let batch = page.batch;
    let of_records = of_written(batch, written, false);
    let of_unreadable =
        batch.unreadable.iter().chain(refused).filter_map(|bad| Some(of_unreadable::<R>(bad, kind(bad.outcome)?)));
    let of_gone = gone.iter().map(|(id, stored)| of_gone::<R>(*id, *stored));
    of_records.chain(of_unreadable).chain(of_gone)
}

/// Records that the run had counted before and that the page has written again, because they changed meanwhile.
pub fn written_again<'a, R: Stored>(
    page: &PageCommit<'a, R>,
    written: &'a HashMap<i64, Written>,
) -> impl Iterator<Item = Discrepancy> + 'a {
    of_written(page.batch, written, true)
}

fn of_written<'a, R: Stored>(
    batch: &'a Batch<R>,
    written: &'a HashMap<i64, Written>,
    repeat: bool,
) -> impl Iterator<Item = Discrepancy> + 'a {
    batch.records.iter().filter(move |record| record.repeat == repeat).filter_map(move |record| {
        let (outcome, reason) = written.get(&record.record.id())?;
        Some(of_record(record, kind(*outcome)?, reason.clone()))
    })
}

/// The records that failed now, each with its error, and the previously failed ones that recovered.
pub fn failed_and_recovered<'a, R: Record>(
    batch: &'a Batch<R>,
    written: &'a HashMap<i64, Written>,
) -> (Vec<(i64, Option<&'a str>)>, Vec<i64>) {
    let unreadable = batch.unreadable.iter().chain(&batch.counted_already);
    let skipped = unreadable.filter_map(|bad| Some((bad.id?, Some(bad.reason.as_str()))));
    let failed = written.iter().filter(|(_, (outcome, _))| *outcome == Outcome::Failed);
    let failed = failed.map(|(id, (_, reason))| (*id, reason.as_deref()));
    let failed: Vec<_> = skipped.chain(failed).collect();
    let recovered =
        batch.recovered.iter().copied().filter(|id| failed.iter().all(|(failed, _)| failed != id)).collect();
    (failed, recovered)
}

fn kind(outcome: Outcome) -> Option<DiscrepancyKind> {
    match outcome {
        Outcome::Created => Some(DiscrepancyKind::Missing),
        Outcome::Updated => Some(DiscrepancyKind::Stale),
        Outcome::Failed => Some(DiscrepancyKind::Failed),
        Outcome::Skipped => Some(DiscrepancyKind::Skipped),
        Outcome::Unchanged => None,
    }
}

fn of_record<R: Stored>(record: &AssessedRecord<R>, kind: DiscrepancyKind, reason: Option<String>) -> Discrepancy {
    let fields = match &record.decision {
        Decision::Update { fields } => fields.iter().map(ToString::to_string).collect(),
        Decision::Restore => vec!["restored".to_owned()],
        Decision::Create | Decision::NewerLocally | Decision::Unchanged | Decision::Adopt => Vec::new(),
    };
    let changes = if kind == DiscrepancyKind::Stale { changes(record, &fields) } else { Vec::new() };
    Discrepancy {
        resource: R::RESOURCE,
        salla_id: Some(record.record.id()),
        kind,
        local_updated_at: record.stored.as_ref().and_then(|stored| stored.updated_at),
        remote_updated_at: record.record.updated_at(),
        fields,
        changes,
        reason,
        backfill: false,
    }
}

/// The values of the columns that differed, without personal data.
fn changes<R: Stored>(record: &AssessedRecord<R>, fields: &[String]) -> Vec<FieldChange> {
    let Some(stored) = &record.stored else {
        return Vec::new();
    };
    let mut changes = record.record.columns().changes(&stored.columns);
    changes.retain(|change| fields.contains(&change.field));
    without_personal_data::<R>(changes)
}

/// The values of columns without those of personal data.
pub fn without_personal_data<R: Stored>(mut changes: Vec<FieldChange>) -> Vec<FieldChange> {
    let is_personal = |field: &str| R::PERSONAL.iter().any(|column| column.as_str() == field);
    changes.retain(|change| !is_personal(&change.field));
    changes
}

/// A stored record that is deleted in Salla and was not marked.
fn of_gone<R: Record>(id: i64, local_updated_at: Option<DateTime<Utc>>) -> Discrepancy {
    Discrepancy {
        resource: R::RESOURCE,
        salla_id: Some(id),
        kind: DiscrepancyKind::Stale,
        local_updated_at,
        remote_updated_at: None,
        fields: vec!["deleted_at".to_owned()],
        changes: Vec::new(),
        reason: None,
        backfill: false,
    }
}

fn of_unreadable<R: Record>(bad: &Unreadable, kind: DiscrepancyKind) -> Discrepancy {
    Discrepancy {
        resource: R::RESOURCE,
        salla_id: bad.id,
        kind,
        local_updated_at: None,
        remote_updated_at: None,
        fields: Some(bad.path.clone()).filter(|path| !path.is_empty()).into_iter().collect(),
        changes: Vec::new(),
        reason: Some(bad.to_string()),
        backfill: false,
    }
}

/// The row of a discrepancy that a run found.
pub fn row(lease: &Lease, found: &Discrepancy) -> discrepancy::ActiveModel {
    discrepancy::ActiveModel {
        id: NotSet,
        run_id: Set(lease.run_id),
        merchant_id: Set(lease.merchant.0),
        resource: Set(found.resource.as_str().to_owned()),
        salla_id: Set(found.salla_id),
        kind: Set(found.kind.as_str().to_owned()),
        local_updated_at: Set(found.local_updated_at.map(Stamp)),
        remote_updated_at: Set(found.remote_updated_at.map(Stamp)),
        fields: Set(serde_json::json!(found.fields).to_string()),
        changes: Set(serde_json::json!(found.changes).to_string()),
        reason: Set(found.reason.clone()),
        backfill: Set(found.backfill),
        found_at: NotSet,
    }
}
