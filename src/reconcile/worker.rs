//! The daemon's loop: claim what is due, run it within the concurrency, keep the leases alive.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rand::RngExt;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Pulse,
    ports::{Ledger, Source, Target},
    runner::{Ended, Runner},
};
use crate::domain::{MerchantId, Order, RunId, RunStatus, Totals};

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

/// Runs in this process, by id, each with the token that stops it.
type Held = HashMap<RunId, CancellationToken>;

/// What this process has done since it last had nothing to do.
#[derive(Debug, Default)]
struct Batch {
    runs: u64,
    by_status: HashMap<RunStatus, u64>,
    totals: Totals,
    began: Option<Instant>,
}

impl<S, T> Worker<S, T>
where
    S: Source<Order> + 'static,
    T: Target<Order> + Ledger,
{
    /// Works until `stop` is called, then gives back what it holds and returns when nothing is left.
    pub async fn work(self, stop: CancellationToken) {
        let mut running: JoinSet<(RunId, MerchantId, Ended)> = JoinSet::new();
        let mut held = Held::new();
        let mut batch = Batch::default();
        let mut next_beat = Instant::now() + self.lease / 4;
        let mut next_claim = Instant::now();
        loop {
            self.pulse.beat();
            if Instant::now() >= next_claim && running.len() < self.concurrency {
                let took = self.claim(&mut running, &mut held, &mut batch, &stop).await;
                next_claim = Instant::now() + if took > 0 { Duration::ZERO } else { idle_pause() };
            }
            let wake_at = if running.len() < self.concurrency {
                next_beat.min(next_claim)
            } else {
                next_beat
            };
            tokio::select! {
                () = stop.cancelled() => break,
                Some(joined) = running.join_next(), if !running.is_empty() => {
                    batch.add(joined, &mut held);
                    next_claim = Instant::now();
                    if running.is_empty() { batch.report(); }
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
            batch.add(joined, &mut held);
        }
        batch.report();
    }

    async fn claim(
        &self,
        running: &mut JoinSet<(RunId, MerchantId, Ended)>,
        held: &mut Held,
        batch: &mut Batch,
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
            batch.began.get_or_insert_with(Instant::now);
            let runner = self.runner.clone();
            let (id, merchant, stop) = (claim.lease.run_id, claim.lease.merchant, stop.child_token());
            held.insert(id, stop.clone());
            running.spawn(async move { (id, merchant, runner.execute(claim, &stop).await) });
        }
        took
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

impl Batch {
    fn add(
        &mut self,
        joined: Result<(RunId, MerchantId, Ended), tokio::task::JoinError>,
        held: &mut Held,
    ) {
        match joined {
            Ok((id, _, ended)) => {
                held.remove(&id);
                if let Some(run) = ended.run() {
                    self.runs += 1;
                    *self.by_status.entry(run.status).or_default() += 1;
                    self.totals += run.totals;
                }
            }
            Err(error) => tracing::error!(error = %error, "a run's task died; its lease will lapse"),
        }
    }

    /// One line for all the runs since the queue was last empty: after a firing, the sweep.
    fn report(&mut self) {
        if self.runs > 0 {
            let of = |status| self.by_status.get(&status).copied().unwrap_or(0);
            let took = self.began.map_or(Duration::ZERO, |began| began.elapsed());
            tracing::info!(
                runs = self.runs,
                succeeded = of(RunStatus::Succeeded),
                partial = of(RunStatus::Partial),
                failed_runs = of(RunStatus::Failed),
                cancelled = of(RunStatus::Cancelled),
                fetched = self.totals.fetched,
                created = self.totals.created,
                updated = self.totals.updated,
                unchanged = self.totals.unchanged,
                skipped = self.totals.skipped,
                failed = self.totals.failed,
                duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "sweep ended: the queue is empty"
            );
        }
        *self = Self::default();
    }
}

/// Between looks at an empty queue: one to two seconds, so that replicas do not march in step.
fn idle_pause() -> Duration {
    Duration::from_millis(rand::rng().random_range(1000..2000))
}
