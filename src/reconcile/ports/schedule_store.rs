//! Firings of the schedule, and the sweeps that they begin.

use std::{future::Future, time::Duration};

use super::DatabaseError;

use chrono::{DateTime, Utc};

use crate::domain::{MerchantId, RunStatus, Totals, Trigger};

/// A sweep of the schedule, with the decision about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepDecision {
    /// Make a run for every active merchant, each at its own offset within `spread`.
    Run {
        /// Whether it is on time or made up for.
        trigger: Trigger,
        /// Over how long the runs are spread.
        spread: Duration,
    },
    /// Too old to make up for, or outlived by a later one: only recorded.
    Skip,
    /// The schedule began: nothing before this instant is missed.
    Begin,
}

/// The outcome of a sweep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordedSweep {
    /// Runs that were made.
    pub runs: u64,
    /// Merchants whose rows were locked: their runs are queued later.
    pub locked: Vec<MerchantId>,
    /// Merchants that had a scheduled run in the queue, which covers the window of this one too.
    pub already_queued: Vec<MerchantId>,
}

/// A sweep whose runs have all ended.
#[derive(Debug, Clone)]
pub struct EndedSweep {
    /// When it was due.
    pub scheduled_for: DateTime<Utc>,
    /// The time from the start of the sweep to the end of its last run.
    pub took: Duration,
    /// For each final status: how many runs ended with it, and their totals.
    pub runs: Vec<(RunStatus, u64, Totals)>,
    /// Merchants that got no run of it, for they had a scheduled run in the queue.
    pub already_queued: u64,
}

/// The sweeps of the schedule, on record.
pub trait ScheduleStore: Send + Sync + Clone + 'static {
    /// The newest sweep of the schedule `cron`.
    fn last_sweep(&self, cron: &str) -> impl Future<Output = Result<Option<DateTime<Utc>>, DatabaseError>> + Send;

    /// Records a sweep and enqueues its runs, in one transaction; `None` when another process did.
    fn record_sweep(
        &self,
        scheduled_for: DateTime<Utc>,
        cron: &str,
        decision: SweepDecision,
    ) -> impl Future<Output = Result<Option<RecordedSweep>, DatabaseError>> + Send;

    /// Enqueues the runs of earlier sweeps whose merchants another session had locked.
    fn enqueue_deferred(&self) -> impl Future<Output = Result<RecordedSweep, DatabaseError>> + Send;

    /// The sweeps whose last run has ended, each returned to one caller only.
    fn ended_sweeps(&self) -> impl Future<Output = Result<Vec<EndedSweep>, DatabaseError>> + Send;

    /// The database's clock.
    fn now(&self) -> impl Future<Output = Result<DateTime<Utc>, DatabaseError>> + Send;
}
