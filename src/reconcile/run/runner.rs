//! One run from claim to end: plan the window, reconcile, settle, and say so in one log line.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    disposition::{Disposition, dispose, failure},
    lease_renewal::Leases,
    resource_runs::{self, reconcile_resource},
};
use crate::{
    domain::{
        DetailCheckNights, FailureKind, ResourceRun, Resources, RunStatus, Wait, WaitReason, Window, WindowPolicy,
    },
    reconcile::{
        engine::{EngineError, RunContext, RunProgress, TimeSlice},
        metrics::Metrics,
        ports::{
            Again, BackoffStore, Claim, CredentialError, RateLimitState, RecordStores, RunOutcome, RunQueue,
            SourceError, Sources,
        },
        progress::{Ended, ProgressSender},
        span,
    },
};

/// Executes runs. Cheap to clone; clones share everything.
#[derive(Debug)]
pub struct Runner<S, T> {
    /// Salla.
    pub source: Arc<S>,
    /// The database of runs and records.
    pub store: T,
    /// The resources of a run that names none.
    pub resources: Resources,
    /// How far windows reach back.
    pub policy: WindowPolicy,
    /// The largest share of stored records that one run may mark as deleted.
    pub max_deletion_ratio: f64,
    /// Within how many nights the details of all records are read.
    pub detail_checks: DetailCheckNights,
    /// The metrics of this process.
    pub metrics: Arc<Metrics>,
    /// The receiver of progress.
    pub progress: ProgressSender,
    /// The leases of running runs.
    pub leases: Leases,
    /// A pause that Salla asked for and that lasts longer ends a run.
    pub longest_pause: Duration,
    /// The time slice of a run of the daemon.
    pub slice: Duration,
    /// The action of the process on its runs when it stops.
    pub on_stop: OnStop,
}

/// The action of the process on a run when the process stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// It goes back into the queue, at its cursor: for the daemon.
    Release,
    /// It ends as cancelled: for the foreground, where somebody stopped it.
    Cancel,
}

impl<S, T: Clone> Clone for Runner<S, T> {
    fn clone(&self) -> Self {
        Self {
            source: Arc::clone(&self.source),
            store: self.store.clone(),
            resources: self.resources,
            policy: self.policy,
            max_deletion_ratio: self.max_deletion_ratio,
            detail_checks: self.detail_checks,
            metrics: Arc::clone(&self.metrics),
            progress: self.progress.clone(),
            leases: self.leases.clone(),
            longest_pause: self.longest_pause,
            slice: self.slice,
            on_stop: self.on_stop,
        }
    }
}

