//! The schemas of runs and what they find.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};
use uuid::Uuid;

use crate::domain::{
    Backfilled, Discrepancy, DiscrepancyKind, Failure, FailureKind, FieldChange, Found, Listing, ListingViolation,
    MerchantId, Resource, ResourceRun, RotationWindow, Run, RunStatus, SortedList, Totals, Trigger, WaitReason,
    Waiting, Window,
};

described! {
    Window as WindowSchema,
    RotationWindow as RotationWindowSchema,
    SortedList as SortedListSchema,
    Totals as TotalsSchema,
    Backfilled as BackfilledSchema,
    Run as RunSchema,
    Failure as FailureSchema,
    Waiting as WaitingSchema,
    ResourceRun as ResourceRunSchema,
    FieldChange as FieldChangeSchema,
    Discrepancy as DiscrepancySchema,
    Found as FoundSchema,
}

/// A half-open interval `[since, until)` in UTC.
#[derive(Serialize, ToSchema)]
#[schema(as = Window)]
struct WindowSchema {
    /// First instant of the window.
    since: DateTime<Utc>,
    /// First instant after the window.
    until: DateTime<Utc>,
}

/// Records by time of creation. Each night reads the next part, and the first part after the last.
#[derive(Serialize, ToSchema)]
#[schema(as = RotationWindow)]
struct RotationWindowSchema {
    /// Start; absent: from the beginning.
    from: Option<DateTime<Utc>>,
    /// End; absent: to the end.
    to: Option<DateTime<Utc>>,
}

/// State of a list that is sorted by time of change.
#[derive(Serialize, ToSchema)]
#[schema(as = SortedList)]
struct SortedListSchema {
    /// Every change of `updated_at` before this time was read.
    watermark: Option<DateTime<Utc>>,
    /// Nights left on which the whole list is scanned, because the list was found unreliable.
    scan_nights: u16,
    /// Scan nights after the next list that is not sorted.
    next_penalty: u16,
    /// What this run found wrong with the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    violation: Option<ListingViolation>,
    /// Time of the last violation, or of the week without one that halved `next_penalty`.
    violated_at: Option<DateTime<Utc>>,
    /// Time of the last missed change.
    missed_at: Option<DateTime<Utc>>,
    /// No change was missed since this time.
    reliable_since: Option<DateTime<Utc>>,
}

/// Distinct records by outcome. `fetched` is the sum of created, updated, unchanged, skipped and failed.
#[derive(Serialize, ToSchema)]
#[schema(as = Totals)]
struct TotalsSchema {
    /// Distinct records read.
    fetched: u64,
    /// Missing records that were created.
    created: u64,
    /// Stale records that were updated.
    updated: u64,
    /// Stored records that are as new or newer.
    unchanged: u64,
    /// Records that could not be read.
    skipped: u64,
    /// Records that could not be fetched or written.
    failed: u64,
    /// Part of `unchanged`: stored records that are newer than in Salla and differ.
    #[serde(default)]
    newer_locally: u64,
    /// Part of `created` and `updated`: records that do not count as drift.
    #[serde(default)]
    backfilled: Backfilled,
}

/// Corrected records that do not count as drift. The first run of a target found them, a full run, or a run over a window
/// before the registration.
#[derive(Serialize, ToSchema)]
#[schema(as = Backfilled)]
struct BackfilledSchema {
    /// Part of `created`.
    created: u64,
    /// Part of `updated`.
    updated: u64,
}

