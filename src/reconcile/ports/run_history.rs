//! What people and scrapes read of runs.

use std::{future::Future, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Audited, Backlog, DatabaseError, NotReady};
use crate::domain::{Drift, Found, Merchant, MerchantId, MerchantState, Period, Run, RunId, RunStatus};

/// Which runs to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunFilter {
    /// Of this merchant.
    pub merchant: Option<MerchantId>,
    /// With this status.
    pub status: Option<RunStatus>,
    /// Older than this one.
    pub before: Option<RunId>,
    /// The maximum number of entries.
    pub limit: u64,
}

/// The merchant and the period of the drift.
#[derive(Debug, Clone, Copy)]
pub struct DriftFilter {
    /// Of this merchant.
    pub merchant: Option<MerchantId>,
    /// Found by the runs that ended in it.
    pub period: Period,
}

/// A record that drifted and was corrected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CorrectedRecord {
    /// Its place in the list of all.
    #[serde(skip)]
    pub id: i64,
    /// The merchant.
    pub merchant_id: MerchantId,
    /// The run that corrected it.
    pub run_id: RunId,
    /// The discrepancy.
    #[serde(flatten)]
    pub found: Found,
}

/// How many runs are removed at once.
pub const PRUNE_BATCH: u64 = 1000;

/// What the scrape shows of the database.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// Runs that a worker holds.
    pub runs_active: u64,
    /// Runs that wait.
    pub runs_queued: u64,
    /// Of those, the ones whose time has come.
    pub runs_due: u64,
    /// Merchants by state.
    pub merchants: Vec<(MerchantState, u64)>,
    /// Active merchants that nothing has covered for longer than a day and two hours.
    pub merchants_overdue: u64,
    /// The newest end of a run that succeeded.
    pub last_success: Option<DateTime<Utc>>,
    /// The watermark that lies furthest back, of the active merchants.
    pub oldest_watermark: Option<DateTime<Utc>>,
    /// The latest sweep that was not skipped, or the first start of the schedule.
    pub last_sweep: Option<DateTime<Utc>>,
    /// All merchants are paused.
    pub global_pause: bool,
    /// The events that are to be delivered; `None`: no events are sent.
    pub backlog: Option<Backlog>,
}

/// The runs that were, and what they found.
pub trait RunHistory: Send + Sync + Clone + 'static {
    /// The runs that match, newest first.
    fn runs(&self, filter: RunFilter) -> impl Future<Output = Result<Vec<Run>, DatabaseError>> + Send;

    /// One run.
    fn run(&self, id: RunId) -> impl Future<Output = Result<Option<Run>, DatabaseError>> + Send;

    /// The discrepancies of one run, in the order in which they were found. Skips `skip` of them, and returns at most
    /// `limit`.
    fn discrepancies(
        &self,
        id: RunId,
        skip: u64,
        limit: u64,
    ) -> impl Future<Output = Result<Vec<Found>, DatabaseError>> + Send;

    /// The drift of each merchant with a run in the period: the largest drift first, then by id.
    fn drift(&self, filter: DriftFilter) -> impl Future<Output = Result<Vec<Drift>, DatabaseError>> + Send;

    /// Returns the records that the runs of a period corrected, without backfill, in the order in
    /// which they were found. It returns at most `limit` records behind the place `after`.
    fn corrected_records(
        &self,
        filter: DriftFilter,
        after: i64,
        limit: u64,
    ) -> impl Future<Output = Result<Vec<CorrectedRecord>, DatabaseError>> + Send;

    /// The entries of the audit that are older than the entry `before`, newest first, at most `limit`.
    fn audit(
        &self,
        before: Option<i64>,
        limit: u64,
    ) -> impl Future<Output = Result<Vec<Audited>, DatabaseError>> + Send;

    /// The register.
    fn merchants(&self) -> impl Future<Output = Result<Vec<Merchant>, DatabaseError>> + Send;

    /// What the scrape shows.
    fn gauges(&self) -> impl Future<Output = Result<Gauges, DatabaseError>> + Send;

    /// Whether the database answers and has this version's schema; the error says what is wrong.
    fn ready(&self) -> impl Future<Output = Result<(), NotReady>> + Send;

    /// Removes some ended runs older than `keep`, with their discrepancies, and returns their number. If it is less
    /// than [`PRUNE_BATCH`], all of them are removed.
    fn prune(&self, keep: Duration) -> impl Future<Output = Result<u64, DatabaseError>> + Send;
}
