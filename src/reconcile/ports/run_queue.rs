//! The runs: their queue, and their proof.

use std::{future::Future, time::Duration};

use chrono::{DateTime, Utc};

use super::{Actor, Claim, DatabaseError, Lease};
use crate::domain::{Failure, MerchantId, Request, Resource, ResourceRun, Run, RunId, RunStatus, Trigger, Wait};

/// A run to be made.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// For whom.
    pub merchant: MerchantId,
    /// By which way it was asked for.
    pub trigger: Trigger,
    /// For what.
    pub request: Request,
    /// Who asks.
    pub by: Actor,
    /// By which the same request is known when it comes again.
    pub key: Option<IdempotencyKey>,
}

/// The name that a caller gives to a request. If the caller sends the request again under this name, nothing is done
/// twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The caller's own word.
    pub key: String,
    /// SHA-256 of what was asked for.
    pub body: [u8; 32],
}

/// What became of a request for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnqueueOutcome {
    /// It waits in the queue.
    Queued(RunId),
    /// The same request made it before.
    Replayed(RunId),
    /// The key belongs to another request.
    KeyTaken,
    /// The merchant has one, queued or running.
    Active(RunId),
    /// No merchant of that id is registered.
    UnknownMerchant,
    /// The merchant has uninstalled the app.
    Uninstalled,
}

/// What became of the attempt to begin a run in the foreground.
#[derive(Debug, Clone)]
pub enum StartOutcome {
    /// It is ours.
    Claimed {
        /// The claim on it.
        claim: Box<Claim>,
        /// The merchant's runs that this ended: their processes are gone.
        abandoned: Vec<Run>,
    },
    /// The merchant has a run whose holder's lease ends in `lapses_in` unless it is renewed.
    Busy {
        /// That run.
        run_id: RunId,
        /// Raised when the holder changes.
        lease_expires_at: DateTime<Utc>,
        /// From now, by the database's clock.
        lapses_in: Duration,
    },
    /// No merchant of that id is registered.
    UnknownMerchant,
    /// The merchant has uninstalled the app.
    Uninstalled,
}

/// What a worker gets from the queue.
#[derive(Debug, Clone, Default)]
pub struct ClaimedRuns {
    /// Its own from now on.
    pub claims: Vec<Claim>,
    /// What this ended, for good: each took its process with it too often.
    pub abandoned: Vec<Run>,
}

/// How a run ends.
#[derive(Debug, Clone)]
pub struct RunOutcome {
    /// A status that is an end.
    pub status: RunStatus,
    /// Why, if it failed.
    pub failure: Option<Failure>,
    /// What it did about each kind of record.
    pub resource_runs: Vec<ResourceRun>,
    /// Requests it sent.
    pub requests: u64,
    /// The merchant's watermarks that move.
    pub watermarks: Vec<(Resource, DateTime<Utc>)>,
    /// The run that takes up the rest at the cursor of this run; `None`: nothing is left.
    pub again: Option<Again>,
}

/// The run that takes up the rest of one that has ended.
#[derive(Debug, Clone)]
pub struct Again {
    /// After how long.
    pub pause: Duration,
    /// The resource runs that are left to do.
    pub resource_runs: Vec<ResourceRun>,
    /// What it waits for.
    pub wait: Wait,
}

/// The outcome of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// It is in the queue again.
    Queued,
    /// It was to be cancelled, and has ended.
    Cancelled,
    /// Another run of the merchant was in the queue, and covers its window: it has ended.
    Superseded,
    /// The lease was lost; nothing was done.
    LeaseLost,
}

/// All merchants are paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalPause {
    /// Since when.
    pub since: DateTime<Utc>,
    /// The person or program that paused them: the text of an [`Actor`].
    pub by: String,
}

/// The queue of runs. Every time is the database's own.
pub trait RunQueue: Send + Sync + Clone + 'static {
    /// Puts a run into the queue, unless its key says that it was put there within the last day.
    fn enqueue(&self, run: NewRun) -> impl Future<Output = Result<EnqueueOutcome, DatabaseError>> + Send;

    /// Makes a run and claims it at once, for the foreground. An orphan whose lease has lapsed is ended
    /// as `abandoned`: the new run covers its window.
    fn start(&self, run: NewRun) -> impl Future<Output = Result<StartOutcome, DatabaseError>> + Send;

    /// Takes up to `limit` runs that are due, or whose holder is gone; never two of one merchant.
    fn claim(&self, limit: u32) -> impl Future<Output = Result<ClaimedRuns, DatabaseError>> + Send;

    /// Whether all merchants are paused.
    fn global_pause(&self) -> impl Future<Output = Result<Option<GlobalPause>, DatabaseError>> + Send;

    /// Renews these leases, and returns the leases whose runs go on. A run must stop if its lease
    /// is lost or its cancellation is requested. During a global pause, only runs of the foreground
    /// go on.
    fn renew_leases(&self, held: &[Lease]) -> impl Future<Output = Result<Vec<Lease>, DatabaseError>> + Send;

    /// Ends a run: status, totals, watermark, and the run that takes up the rest, in one transaction, fenced.
    fn finish(&self, lease: &Lease, ending: RunOutcome) -> impl Future<Output = Result<Run, DatabaseError>> + Send;

    /// Releases a run at its cursor. The claim does not count as an attempt. The next claim comes
    /// after `pause` at the earliest. The run shows what it waits for.
    fn release(
        &self,
        lease: &Lease,
        pause: Duration,
        wait: Option<&Wait>,
    ) -> impl Future<Output = Result<Released, DatabaseError>> + Send;

    /// The same for a run without progress, which counts as a failed attempt.
    fn release_after_failure(
        &self,
        lease: &Lease,
        pause: Duration,
        wait: Option<&Wait>,
    ) -> impl Future<Output = Result<Released, DatabaseError>> + Send;

    /// Shows what a run waits for while a worker holds it, and for how long; `None`: it goes on.
    fn note_wait(
        &self,
        lease: &Lease,
        wait: Option<(&Wait, Duration)>,
    ) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// Requeues a run at its cursor, behind all runs that are due by now. The claim does not count
    /// as an attempt. Returns false if it is not requeued, for example because no run of another
    /// merchant is due.
    fn yield_run(&self, lease: &Lease) -> impl Future<Output = Result<bool, DatabaseError>> + Send;

    /// Asks for a run's end: `None` unknown, `Some(false)` it has ended already.
    fn cancel(&self, run: RunId, by: &Actor) -> impl Future<Output = Result<Option<bool>, DatabaseError>> + Send;
}