/// A run.
#[derive(Serialize, ToSchema)]
#[schema(as = Run)]
struct RunSchema {
    /// Run id.
    run_id: Uuid,
    /// The merchant.
    merchant_id: MerchantId,
    /// Status.
    status: RunStatus,
    /// Trigger.
    trigger: Trigger,
    /// Listing of the first kind of record; `null` until the run starts.
    listing: Option<Listing>,
    /// The run writes no record.
    dry_run: bool,
    /// Window; `null` until the run starts.
    window: Option<Window>,
    /// Totals so far, of all kinds of record.
    totals: Totals,
    /// Result of each kind of record; empty until the run starts, unless the request named the kinds.
    resource_results: Vec<ResourceRun>,
    /// Requests to Salla so far.
    requests: u64,
    /// Error of a failed run.
    error: Option<Failure>,
    /// Reason for waiting, while the run is queued or running.
    waiting: Option<Waiting>,
    /// Time at which it was queued.
    queued_at: DateTime<Utc>,
    /// Time of the first claim.
    started_at: Option<DateTime<Utc>>,
    /// Time of the end.
    finished_at: Option<DateTime<Utc>>,
}

/// Error of a run.
#[derive(Serialize, ToSchema)]
#[schema(as = Failure)]
struct FailureSchema {
    /// Kind.
    kind: FailureKind,
    /// Message for people, with the next step.
    message: String,
}

/// Reason for which a queued or running run waits.
#[derive(Serialize, ToSchema)]
#[schema(as = Waiting)]
struct WaitingSchema {
    /// Kind.
    reason: WaitReason,
    /// Message for people.
    message: String,
    /// Earliest time of the next attempt.
    until: DateTime<Utc>,
    /// Attempts since the last page.
    attempts: u32,
}

/// Result of a run for one kind of record.
#[derive(Serialize, ToSchema)]
#[schema(as = ResourceRun)]
struct ResourceRunSchema {
    /// Kind of record.
    resource: Resource,
    /// Status. `cancelled` in an ended run: it was stopped, or not reached.
    status: RunStatus,
    /// Listing; `null` until it starts.
    listing: Option<Listing>,
    /// Window; `null` until the run starts.
    window: Option<Window>,
    /// Listings `rotation` and `sort`: the part of the older records that was read besides. The next run reads the next part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slice: Option<RotationWindow>,
    /// State of the sorted list after this run. Absent if the list was not considered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sorted_list: Option<SortedList>,
    /// Salla's clock at the first answer. Changes before are covered. `null` until it starts, or without `Date`.
    observed_at: Option<DateTime<Utc>>,
    /// Records that could not be read and have no known id. They hold the watermark.
    #[serde(default)]
    unidentified: u32,
    /// Totals so far.
    totals: Totals,
    /// Error of this kind of record. The run continued with the next kind.
    error: Option<Failure>,
}

/// A column with its value before and after a correction.
#[derive(Serialize, ToSchema)]
#[schema(as = FieldChange)]
struct FieldChangeSchema {
    /// Column.
    field: String,
    /// Value that was stored, as text; null if it was not set.
    before: Option<String>,
    /// Value in Salla, as text; null if it is not set.
    after: Option<String>,
}

/// A record that differed from Salla.
#[derive(Serialize, ToSchema)]
#[schema(as = Discrepancy)]
struct DiscrepancySchema {
    /// Kind of record.
    resource: Resource,
    /// Salla's id of the record; absent if it has none.
    salla_id: Option<i64>,
    /// Kind of the discrepancy.
    kind: DiscrepancyKind,
    /// Version of the stored record.
    local_updated_at: Option<DateTime<Utc>>,
    /// Version in Salla.
    remote_updated_at: Option<DateTime<Utc>>,
    /// Columns that differed.
    fields: Vec<String>,
    /// Values of these columns, without payload and personal data.
    changes: Vec<FieldChange>,
    /// Reason for `skipped` and `failed`.
    reason: Option<String>,
    /// It does not count as drift. The first run of a target, a full run, or a run over a window
    /// before the registration found it.
    backfill: bool,
}

/// A discrepancy of a run.
#[derive(Serialize, ToSchema)]
#[schema(as = Found)]
struct FoundSchema {
    /// Kind of the discrepancy.
    #[serde(flatten)]
    discrepancy: Discrepancy,
    /// Time at which the run found it.
    found_at: DateTime<Utc>,
    /// Seconds between the change in Salla and `found_at`; absent for backfill, and if the version in Salla is unknown.
    late_seconds: Option<u64>,
}
