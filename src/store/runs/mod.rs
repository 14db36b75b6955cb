//! The runs: the queue, claims and leases, the commit of a page, and the end.

pub mod claim;
pub mod commit;
pub mod fence;
pub mod finish;
pub mod idempotency;
pub mod lease;
pub mod queue;
pub mod queue_position;
pub mod release;
pub mod schedule;
pub mod unrecorded_waits;
pub mod write_records;

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::Store;
use crate::{
    domain::{Run, RunId, Wait},
    reconcile::ports::{
        Actor, ClaimedRuns, DatabaseError, EndedSweep, EnqueueOutcome, GlobalPause, Lease, NewRun, RecordedSweep,
        Released, RunOutcome, RunQueue, ScheduleStore, StartOutcome, SweepDecision,
    },
};

impl RunQueue for Store {
    async fn enqueue(&self, run: NewRun) -> Result<EnqueueOutcome, DatabaseError> {
        Self::enqueue(self, run).await
    }

    async fn start(&self, run: NewRun) -> Result<StartOutcome, DatabaseError> {
        Self::start(self, run).await
    }

    async fn claim(&self, limit: u32) -> Result<ClaimedRuns, DatabaseError> {
        Self::claim(self, limit).await
    }

    async fn global_pause(&self) -> Result<Option<GlobalPause>, DatabaseError> {
        self.call(|| self.find_global_pause(&self.db)).await
    }

    async fn renew_leases(&self, held: &[Lease]) -> Result<Vec<Lease>, DatabaseError> {
        Self::renew_leases(self, held).await
    }

    async fn finish(&self, lease: &Lease, ending: RunOutcome) -> Result<Run, DatabaseError> {
        Self::finish(self, lease, ending).await
    }

    async fn release(&self, lease: &Lease, pause: Duration, wait: Option<&Wait>) -> Result<Released, DatabaseError> {
        self.release_run(lease, pause, wait, false).await
    }

    async fn release_after_failure(
        &self,
        lease: &Lease,
        pause: Duration,
        wait: Option<&Wait>,
    ) -> Result<Released, DatabaseError> {
        self.release_run(lease, pause, wait, true).await
    }

    async fn note_wait(&self, lease: &Lease, wait: Option<(&Wait, Duration)>) -> Result<(), DatabaseError> {
        Self::note_wait(self, lease, wait).await
    }

    async fn yield_run(&self, lease: &Lease) -> Result<bool, DatabaseError> {
        Self::yield_run(self, lease).await
    }

    async fn cancel(&self, run: RunId, by: &Actor) -> Result<Option<bool>, DatabaseError> {
        Self::cancel(self, run, by).await
    }
}

impl ScheduleStore for Store {
    async fn last_sweep(&self, cron: &str) -> Result<Option<DateTime<Utc>>, DatabaseError> {
        Self::last_sweep(self, cron).await
    }

    async fn record_sweep(
        &self,
        scheduled_for: DateTime<Utc>,
        cron: &str,
        decision: SweepDecision,
    ) -> Result<Option<RecordedSweep>, DatabaseError> {
        Self::record_sweep(self, scheduled_for, cron, decision).await
    }

    async fn enqueue_deferred(&self) -> Result<RecordedSweep, DatabaseError> {
        Self::enqueue_deferred(self).await
    }

    async fn ended_sweeps(&self) -> Result<Vec<EndedSweep>, DatabaseError> {
        Self::ended_sweeps(self).await
    }

    async fn now(&self) -> Result<DateTime<Utc>, DatabaseError> {
        self.call(|| self.database_now(&self.db)).await
    }
}
