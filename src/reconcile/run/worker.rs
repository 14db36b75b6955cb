//! The daemon's loop: claim what is due, and run it within the concurrency.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use rand::RngExt;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{runner::Runner, sweep};
use crate::reconcile::{
    Heartbeat,
    ports::{BackoffStore, RateLimitState, RecordStores, RunStore, Sources},
    progress::Ended,
};

/// Takes runs from the queue until it is stopped.
#[derive(Debug)]
pub struct Worker<S, T> {
    /// Executes them.
    pub runner: Runner<S, T>,
    /// Runs at a time.
    pub concurrency: usize,
    /// Rung when a run was put into the queue here.
    pub wake: Arc<Notify>,
    /// Beats while the loop turns.
    pub heartbeat: Heartbeat,
}

/// The loop turns at least this often, so that it can be seen to be alive.
const TURN: Duration = Duration::from_secs(30);

/// While more than half of the places are taken, the worker waits this long after a run ends. Then
/// one claim replaces all runs that have ended within this time.
const GATHER: Duration = Duration::from_millis(3);

impl<S, T> Worker<S, T>
where
    S: Sources + RateLimitState + 'static,
    T: RecordStores + RunStore + BackoffStore,
{
    /// Executes runs until `stop` is called, then releases its runs and returns.
    pub async fn work(self, stop: CancellationToken) {
        let mut running: JoinSet<Ended> = JoinSet::new();
        let mut next_claim = Instant::now();
        // A process that died may have left a sweep that was never logged.
        let mut sweeps_to_tell = true;
        loop {
            self.heartbeat.beat();
            if Instant::now() >= next_claim && running.len() < self.concurrency {
                let took = self.claim(&mut running, &stop).await;
                sweeps_to_tell |= took > 0;
                next_claim = Instant::now() + if took > 0 { Duration::ZERO } else { idle_pause() };
                if sweeps_to_tell && running.is_empty() {
                    self.tell_sweeps().await;
                    sweeps_to_tell = false;
                }
            }
            let turn = Instant::now() + TURN;
            let wake_at = if running.len() < self.concurrency { turn.min(next_claim) } else { turn };
            tokio::select! {
                // First, so that a released run is not claimed again.
                biased;
                () = stop.cancelled() => break,
                Some(joined) = running.join_next(), if !running.is_empty() => {
                    died(joined.err());
                    while let Some(joined) = running.try_join_next() {
                        died(joined.err());
                    }
                    next_claim = if running.len() <= self.concurrency / 2 { Instant::now() } else { soon(next_claim) };
                }
                () = self.wake.notified() => next_claim = Instant::now(),
                () = sleep_until(wake_at) => {}
            }
        }
        while let Some(joined) = running.join_next().await {
            died(joined.err());
        }
        self.tell_sweeps().await;
    }

    /// Logs the sweeps that have ended. A stored value that cannot be read must not end the worker.
    async fn tell_sweeps(&self) {
        if AssertUnwindSafe(sweep::tell(&self.runner.store)).catch_unwind().await.is_err() {
            tracing::error!("logging ended sweeps panicked");
        }
    }

    /// Takes what is due, as far as there is room, and returns how much that was.
    async fn claim(&self, running: &mut JoinSet<Ended>, stop: &CancellationToken) -> usize {
        let room = self.concurrency - running.len();
        let claim = self.runner.store.claim(u32::try_from(room).unwrap_or(u32::MAX));
        let taken = match AssertUnwindSafe(claim).catch_unwind().await {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "no run could be claimed; trying again");
                return 0;
            }
            Err(_) => {
                tracing::error!("claiming runs panicked; trying again");
                return 0;
            }
        };
        taken.abandoned.iter().for_each(|run| self.runner.log_abandoned(run));
        let took = taken.claims.len();
        for claim in taken.claims {
            let (runner, stop) = (self.runner.clone(), stop.clone());
            running.spawn(async move { runner.execute(claim, &stop).await });
        }
        took
    }
}

/// When what has ended by then is made up for by one claim.
fn soon(next_claim: Instant) -> Instant {
    let (now, soon) = (Instant::now(), Instant::now() + GATHER);
    if next_claim > now { next_claim.min(soon) } else { soon }
}

fn died(error: Option<tokio::task::JoinError>) {
    if let Some(error) = error {
        tracing::error!(error = %error, "the task of a run ended; its lease will expire");
    }
}

/// Between looks at an empty queue: one to two seconds, so that replicas do not march in step.
fn idle_pause() -> Duration {
    Duration::from_millis(rand::rng().random_range(1000..2000))
}
