//! Shows what a run waits for while a worker holds it.

use std::{convert::Infallible, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::runner::Runner;
use crate::{
    domain::{Wait, WaitReason},
    reconcile::{
        engine::EngineError,
        ports::{BackoffStore, Claim, RateLimitState, RecordStores, RunQueue, SourceError, Sources},
    },
};

/// How often the wait state is checked.
const EVERY: Duration = Duration::from_secs(1);

impl<S, T> Runner<S, T>
where
    S: Sources + RateLimitState + 'static,
    T: RecordStores + RunQueue + BackoffStore,
{
    /// Puts each wait of the run on record when it begins, and takes it off when it is over.
    pub(in crate::reconcile) async fn show_waits(&self, claim: &Claim) -> Infallible {
        let mut shown: Option<WaitReason> = None;
        loop {
            sleep(EVERY).await;
            let waiting = self.source.waiting(claim.lease.merchant);
            let reason = waiting.as_ref().map(|(wait, _)| wait.reason);
            if reason != shown {
                self.show_wait(claim, waiting.as_ref().map(|(wait, pause)| (wait, *pause))).await;
                shown = reason;
            }
        }
    }

    /// If the database does not answer, the wait is only logged.
    pub(in crate::reconcile) async fn show_wait(&self, claim: &Claim, wait: Option<(&Wait, Duration)>) {
        if let Some((wait, pause)) = wait {
            tracing::warn!(
                waiting.reason = %wait.reason,
                waiting.message = wait.message,
                waiting.seconds = pause.as_secs(),
                "run waits"
            );
            self.progress.waiting(claim.lease.merchant, wait, pause);
        }
        if let Err(error) = self.store.note_wait(&claim.lease, wait).await {
            tracing::debug!(error = %error, "the reason for waiting could not be stored");
        }
    }

    /// Waits out a pause that an earlier process recorded.
    pub(in crate::reconcile) async fn wait_for_backoff(
        &self,
        claim: &Claim,
        pause: Duration,
        stop: &CancellationToken,
    ) -> Result<(), EngineError> {
        if pause > self.longest_pause {
            return Err(SourceError::RateLimited { retry_after: Some(pause) }.into());
        }
        let message = "Salla asked to wait".to_owned();
        let wait = Wait { reason: WaitReason::RateLimited, message };
        self.show_wait(claim, Some((&wait, pause))).await;
        stop.run_until_cancelled(sleep(pause)).await.ok_or(EngineError::Stopped)?;
        self.show_wait(claim, None).await;
        Ok(())
    }
}
