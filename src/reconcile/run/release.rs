//! How a run leaves this process before its end: released, or taken over.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    disposition::failure,
    runner::{OnStop, Runner},
};
use crate::{
    domain::{FailureKind, RunStatus, Wait},
    reconcile::{
        engine::RunProgress,
        ports::{
            BackoffStore, Claim, DatabaseError, Lease, MAX_FAILED_ATTEMPTS, RateLimitState, RecordStores, Released,
            RunOutcome, RunQueue, Sources,
        },
        progress::Ended,
    },
};

/// The time limit for the last write during a shutdown.
const LEAVING: Duration = Duration::from_secs(2);

/// How long a run tries to be released while the database does not answer.
const DATABASE_AWAY: Duration = Duration::from_secs(60);

impl<S, T> Runner<S, T>
where
    S: Sources + RateLimitState + 'static,
    T: RecordStores + RunQueue + BackoffStore,
{
    /// The lease is lost.
    pub(in crate::reconcile) fn on_lease_lost(&self, claim: &Claim) -> Ended {
        tracing::warn!("another process took over the run, or it ended; this process wrote nothing more");
        self.metrics.leases_lost.inc();
        Ended::Elsewhere(claim.lease.merchant)
    }

    /// Loads how much of the merchant's limit the previous process used.
    pub(in crate::reconcile) fn load_rate_usage(&self, claim: &Claim) {
        // A process that died reported nothing.
        let recent_requests = if claim.failed_attempts > 0 { None } else { Some(claim.recent_requests) };
        if recent_requests != Some(0) {
            self.source.add_recent_requests(claim.lease.merchant, recent_requests);
        }
    }

    /// Saves how much of the merchant's limit is used, for the next process.
    pub(in crate::reconcile) async fn save_rate_usage(&self, claim: &Claim) {
        let merchant = claim.lease.merchant;
        let recent_requests = self.source.recent_requests(merchant);
        if recent_requests == 0 {
            return;
        }
        match timeout(LEAVING, self.store.save_recent_requests(merchant, recent_requests)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "failed to persist rate-limit usage");
            }
            Err(_) => tracing::warn!("failed to persist rate-limit usage in time"),
        }
    }

    /// No worker would claim a foreground run, and repeated failures are not an outage of the database.
    pub(in crate::reconcile) fn is_worth_another_try(&self, claim: &Claim, progress: &RunProgress) -> bool {
        self.on_stop == OnStop::Release && (progress.commits > 0 || claim.failed_attempts + 1 < MAX_FAILED_ATTEMPTS)
    }

    /// Releases the run as soon as the database answers; otherwise its lease expires.
    pub(in crate::reconcile) async fn release_after_failure(
        &self,
        claim: &Claim,
        in_vain: bool,
        wait: Wait,
        pause: Duration,
        stop: &CancellationToken,
    ) -> Ended {
        self.save_rate_usage(claim).await;
        let deadline = Instant::now() + DATABASE_AWAY;
        let released = loop {
            let released = if in_vain {
                self.store.release_after_failure(&claim.lease, pause, Some(&wait)).await
            } else {
                self.store.release(&claim.lease, pause, Some(&wait)).await
            };
            let away = matches!(released, Err(DatabaseError::Unavailable(_))) && Instant::now() < deadline;
            if !away || stop.run_until_cancelled(sleep(pause)).await.is_none() {
                break released;
            }
        };
        if matches!(released, Ok(Released::Queued)) {
            tracing::info!(
                waiting.reason = %wait.reason,
                waiting.message = wait.message,
                "run released for {} s; will resume from its cursor",
                pause.as_secs()
            );
            return Ended::Elsewhere(claim.lease.merchant);
        }
        self.report_release(claim, released, pause, Some(&wait))
    }

    /// Releases the run, to be claimed after `pause`.
    pub(in crate::reconcile) async fn release(&self, claim: &Claim, pause: Duration, wait: Option<&Wait>) -> Ended {
        self.save_rate_usage(claim).await;
        let released = self.store.release(&claim.lease, pause, wait).await;
        self.report_release(claim, released, pause, wait)
    }

    fn report_release(
        &self,
        claim: &Claim,
        released: Result<Released, DatabaseError>,
        pause: Duration,
        wait: Option<&Wait>,
    ) -> Ended {
        match released {
            Ok(Released::Queued) => match wait {
                Some(wait) => tracing::warn!(
                    waiting.reason = %wait.reason,
                    waiting.message = wait.message,
                    waiting.seconds = pause.as_secs(),
                    "run released for a backoff; will resume from its cursor"
                ),
                None => tracing::info!("run released; will resume from its cursor"),
            },
            Ok(Released::Cancelled) => tracing::info!("run cancelled at its cursor"),
            Ok(Released::Superseded) => {
                tracing::info!("run ended: a queued run of the merchant covers its window");
            }
            Ok(Released::LeaseLost) => return self.on_lease_lost(claim),
            Err(error) => tracing::warn!(error = %error, "run could not be released; its lease will expire"),
        }
        Ended::Elsewhere(claim.lease.merchant)
    }

    /// A defect that one run brings out is that run's alone: it ends as failed.
    pub(in crate::reconcile) async fn panicked(&self, lease: Lease) -> Ended {
        let failure = failure(FailureKind::Internal, &"the run panicked");
        let ending = RunOutcome {
            status: RunStatus::Failed,
            watermarks: Vec::new(),
            failure: Some(failure.clone()),
            resource_runs: Vec::new(),
            requests: 0,
            again: None,
        };
        match self.store.finish(&lease, ending).await {
            Ok(run) => Ended::Run(Box::new(run)),
            Err(error) => {
                tracing::error!(error = %error, "the end of a panicked run could not be stored");
                Ended::Unrecorded { merchant: lease.merchant, failure }
            }
        }
    }
}
