//! One run from claim to end: plan the window, reconcile, settle, and say so in one log line.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    engine::{Done, EngineError, Work, reconcile},
    leases::Leases,
    metrics::Metrics,
    policy::{Disposition, advice, dispose},
    ports::{Begun, Claim, Ending, Ledger, NewRun, RequestCount, Source, Target, TargetError},
    progress::ProgressSender,
    summary::summarise,
};
use crate::domain::{
    Failure, FailureKind, MerchantId, Order, Outcome, Record, Run, RunStatus, Totals, Window, WindowPolicy,
};

/// How a run left this process.
#[derive(Debug, Clone)]
pub enum Ended {
    /// It has ended, and this is what the ledger says.
    Run(Box<Run>),
    /// It could not be begun, or its end could not be written down.
    Unrecorded {
        /// Whose.
        merchant: MerchantId,
        /// Why.
        failure: Failure,
    },
    /// It was given back, or another process holds it.
    Elsewhere(MerchantId),
}

impl Ended {
    /// The run, if there is one.
    #[must_use]
    pub fn run(&self) -> Option<&Run> {
        match self {
            Self::Run(run) => Some(run),
            Self::Unrecorded { .. } | Self::Elsewhere(_) => None,
        }
    }
}

/// Executes runs. Cheap to clone; clones share everything.
#[derive(Debug)]
pub struct Runner<S, T> {
    /// Salla.
    pub source: Arc<S>,
    /// The database: both the ledger and what is reconciled.
    pub store: T,
    /// How far windows reach back.
    pub policy: WindowPolicy,
    /// The part of what is held that may be gone at once.
    pub max_disappeared: f64,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who is told.
    pub progress: ProgressSender,
    /// What is held while runs go on.
    pub leases: Leases,
    /// What becomes of runs when the process is stopped.
    pub on_stop: OnStop,
}

/// What becomes of a run when its process is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// It goes back into the queue, at its cursor: for the daemon.
    GiveBack,
    /// It ends as cancelled: for the foreground, where somebody stopped it.
    Cancel,
}

impl<S, T: Clone> Clone for Runner<S, T> {
    fn clone(&self) -> Self {
        Self {
            source: Arc::clone(&self.source),
            store: self.store.clone(),
            policy: self.policy,
            max_disappeared: self.max_disappeared,
            metrics: Arc::clone(&self.metrics),
            progress: self.progress.clone(),
            leases: self.leases.clone(),
            on_stop: self.on_stop,
        }
    }
}

