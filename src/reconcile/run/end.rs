//! Stores the end of a run, and logs it.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    disposition::{AFTER_DATABASE_TROUBLE, database_failure},
    runner::Runner,
    summary::summarise,
};
use crate::{
    domain::{Failure, Run, Wait, WaitReason},
    reconcile::{
        engine::RunProgress,
        ports::{BackoffStore, Claim, DatabaseError, RateLimitState, RecordStores, RunOutcome, RunQueue, Sources},
        progress::Ended,
    },
};

impl<S, T> Runner<S, T>
where
    S: Sources + RateLimitState + 'static,
    T: RecordStores + RunQueue + BackoffStore,
{
    /// Stores the end of a run.
    pub(super) async fn end(&self, claim: &Claim, ending: RunOutcome, began: Instant) -> Result<Ended, DatabaseError> {
        match self.store.finish(&claim.lease, ending).await {
            Ok(run) => {
                self.log_end(&run, began.elapsed());
                Ok(Ended::Run(Box::new(run)))
            }
            Err(DatabaseError::LeaseLost(_)) => Ok(self.on_lease_lost(claim)),
            Err(error) => Err(error),
        }
    }

    /// A foreground run whose end could not be stored. `failure`: why it failed before.
    fn unrecorded(claim: &Claim, failure: Option<Failure>, error: &DatabaseError) -> Ended {
        tracing::error!(error = %error, "the end of the run could not be stored; its lease will expire, and another claim continues it");
        let failure = failure.unwrap_or_else(|| database_failure(error));
        Ended::Unrecorded { merchant: claim.lease.merchant, failure }
    }

    /// Releases a run of the daemon whose end could not be stored. `failure`: why it failed before.
    pub(super) async fn on_unstored_end(
        &self,
        claim: &Claim,
        progress: &RunProgress,
        failure: Option<Failure>,
        error: DatabaseError,
        stop: &CancellationToken,
    ) -> Ended {
        if !self.is_worth_another_try(claim, progress) {
            return Self::unrecorded(claim, failure, &error);
        }
        tracing::warn!(error = %error, "the end of the run could not be stored; the run is released");
        let wait = Wait { reason: WaitReason::Database, message: error.summary().to_owned() };
        self.release_after_failure(claim, progress.commits == 0, wait, AFTER_DATABASE_TROUBLE, stop).await
    }

    fn log_end(&self, run: &Run, took: Duration) {
        summarise(run, took);
        self.metrics.run_ended(run, took);
    }

    /// Logs a run that this process ended because its processes are gone.
    pub(in crate::reconcile) fn log_abandoned(&self, run: &Run) {
        let took = run.started_at.zip(run.finished_at).and_then(|(began, ended)| (ended - began).to_std().ok());
        self.log_end(run, took.unwrap_or_default());
    }
}
