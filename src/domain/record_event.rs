//! Events about single records, for programs that act on changes whose webhook was lost.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Discrepancy, DiscrepancyKind, FieldChange, MerchantId, Resource, RunId, words::words};

words! {
    /// How much events tell.
    EventDetail ("kind of events") {
        /// One event for each run that ended `succeeded` or `partial`.
        Run = "run",
        /// Also one event for each record that the run wrote, before the event of the run.
        Record = "record",
    }
}

words! {
    /// What a run did with a record.
    RecordChange ("change of a record") {
        /// It was missing.
        Created = "created",
        /// It was stale.
        Updated = "updated",
        /// It is deleted in Salla, and was not marked.
        Deleted = "deleted",
    }
}

impl RecordChange {
    /// What a run did about a discrepancy; `None` if it could not correct it.
    #[must_use]
    pub fn of(found: &Discrepancy) -> Option<Self> {
        match found.kind {
            DiscrepancyKind::Missing => Some(Self::Created),
            DiscrepancyKind::Stale if found.is_deletion() => Some(Self::Deleted),
            DiscrepancyKind::Stale => Some(Self::Updated),
            DiscrepancyKind::Skipped | DiscrepancyKind::Failed => None,
        }
    }
}

/// The data of an event about a record.
#[derive(Debug, Serialize)]
pub struct RecordEvent<'a> {
    /// The run that wrote it.
    pub run_id: RunId,
    /// The merchant.
    pub merchant_id: MerchantId,
    /// The kind of record.
    pub resource: Resource,
    /// Salla's id.
    pub salla_id: i64,
    /// What the run did.
    pub kind: RecordChange,
    /// Which columns differed; none of a record that was missing.
    pub fields: &'a [String],
    /// The values of columns, without payload and personal data. Of a record that was missing, all that it has.
    pub changes: &'a [FieldChange],
    /// The version in Salla; absent for a deletion.
    pub salla_updated_at: Option<DateTime<Utc>>,
    /// The record does not stand for a lost webhook.
    pub backfill: bool,
}