impl<S, T> Runner<S, T>
where
    S: Source<Order> + 'static,
    T: Target<Order> + Ledger,
{
    /// Makes a run and executes it here. Where the merchant's last holder is gone without a word, its
    /// lease is waited for.
    pub async fn foreground(&self, new: NewRun, stop: &CancellationToken) -> Ended {
        let mut known_lease = None;
        let ended = loop {
            let failure = match self.store.begin(new).await {
                Ok(Begun::Claimed(claim)) => return self.execute(*claim, stop).await,
                Ok(Begun::UnknownMerchant) => {
                    failure(FailureKind::UnknownMerchant, &format!("merchant {} is not registered", new.merchant))
                }
                Ok(Begun::Busy { run_id, lease_until, lapses_in }) => {
                    let renewed = known_lease.is_some_and(|lease| lease != (run_id, lease_until));
                    if !renewed {
                        if known_lease.is_none() {
                            tracing::info!(merchant.id = new.merchant.0, run.id = %run_id,
                            "waiting up to {} for the lease of the merchant's active run",
                            humantime::format_duration(Duration::from_secs(lapses_in.as_secs() + 1)));
                        }
                        known_lease = Some((run_id, lease_until));
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
                Err(error) => failure(FailureKind::Database, &error.to_string()),
            };
            break Ended::Unrecorded { merchant: new.merchant, failure };
        };
        if let Ended::Unrecorded { failure, .. } = &ended {
            tracing::error!(merchant.id = new.merchant.0, error.kind = %failure.kind, error = %failure.message, "run could not begin");
        }
        self.progress.ended(&ended);
        ended
    }

    /// Executes a claimed run to its end, whatever that is.
    pub async fn execute(&self, claim: Claim, stop: &CancellationToken) -> Ended {
        let span = tracing::info_span!("run", run.id = %claim.lease.run_id, merchant.id = claim.lease.merchant.0);
        let held = self.leases.hold(claim.lease, stop);
        let ended = self.settle(claim, &held.stop).instrument(span).await;
        drop(held);
        self.progress.ended(&ended);
        ended
    }

    async fn settle(&self, claim: Claim, stop: &CancellationToken) -> Ended {
        let began = Instant::now();
        let mut done = Done::default();
        if let Some(earlier) = &claim.resumed {
            done.totals = earlier.totals;
            done.requests = RequestCount::from(earlier.requests);
        }
        let before = done.totals;
        let planned = claim.resumed.as_ref().map_or_else(
            || Window::plan(claim.now, claim.watermark, self.policy, &claim.request),
            |earlier| Ok(earlier.window),
        );
        let (window, disposition) = match planned {
            Err(error) => (None, Some(Disposition::Fail(failure(FailureKind::InvalidWindow, &error.to_string())))),
            Ok(window) => (Some(window), self.attempt(&claim, window, &mut done, stop).await),
        };
        self.count(before, done.totals);

        let (status, failure) = match disposition {
            None if done.totals.incomplete() || done.unsettled > 0 => (RunStatus::Partial, None),
            None => (RunStatus::Succeeded, None),
            Some(Disposition::Fail(failure)) => (RunStatus::Failed, Some(failure)),
            Some(Disposition::Cancel) => (RunStatus::Cancelled, None),
            Some(Disposition::LetGo) => return self.let_go(&claim),
            Some(Disposition::GiveBack) => return self.give_back(&claim).await,
        };
        let ending = Ending {
            status,
            watermark: watermark(&claim, window, status, done.observed_at),
            failure,
            window,
            listing: done.listing,
            totals: done.totals,
            requests: done.requests.get(),
        };
        self.end(&claim, ending, began).await
    }

    /// `None`: it came to its end. A panic in a record's way costs this run only.
    async fn attempt(
        &self,
        claim: &Claim,
        window: Window,
        done: &mut Done,
        stop: &CancellationToken,
    ) -> Option<Disposition> {
        let work = Work {
            claim,
            window,
            source: &*self.source,
            target: &self.store,
            max_disappeared: self.max_disappeared,
            stop,
            progress: &self.progress,
        };
        match AssertUnwindSafe(reconcile::<Order, S, T>(&work, done)).catch_unwind().await {
            Ok(Ok(())) => None,
            Ok(Err(EngineError::Stopped)) if self.on_stop == OnStop::Cancel => Some(Disposition::Cancel),
            Ok(Err(error)) => Some(dispose(&error)),
            Err(_) => Some(Disposition::Fail(failure(FailureKind::Internal, "the run panicked"))),
        }
    }

    async fn end(&self, claim: &Claim, ending: Ending, began: Instant) -> Ended {
        let failure_on_record = ending.failure.clone();
        match self.store.finish(&claim.lease, ending).await {
            Ok(run) => {
                summarise(&run, began.elapsed());
                self.metrics.run_ended(&run, began.elapsed());
                Ended::Run(Box::new(run))
            }
            Err(TargetError::LeaseLost(_)) => self.let_go(claim),
            Err(error) => {
                let cause = failure_on_record.unwrap_or_else(|| failure(FailureKind::Database, &error.to_string()));
                tracing::error!(error = %error, "the run's end could not be written down; its lease will lapse and it will be taken up again");
                Ended::Unrecorded { merchant: claim.lease.merchant, failure: cause }
            }
        }
    }

    fn let_go(&self, claim: &Claim) -> Ended {
        tracing::warn!("another process has taken the run over, or it was ended; this one wrote nothing more");
        self.metrics.leases_lost.inc();
        Ended::Elsewhere(claim.lease.merchant)
    }

    async fn give_back(&self, claim: &Claim) -> Ended {
        match self.store.release(&claim.lease).await {
            Ok(true) => tracing::info!("run given back at its cursor"),
            Ok(false) => return self.let_go(claim),
            Err(error) => tracing::warn!(error = %error, "run could not be given back; its lease will lapse"),
        }
        Ended::Elsewhere(claim.lease.merchant)
    }

    fn count(&self, before: Totals, after: Totals) {
        for outcome in Outcome::ALL {
            self.metrics.records(Order::RESOURCE.as_str(), outcome.as_str(), after.of(outcome) - before.of(outcome));
        }
    }
}

/// How often the foreground looks whether the lease it waits for was renewed.
const LEASE_POLL: Duration = Duration::from_secs(5);

fn failure(kind: FailureKind, what: &str) -> Failure {
    Failure { kind, message: format!("{what}; {}", advice(kind)) }
}

/// The watermark moves only when everything was read, and never by a dry run. It moves to what Salla's
/// clock showed; where Salla showed none, it stays.
fn watermark(
    claim: &Claim,
    window: Option<Window>,
    status: RunStatus,
    observed_at: Option<DateTime<Utc>>,
) -> Option<DateTime<Utc>> {
    let read_all = matches!(status, RunStatus::Succeeded | RunStatus::Partial);
    if !read_all || claim.request.dry_run {
        return None;
    }
    let Some(observed_at) = observed_at else {
        tracing::warn!("Salla's answers carry no Date header: the watermark stays where it is");
        return None;
    };
    window?.advance(claim.watermark, observed_at, claim.request.until)
}
