//! The schemas of merchants and of the report.

use std::{borrow::Cow, collections::BTreeMap};

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use crate::domain::{
    BackfilledRecords, Drift, EndedRuns, Lateness, Merchant, MerchantId, MerchantState, Period, Resource,
};

described! {
    Merchant as MerchantSchema,
    Period as PeriodSchema,
    EndedRuns as EndedRunsSchema,
    Lateness as LatenessSchema,
    BackfilledRecords as BackfilledRecordsSchema,
    Drift as DriftSchema,
}

/// A registered merchant, without its tokens.
#[derive(Serialize, ToSchema)]
#[schema(as = Merchant)]
struct MerchantSchema {
    /// Merchant id.
    merchant_id: MerchantId,
    /// Name of the merchant.
    name: Option<String>,
    /// State of the merchant.
    state: MerchantState,
    /// Every change before this instant is covered, for every kind of record. Older records are covered only after a
    /// full run.
    watermark: Option<DateTime<Utc>>,
    /// Watermark by kind of record.
    watermarks: BTreeMap<Resource, DateTime<Utc>>,
}

/// A half-open interval `[since, until)`. It contains the runs that ended in it.
#[derive(Serialize, ToSchema)]
#[schema(as = Period)]
struct PeriodSchema {
    /// First instant of the period.
    since: DateTime<Utc>,
    /// First instant after the period.
    until: DateTime<Utc>,
}

/// Number of ended runs by status.
#[derive(Serialize, ToSchema)]
#[schema(as = EndedRuns)]
struct EndedRunsSchema {
    /// Every record in the window is the same as in Salla.
    succeeded: u64,
    /// Ended with skipped or failed records.
    partial: u64,
    /// Ended early with an error.
    failed: u64,
    /// Ended by a person.
    cancelled: u64,
}

/// Delay between change and correction. Each record counts once, in the smallest range.
#[derive(Serialize, ToSchema)]
#[schema(as = Lateness)]
struct LatenessSchema {
    /// Up to one hour. These webhooks may still have been in transit.
    within_1h: u64,
    /// Up to one day.
    within_24h: u64,
    /// Up to one week.
    within_7d: u64,
    /// Longer than one week.
    longer: u64,
    /// Longest delay in seconds; absent without a delay.
    max_seconds: Option<u64>,
    /// Median delay in seconds; the later of two middle values.
    median_seconds: Option<u64>,
}

/// Corrected records that do not count as drift.
#[derive(Serialize, ToSchema)]
#[schema(as = BackfilledRecords)]
struct BackfilledRecordsSchema {
    /// Records that were not stored.
    missing: u64,
    /// Records that were stored in an older version or with other content.
    stale: u64,
}

/// Drift of one merchant over a period. Dry runs do not count. A version that several runs found counts once.
#[derive(Serialize, ToSchema)]
#[schema(as = Drift)]
struct DriftSchema {
    /// The merchant.
    merchant_id: MerchantId,
    /// Name of the merchant.
    name: Option<String>,
    /// The period.
    period: Period,
    /// Ended runs of the period.
    runs: EndedRuns,
    /// Records that were not stored.
    missing: u64,
    /// Records that were stored in an older version or with other content.
    stale: u64,
    /// Part of `stale`: records that are deleted in Salla and were not marked (`deleted_at` in the fields).
    deleted: u64,
    /// Records in the right version with another spelling of the payload. No webhook was lost.
    rewritten: u64,
    /// Records that do not stand for a lost webhook. The first run of a target, a full run, or a
    /// run over a window before the registration found them.
    backfilled: BackfilledRecords,
    /// Records that could not be read.
    skipped: u64,
    /// Records that could not be fetched or written, and were not later.
    failed: u64,
    /// Number of stale records by column that differed.
    fields: BTreeMap<String, u64>,
    /// Number of lost webhooks by event.
    lost_webhooks: BTreeMap<String, u64>,
    /// Delay of the corrections of missing and stale records.
    lateness: Lateness,
}
