//! The daemon's loop: claim what is due, run it within the concurrency, keep the leases alive.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rand::RngExt;
use tokio::{
    sync::Notify,
    task::{JoinError, JoinSet},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Pulse,
    ports::{Ledger, Source, Target},
    runner::{Ended, Runner},
    sweep::Sweep,
};
use crate::domain::{Order, RunId};

/// Takes runs from the queue until it is stopped.
#[derive(Debug)]
pub struct Worker<S, T> {
    /// Executes them.
    pub runner: Runner<S, T>,
    /// Runs at a time.
    pub concurrency: usize,
    /// How long a lease lasts.
    pub lease: Duration,
    /// Rung when a run was put into the queue here.
    pub wake: Arc<Notify>,
    /// Beats while the loop turns.
    pub pulse: Pulse,
}

/// A run that left this process.
type Done = (RunId, Ended);

/// Runs in this process, by id, each with the token that stops it.
type Held = HashMap<RunId, CancellationToken>;

impl<S, T> Worker<S, T>
where
    S: Source<Order> + 'static,
    T: Target<Order> + Ledger,
{
    /// Works until `stop` is called, then gives back what it holds and returns when nothing is left.
    pub async fn work(self, stop: CancellationToken) {
        let mut running: JoinSet<Done> = JoinSet::new();
        let mut held = Held::new();
        let mut sweep = Sweep::default();
        let mut next_beat = Instant::now() + self.lease / 4;
        let mut next_claim = Instant::now();
        loop {
            self.pulse.beat();
            if Instant::now() >= next_claim && running.len() < self.concurrency {
                let took = self.claim(&mut running, &mut held, &mut sweep, &stop).await;
                next_claim = Instant::now() + if took > 0 { Duration::ZERO } else { idle_pause() };
            }
            let wake_at = if running.len() < self.concurrency { next_beat.min(next_claim) } else { next_beat };
            tokio::select! {
                () = stop.cancelled() => break,
                Some(joined) = running.join_next(), if !running.is_empty() => {
                    self.joined(joined, &mut held, &mut sweep);
                    next_claim = Instant::now();
                    if running.is_empty() { sweep.report(); }
                }
                () = self.wake.notified() => next_claim = Instant::now(),
                () = sleep(wake_at.saturating_duration_since(Instant::now())) => {}
            }
            if Instant::now() >= next_beat {
                self.beat(&held).await;
                next_beat = Instant::now() + self.lease / 4;
            }
        }
        while let Some(joined) = running.join_next().await {
            self.joined(joined, &mut held, &mut sweep);
        }
        sweep.report();
    }

    async fn claim(
        &self,
        running: &mut JoinSet<Done>,
        held: &mut Held,
        sweep: &mut Sweep,
        stop: &CancellationToken,
    ) -> usize {
        let free = self.concurrency - running.len();
        let claims = match self.runner.store.claim(u32::try_from(free).unwrap_or(u32::MAX)).await {
            Ok(claims) => claims,
            Err(error) => {
                tracing::warn!(error = %error, "no run could be claimed; trying again");
                return 0;
            }
        };
        let took = claims.len();
        for claim in claims {
            sweep.begin();
            let runner = self.runner.clone();
            let (id, stop) = (claim.lease.run_id, stop.child_token());
            held.insert(id, stop.clone());
            running.spawn(async move { (id, runner.execute(claim, &stop).await) });
        }
        took
    }

    fn joined(&self, joined: Result<Done, JoinError>, held: &mut Held, sweep: &mut Sweep) {
        match joined {
            Ok((id, ended)) => {
                held.remove(&id);
                sweep.add(&ended);
            }
            Err(error) => tracing::error!(error = %error, "a run's task died; its lease will lapse"),
        }
    }

    /// Renews the leases. A run that turns out to be another's is stopped: it could not write any more.
    async fn beat(&self, held: &Held) {
        if held.is_empty() {
            return;
        }
        match self.runner.store.heartbeat().await {
            Ok(still_ours) => {
                for (id, stop) in held {
                    if !still_ours.contains(id) {
                        stop.cancel();
                    }
                }
            }
            Err(error) => tracing::warn!(error = %error, "leases could not be renewed; trying again"),
        }
    }
}

/// Between looks at an empty queue: one to two seconds, so that replicas do not march in step.
fn idle_pause() -> Duration {
    Duration::from_millis(rand::rng().random_range(1000..2000))
}
