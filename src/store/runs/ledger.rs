//! The ledger's contract, met by the files beside this one.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{
    domain::{Drift, Found, Merchant, Run, RunId, Wait},
    reconcile::ports::{
        Actor, Audited, ClaimedRuns, DriftFilter, EndedSweep, EnqueueOutcome, Gauges, GlobalPause, Lease, Ledger,
        NewRun, NotReady, RecordedSweep, Released, RunFilter, RunOutcome, StartOutcome, SweepDecision, TargetError,
    },
    store::Store,
};

impl Ledger for Store {
    async fn enqueue(&self, run: NewRun) -> Result<EnqueueOutcome, TargetError> {
        self.put(run).await
    }

    async fn begin(&self, run: NewRun) -> Result<StartOutcome, TargetError> {
        self.start(run).await
    }

    async fn claim(&self, limit: u32) -> Result<ClaimedRuns, TargetError> {
        self.take(limit).await
    }

    async fn global_pause(&self) -> Result<Option<GlobalPause>, TargetError> {
        self.call(|| self.find_global_pause(&self.db)).await
    }

    async fn heartbeat(&self, held: &[Lease]) -> Result<Vec<Lease>, TargetError> {
        self.renew(held).await
    }

    async fn finish(&self, lease: &Lease, ending: RunOutcome) -> Result<Run, TargetError> {
        self.end(lease, ending).await
    }

    async fn release(&self, lease: &Lease, pause: Duration, wait: Option<&Wait>) -> Result<Released, TargetError> {
        self.give_back(lease, (pause, wait), false).await
    }

    async fn release_after_failure(
        &self,
        lease: &Lease,
        pause: Duration,
        wait: Option<&Wait>,
    ) -> Result<Released, TargetError> {
        self.give_back(lease, (pause, wait), true).await
    }

    async fn note_wait(&self, lease: &Lease, wait: Option<(&Wait, Duration)>) -> Result<(), TargetError> {
        self.show_wait(lease, wait).await
    }

    async fn fire_deferred(&self) -> Result<RecordedSweep, TargetError> {
        self.make_deferred_runs().await
    }

    async fn make_way(&self, lease: &Lease) -> Result<bool, TargetError> {
        self.give_up_turn(lease).await
    }

    async fn cancel(&self, run: RunId, by: &Actor) -> Result<Option<bool>, TargetError> {
        self.ask_to_cancel(run, by).await
    }

    async fn last_sweep(&self, cron: &str) -> Result<Option<DateTime<Utc>>, TargetError> {
        self.newest_sweep(cron).await
    }

    async fn record_sweep(
        &self,
        scheduled_for: DateTime<Utc>,
        cron: &str,
        decision: SweepDecision,
    ) -> Result<Option<RecordedSweep>, TargetError> {
        self.insert_sweep(scheduled_for, cron, decision).await
    }

    async fn now(&self) -> Result<DateTime<Utc>, TargetError> {
        self.call(|| self.clock(&self.db)).await
    }

    async fn runs(&self, filter: RunFilter) -> Result<Vec<Run>, TargetError> {
        self.list_runs(filter).await
    }

    async fn run(&self, id: RunId) -> Result<Option<Run>, TargetError> {
        self.find_run(id).await
    }

    async fn discrepancies(&self, id: RunId, skip: u64, limit: u64) -> Result<Vec<Found>, TargetError> {
        self.discrepancies_of(id, skip, limit).await
    }

    async fn drift(&self, filter: DriftFilter) -> Result<Vec<Drift>, TargetError> {
        self.read_drift(filter).await
    }

    async fn audit(&self, before: Option<i64>, limit: u64) -> Result<Vec<Audited>, TargetError> {
        self.list_audit(before, limit).await
    }

    async fn merchants(&self) -> Result<Vec<Merchant>, TargetError> {
        self.call(|| self.register_rows()).await
    }

    async fn gauges(&self) -> Result<Gauges, TargetError> {
        self.read_gauges().await
    }

    async fn ready(&self) -> Result<(), NotReady> {
        self.check_ready().await
    }

    async fn ended_sweeps(&self) -> Result<Vec<EndedSweep>, TargetError> {
        self.close_sweeps().await
    }

    async fn prune(&self, keep: Duration) -> Result<u64, TargetError> {
        self.remove_old_runs(keep).await
    }
}
