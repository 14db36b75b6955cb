//! A run that somebody waits for: made and executed here, outside the queue.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;

use tokio_util::sync::CancellationToken;

use super::{
    disposition::{database_failure, failure},
    runner::Runner,
};
use crate::{
    domain::FailureKind,
    reconcile::{
        ports::{BackoffStore, NewRun, RateLimitState, RecordStores, RunQueue, Sources, StartOutcome},
        progress::Ended,
    },
};

/// How often the foreground looks whether the lease it waits for was renewed.
const LEASE_POLL: Duration = Duration::from_secs(5);

impl<S, T> Runner<S, T>
where
    S: Sources + RateLimitState + 'static,
    T: RecordStores + RunQueue + BackoffStore,
{
    /// Makes a run and executes it here. Where the merchant's last holder is gone without a word, its
    /// lease is waited for. A panic costs this merchant only.
    pub async fn foreground(&self, new: NewRun, stop: &CancellationToken) -> Ended {
        let merchant = new.merchant;
        let ended = AssertUnwindSafe(self.begin_and_execute(new, stop)).catch_unwind().await;
        ended.unwrap_or_else(|_| {
            let failure = failure(FailureKind::Internal, &"the run panicked");
            tracing::error!(merchant.id = merchant.0, error.kind = %failure.kind, "run could not start");
            let ended = Ended::Unrecorded { merchant, failure };
            self.progress.ended(&ended);
            ended
        })
    }

    async fn begin_and_execute(&self, new: NewRun, stop: &CancellationToken) -> Ended {
        let mut known_lease = None;
        let ended = loop {
            let failure = match self.store.start(new.clone()).await {
                Ok(StartOutcome::Claimed { claim, abandoned }) => {
                    abandoned.iter().for_each(|run| self.log_abandoned(run));
                    return self.execute(*claim, stop).await;
                }
                Ok(StartOutcome::UnknownMerchant) => {
                    failure(FailureKind::UnknownMerchant, &format!("merchant {} is not registered", new.merchant))
                }
                Ok(StartOutcome::Uninstalled) => {
                    failure(FailureKind::NoToken, &format!("merchant {} has uninstalled the app", new.merchant))
                }
                Ok(StartOutcome::Busy { run_id, lease_expires_at, lapses_in }) => {
                    let renewed = known_lease.is_some_and(|lease| lease != (run_id, lease_expires_at));
                    if !renewed {
                        if known_lease.is_none() {
                            tracing::info!(merchant.id = new.merchant.0, run.id = %run_id,
                            "waiting up to {} for the lease of the active run",
                            humantime::format_duration(Duration::from_secs(lapses_in.as_secs() + 1)));
                        }
                        known_lease = Some((run_id, lease_expires_at));
                        let wait = lapses_in.min(LEASE_POLL);
                        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
                            continue;
                        }
                    }
                    failure(
                        FailureKind::AlreadyRunning,
                        &format!("run {run_id} of merchant {} is active", new.merchant),
                    )
                }
                Err(error) => database_failure(&error),
            };
            break Ended::Unrecorded { merchant: new.merchant, failure };
        };
        if let Ended::Unrecorded { failure, .. } = &ended {
            tracing::error!(merchant.id = new.merchant.0, error.kind = %failure.kind, error = %failure.message, "run could not start");
        }
        self.progress.ended(&ended);
        ended
    }
}
