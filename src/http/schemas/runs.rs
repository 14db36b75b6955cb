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
    Discrepancy, DiscrepancyKind, Failure, FailureKind, Found, Listing, MerchantId, Resource, ResourceRun,
    RotationWindow, Run, RunStatus, Totals, Trigger, WaitReason, Waiting, Window,
};

described! {
    Window as WindowSchema,
    RotationWindow as RotationWindowSchema,
    Totals as TotalsSchema,
    Run as RunSchema,
    Failure as FailureSchema,
    Waiting as WaitingSchema,
    ResourceRun as ResourceRunSchema,
    Discrepancy as DiscrepancySchema,
    Found as FoundSchema,
}

/// A half-open span `[since, until)` of UTC instants.
#[derive(Serialize, ToSchema)]
#[schema(as = Window)]
struct WindowSchema {
    /// The first instant that is covered.
    since: DateTime<Utc>,
    /// The first instant that is not.
    until: DateTime<Utc>,
}

/// What was created from one instant to another. Night by night the next one is read, and after the last the first again.
#[derive(Serialize, ToSchema)]
#[schema(as = RotationWindow)]
struct RotationWindowSchema {
    /// At or after; absent: from the beginning.
    from: Option<DateTime<Utc>>,
    /// Before; absent: to the end.
    to: Option<DateTime<Utc>>,
}

/// Distinct records by what became of them. `fetched` is always the sum of the others.
#[derive(Serialize, ToSchema)]
#[schema(as = Totals)]
struct TotalsSchema {
    /// Distinct records read.
    fetched: u64,
    /// Were missing.
    created: u64,
    /// Were stale.
    updated: u64,
    /// Were as new or newer.
    unchanged: u64,
    /// Could not be transformed.
    skipped: u64,
    /// Could not be written, or Salla's answer fails whenever it holds the record.
    failed: u64,
    /// Part of `unchanged`: stored rows that are newer than Salla's and differ from them.
    #[serde(default)]
    newer_locally: u64,
}

/// A run as the ledger shows it.
#[derive(Serialize, ToSchema)]
#[schema(as = Run)]
struct RunSchema {
    /// Its id.
    run_id: Uuid,
    /// The merchant.
    merchant_id: MerchantId,
    /// Where it stands.
    status: RunStatus,
    /// Who asked for it.
    trigger: Trigger,
    /// How its records were found, those of its first kind; absent until it begins.
    listing: Option<Listing>,
    /// Nothing is written by it.
    dry_run: bool,
    /// What it covers; absent until it begins.
    window: Option<Window>,
    /// What it counted so far, of all kinds together.
    totals: Totals,
    /// The result of each kind of record, in this order; empty until it begins, unless the kinds were asked for.
    resource_results: Vec<ResourceRun>,
    /// Requests sent to Salla so far.
    requests: u64,
    /// Why it failed.
    error: Option<Failure>,
    /// What it waits for, while it is queued or running.
    waiting: Option<Waiting>,
    /// When it was asked for.
    queued_at: DateTime<Utc>,
    /// When a worker first took it.
    started_at: Option<DateTime<Utc>>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
}

/// Why a run did not succeed.
#[derive(Serialize, ToSchema)]
#[schema(as = Failure)]
struct FailureSchema {
    /// One word.
    kind: FailureKind,
    /// One sentence for the person on call, with what to do.
    message: String,
}

/// What a queued or running run waits for.
#[derive(Serialize, ToSchema)]
#[schema(as = Waiting)]
struct WaitingSchema {
    /// One word.
    reason: WaitReason,
    /// One sentence for the person on call.
    message: String,
    /// When it is tried again, at the earliest.
    until: DateTime<Utc>,
    /// How often it has waited since its last progress.
    attempts: u32,
}

/// A run's work at one kind of record. A run goes through its parts one after the other.
#[derive(Serialize, ToSchema)]
#[schema(as = ResourceRun)]
struct ResourceRunSchema {
    /// Which kind.
    resource: Resource,
    /// Where it stands. In a run that has ended, `cancelled`: it was stopped, or not come to.
    status: RunStatus,
    /// How its records were found; absent until it begins.
    listing: Option<Listing>,
    /// What it covers; absent until the run begins.
    window: Option<Window>,
    /// With the listing `rotation`: which part of the older records was read beside what is new; the next run that covers
    /// the store reads the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slice: Option<RotationWindow>,
    /// What Salla's clock showed when its list began to be read: what changed up to then is covered. Absent until it
    /// begins, and where Salla's answers carry no date.
    observed_at: Option<DateTime<Utc>>,
    /// Records that could not be read and whose ids are not known. They cannot be asked for again, so the watermark does
    /// not move past them.
    #[serde(default)]
    unidentified: u32,
    /// What it counted so far.
    totals: Totals,
    /// Why it failed, though the run went on.
    error: Option<Failure>,
}

/// One record that was not as Salla has it.
#[derive(Serialize, ToSchema)]
#[schema(as = Discrepancy)]
struct DiscrepancySchema {
    /// The record's kind.
    resource: Resource,
    /// Salla's id; absent when a record came without one.
    salla_id: Option<i64>,
    /// What was wrong.
    kind: DiscrepancyKind,
    /// The version that was held.
    local_updated_at: Option<DateTime<Utc>>,
    /// The version that Salla has.
    remote_updated_at: Option<DateTime<Utc>>,
    /// Which columns differed.
    fields: Vec<String>,
    /// Why it was skipped or failed.
    reason: Option<String>,
}

/// A discrepancy as the ledger shows it.
#[derive(Serialize, ToSchema)]
#[schema(as = Found)]
struct FoundSchema {
    /// What was wrong.
    #[serde(flatten)]
    discrepancy: Discrepancy,
    /// When the run found it.
    found_at: DateTime<Utc>,
    /// How long Salla's version had not been here by then, in whole seconds; absent where that version is unknown.
    late_seconds: Option<u64>,
}
