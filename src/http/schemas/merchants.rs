//! The schemas of merchants and of the report.

use std::{borrow::Cow, collections::BTreeMap};

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use crate::domain::{Drift, EndedRuns, Lateness, Merchant, MerchantId, MerchantState, Period, Resource};

described! {
    Merchant as MerchantSchema,
    Period as PeriodSchema,
    EndedRuns as EndedRunsSchema,
    Lateness as LatenessSchema,
    Drift as DriftSchema,
}

/// A store in the register. Its tokens live elsewhere, encrypted.
#[derive(Serialize, ToSchema)]
#[schema(as = Merchant)]
struct MerchantSchema {
    /// Salla's id of the store.
    merchant_id: MerchantId,
    /// The store's name, for people.
    name: Option<String>,
    /// Whether sweeps cover it.
    state: MerchantState,
    /// Everything that Salla changed before this instant has been read back, of every kind of record that ever was: since
    /// the store was registered, and what it had before if a run took the whole history.
    watermark: Option<DateTime<Utc>>,
    /// The same, by kind of record.
    watermarks: BTreeMap<Resource, DateTime<Utc>>,
}

/// A half-open span `[since, until)`. A run lies in it when it ended in it, and with the run all that it found.
#[derive(Serialize, ToSchema)]
#[schema(as = Period)]
struct PeriodSchema {
    /// The first instant that counts.
    since: DateTime<Utc>,
    /// The first instant that does not.
    until: DateTime<Utc>,
}

/// The runs that ended, by how they did.
#[derive(Serialize, ToSchema)]
#[schema(as = EndedRuns)]
struct EndedRunsSchema {
    /// Every record is as Salla has it.
    succeeded: u64,
    /// With skipped or failed records.
    partial: u64,
    /// Given up.
    failed: u64,
    /// Stopped by a person.
    cancelled: u64,
}

/// How long orders had been wrong here when they were found and corrected. Each counts once, in the narrowest
/// span that holds it.
#[derive(Serialize, ToSchema)]
#[schema(as = Lateness)]
struct LatenessSchema {
    /// Up to an hour: these webhooks may still have been on their way.
    within_1h: u64,
    /// Up to a day.
    within_24h: u64,
    /// Up to a week.
    within_7d: u64,
    /// Longer than that.
    longer: u64,
    /// The longest; absent when nothing was late.
    max_seconds: Option<u64>,
    /// The middle one, the later of the two where there are two.
    median_seconds: Option<u64>,
}

/// What runs found of one merchant over a period. A dry run does not count, and a record that several runs
/// found wrong in the same version of Salla's counts once.
#[derive(Serialize, ToSchema)]
#[schema(as = Drift)]
struct DriftSchema {
    /// The merchant.
    merchant_id: MerchantId,
    /// The store's name, for people.
    name: Option<String>,
    /// Over which period.
    period: Period,
    /// The runs that looked.
    runs: EndedRuns,
    /// Records that were not held.
    missing: u64,
    /// Records of which an older version or another content was held.
    stale: u64,
    /// Those of the stale that Salla says are gone, and were held as if they were there: with `deleted_at` among the
    /// fields.
    deleted: u64,
    /// Records that were held in the right version and in another writer's spelling; no webhook was lost.
    rewritten: u64,
    /// Records that could not be transformed.
    skipped: u64,
    /// Records that could not be written, and were not later.
    failed: u64,
    /// How often each column differed, among the stale.
    fields: BTreeMap<String, u64>,
    /// How many of Salla's webhooks must have been lost, by the event's name.
    lost_webhooks: BTreeMap<String, u64>,
    /// How late the missing and the stale were corrected.
    lateness: Lateness,
}