impl<S, T> Runner<S, T>
where
    S: Sources + RateLimitState + 'static,
    T: RecordStores + RunQueue + BackoffStore,
{
    /// Executes a claimed run to its end.
    pub async fn execute(&self, claim: Claim, stop: &CancellationToken) -> Ended {
        let span = span::of_run(&claim);
        let held = self.leases.hold(claim.lease, stop);
        let lease = claim.lease;
        let settled = AssertUnwindSafe(self.settle(claim, &held.stop)).catch_unwind().instrument(span.clone()).await;
        let ended = match settled {
            Ok(ended) => ended,
            Err(_) => self.panicked(lease).instrument(span.clone()).await,
        };
        drop(held);
        if let Some(run) = ended.run() {
            span::ended(&span, run);
        }
        self.progress.ended(&ended);
        ended
    }

    async fn settle(&self, claim: Claim, stop: &CancellationToken) -> Ended {
        let began = Instant::now();
        self.load_rate_usage(&claim);
        let (mut progress, disposition) = match resource_runs::begin(&claim, self.resources, self.policy) {
            Err(error) => {
                (RunProgress::default(), Some(Disposition::Fail(failure(FailureKind::InvalidWindow, &error))))
            }
            Ok(mut progress) => {
                let disposition = self.attempt(&claim, &mut progress, stop).await;
                (progress, disposition)
            }
        };
        self.count_since(&claim, &progress);

        let mut again = None;
        let (status, failure) = match disposition {
            None => ResourceRun::outcome(&progress.resource_runs),
            Some(Disposition::Fail(failure)) => (RunStatus::Failed, Some(failure)),
            Some(Disposition::Reschedule(failure, pause)) => {
                // In the foreground, no worker may exist that claims it.
                let wait = Wait { reason: WaitReason::RateLimited, message: failure.message.clone() };
                let resource_runs = resource_runs::rest(&progress);
                again = (self.on_stop == OnStop::Release).then_some(Again { pause, resource_runs, wait });
                (RunStatus::Failed, Some(failure))
            }
            Some(Disposition::Requeue(failure, pause)) if self.is_worth_another_try(&claim, &progress) => {
                tracing::warn!(
                    error = failure.message,
                    "the database does not answer; the run is released when it answers"
                );
                let wait = Wait { reason: WaitReason::Database, message: failure.message };
                return self.release_after_failure(&claim, progress.commits == 0, wait, pause, stop).await;
            }
            Some(Disposition::Requeue(failure, _)) => (RunStatus::Failed, Some(failure)),
            Some(Disposition::Cancel) => (RunStatus::Cancelled, None),
            Some(Disposition::LeaseLost) => return self.on_lease_lost(&claim),
            Some(Disposition::Yielded) => {
                self.save_rate_usage(&claim).await;
                tracing::info!("time slice used up; run requeued");
                return Ended::Elsewhere(claim.lease.merchant);
            }
            Some(Disposition::Backoff(wait, pause)) => return self.release(&claim, pause, Some(&wait)).await,
            Some(Disposition::Release) => return self.release(&claim, Duration::ZERO, None).await,
        };
        resource_runs::close(&mut progress, status);
        let failure_on_record = failure.clone();
        let ending = RunOutcome {
            status,
            watermarks: resource_runs::watermarks(&claim, &progress.resource_runs, status, self.policy.overlap),
            failure,
            resource_runs: progress.resource_runs.clone(),
            requests: progress.requests.get(),
            again,
        };
        self.save_rate_usage(&claim).await;
        match self.end(&claim, ending, began).await {
            Err(error) => self.on_unstored_end(&claim, &progress, failure_on_record, error, stop).await,
            Ok(ended) => ended,
        }
    }

    /// Executes the resource runs; `None`: the last one ended.
    async fn attempt(
        &self,
        claim: &Claim,
        progress: &mut RunProgress,
        stop: &CancellationToken,
    ) -> Option<Disposition> {
        if let Some(pause) = claim.pause
            && let Err(error) = self.wait_for_backoff(claim, pause, stop).await
        {
            return Some(self.disposition(&error));
        }
        // The foreground works at what somebody waits for.
        progress.time_slice = (self.on_stop == OnStop::Release).then(|| TimeSlice::begin(self.slice));
        while let Some(window) = progress.resource_runs.get(progress.at).map(|resource_run| resource_run.window) {
            let ended = match window {
                Some(window) => self.attempt_resource(claim, window, progress, stop).await,
                None => Err(Disposition::Fail(failure(FailureKind::Internal, &"a resource run without a window"))),
            };
            let ended = match ended {
                Ok(deferred) => Ok(deferred),
                Err(Disposition::Fail(failure)) => Err(failure),
                Err(other) => return Some(other),
            };
            if let Err(failure) = resource_runs::settle(progress, ended) {
                return Some(Disposition::Fail(failure));
            }
        }
        None
    }

    /// Returns how many failed records were deferred. A panic ends this resource run only.
    async fn attempt_resource(
        &self,
        claim: &Claim,
        window: Window,
        progress: &mut RunProgress,
        stop: &CancellationToken,
    ) -> Result<usize, Disposition> {
        let context = RunContext {
            claim,
            window,
            source: &*self.source,
            records: &self.store,
            max_deletion_ratio: self.max_deletion_ratio,
            overlap: self.policy.overlap,
            detail_checks: self.detail_checks,
            stop,
            reporter: &self.progress,
        };
        let ended = tokio::select! {
            ended = AssertUnwindSafe(reconcile_resource(&context, progress)).catch_unwind() => ended,
            never = self.show_waits(claim) => match never {},
        };
        match ended {
            Ok(Ok(deferred)) => Ok(deferred),
            Ok(Err(error)) => Err(self.disposition(&error)),
            Err(_) => Err(Disposition::Fail(failure(FailureKind::Internal, &"the run panicked"))),
        }
    }

    fn disposition(&self, error: &EngineError) -> Disposition {
        match error {
            EngineError::Stopped if self.on_stop == OnStop::Cancel => Disposition::Cancel,
            EngineError::Source(SourceError::Credentials(CredentialError::Unavailable { .. })) => {
                self.metrics.tokens_unavailable.inc();
                tracing::error!(error = %error, "token store unavailable");
                match self.on_stop {
                    OnStop::Release => dispose(error),
                    // No worker would claim it.
                    OnStop::Cancel => Disposition::Fail(failure(FailureKind::TokenStoreUnavailable, error)),
                }
            }
            error => dispose(error),
        }
    }

    /// Adds to the metrics what was counted since the claim.
    fn count_since(&self, claim: &Claim, progress: &RunProgress) {
        for (resource, outcome, count) in resource_runs::counted(claim, &progress.resource_runs) {
            self.metrics.records(resource, outcome, count);
        }
        for violation in resource_runs::new_violations(claim, &progress.resource_runs) {
            self.metrics.listing_violation(violation);
        }
        progress.sorted_lists.iter().for_each(|result| self.metrics.sorted_list(*result));
        progress.late_records.iter().for_each(|(resource, count)| self.metrics.late_records(*resource, *count));
    }
}
