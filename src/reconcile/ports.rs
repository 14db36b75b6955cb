//! What the application needs of the outside, as contracts.
//!
//! [`Source`] and [`Target`] carry the data and are generic over the record kind. [`Ledger`] is the
//! run queue and its proof. [`CredentialStore`] keeps Salla and the database strangers to each other.

use std::{future::Future, time::Duration};

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::domain::{
    Discrepancy, Failure, Held, Merchant, MerchantId, MerchantState, Outcome, Record, Request, Run, RunId, RunStatus,
    Totals, Trigger, Unreadable, Verdict, Window,
};

/// Any error of an adapter, kept as the cause.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Which page of which list.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    /// Whose list.
    pub merchant: MerchantId,
    /// Only what changed at or after this instant.
    pub since: DateTime<Utc>,
    /// Counted from 1.
    pub number: u32,
}

/// One page of a list.
#[derive(Debug)]
pub struct Page<R> {
    /// Its rows, in the order in which they came.
    pub rows: Vec<Result<R, Unreadable>>,
    /// How many pages there are by the server's own account; `None` when it does not say.
    pub total_pages: Option<u32>,
    /// How many rows there are, likewise.
    pub total: Option<u64>,
    /// What the server's clock showed; `None` when it does not say.
    pub served_at: Option<DateTime<Utc>>,
    /// It holds rows older than asked for: the server ignores the filter.
    pub unfiltered: bool,
}

/// The records of one kind on Salla's side.
pub trait Source<R: Record>: Send + Sync {
    /// Reads one page. Retries, limits and tokens are the adapter's own affair: an error is final for
    /// now. May be dropped at any await without loss. `requests` is raised by each request sent.
    fn page(
        &self,
        request: PageRequest,
        requests: &RequestCount,
    ) -> impl Future<Output = Result<Page<R>, SourceError>> + Send;
}

/// How many requests a run has sent.
#[derive(Debug, Clone, Default)]
pub struct RequestCount(std::sync::Arc<std::sync::atomic::AtomicU64>);

impl RequestCount {
    /// Goes on counting from `sent`.
    #[must_use]
    pub fn from(sent: u64) -> Self {
        Self(std::sync::Arc::new(sent.into()))
    }

    /// Counts one more.
    pub fn add_one(&self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Why a page could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No token is stored.
    #[error("no token is stored for merchant {0}")]
    NoToken(MerchantId),
    /// The credential store failed.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// Salla refuses the tokens for good.
    #[error("Salla refuses the tokens of merchant {merchant}: {reason}")]
    Unauthorized {
        /// Whose.
        merchant: MerchantId,
        /// Salla's words, or ours.
        reason: String,
    },
    /// The app lacks a scope.
    #[error("the token lacks a scope: {0}")]
    MissingScope(String),
    /// The app's own id or secret is missing or wrong.
    #[error("the token cannot be renewed: {0}")]
    ClientCredentials(String),
    /// Salla asks for a pause.
    #[error("Salla limits the store's requests{}", after(*.retry_after))]
    RateLimited {
        /// For how long, if it says.
        retry_after: Option<Duration>,
    },
    /// Salla cannot be reached, or answers 5xx, after every attempt.
    #[error("Salla is unavailable: {reason}")]
    Unavailable {
        /// What happened to the last attempt.
        reason: String,
    },
    /// The answer is not Salla's protocol.
    #[error("the answer is not what Salla's API answers: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// Salla refuses the request itself.
    #[error("Salla refuses the request: {reason}")]
    Rejected {
        /// Salla's words.
        reason: String,
    },
    /// The list cannot be relied on.
    #[error("the store's list cannot be relied on: {reason}")]
    ListingUnsupported {
        /// Why.
        reason: String,
    },
}

fn after(pause: Option<Duration>) -> String {
    pause.map_or_else(String::new, |pause| format!(": Retry-After {}", humantime::format_duration(pause)))
}

/// A claim on a run: whoever holds it may write on the run's behalf until the lease ends or another
/// process raises the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The run.
    pub run_id: RunId,
    /// Whose.
    pub merchant: MerchantId,
    /// The fence: raised by each claim.
    pub epoch: i64,
}

/// Where a run goes on after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The next page to read; `None` when every page is committed.
    pub next_page: Option<u32>,
    /// What Salla's clock showed at the first answer.
    pub observed_at: Option<DateTime<Utc>>,
    /// How many pages the list had when it was first seen.
    pub first_total_pages: Option<u32>,
    /// How many rows came so far, repeated ones included.
    pub rows: u64,
}

/// A run that this process holds.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The fence.
    pub lease: Lease,
    /// Who asked for it.
    pub trigger: Trigger,
    /// What was asked for.
    pub request: Request,
    /// The database's clock at the claim.
    pub now: DateTime<Utc>,
    /// The merchant's watermark at the claim.
    pub watermark: Option<DateTime<Utc>>,
    /// What an earlier holder got done.
    pub resumed: Option<Resumed>,
}

/// What an earlier holder of a run got done before it went away or gave the run back.
#[derive(Debug, Clone)]
pub struct Resumed {
    /// The window it planned.
    pub window: Window,
    /// Where it stopped.
    pub cursor: Cursor,
    /// What it counted.
    pub totals: Totals,
    /// Requests it sent.
    pub requests: u64,
    /// The ids it has seen.
    pub seen: Vec<i64>,
}

/// One record of a page, with what is to be done about it.
#[derive(Debug)]
pub struct Assessed<R: Record> {
    /// The record.
    pub record: R,
    /// What to do.
    pub verdict: Verdict,
    /// The version that was held when it was assessed.
    pub held_updated_at: Option<DateTime<Utc>>,
    /// The run has counted it before: it is written if it is newer, and not counted again.
    pub repeat: bool,
}

/// All that one page leads to, committed at once.
#[derive(Debug)]
pub struct PageCommit<'a, R: Record> {
    /// Distinct records.
    pub records: &'a [Assessed<R>],
    /// Rows that could not be transformed.
    pub unreadable: &'a [Unreadable],
    /// The window, for the ledger.
    pub window: Window,
    /// What was counted before this page.
    pub totals: Totals,
    /// Requests sent so far.
    pub requests: u64,
    /// Where to go on after this page.
    pub cursor: &'a Cursor,
    /// Assess and count, and write no record.
    pub dry_run: bool,
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// What was counted up to and with this page, by what the database says it did.
    pub totals: Totals,
    /// A person asked to stop the run.
    pub cancel: bool,
}

/// The platform's own copy of the records of one kind.
pub trait Target<R: Record>: Send + Sync {
    /// What is held under each of `ids` (in any order, without duplicates); one query.
    fn held(
        &self,
        merchant: MerchantId,
        ids: &[i64],
    ) -> impl Future<Output = Result<std::collections::HashMap<i64, Held<R>>, TargetError>> + Send;

    /// Writes what differs, the discrepancies, the totals and the cursor in one transaction, fenced by
    /// the lease. A row that became newer in the meantime is left alone and counts as unchanged; a row
    /// that the database refuses counts as failed and leaves its neighbours alone. Safe to repeat when
    /// the outcome is unknown. Must not be dropped half-way.
    fn commit(
        &self,
        lease: &Lease,
        page: PageCommit<'_, R>,
    ) -> impl Future<Output = Result<Committed, TargetError>> + Send;
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It cannot be reached, or does not answer in time.
    #[error("the database is unavailable: {0}")]
    Unavailable(Cause),
    /// It refuses.
    #[error("the database refuses: {0}")]
    Refused(Cause),
    /// Another process holds the run now; nothing was written.
    #[error("the lease on run {0} is lost: another process took the run over, or it has ended")]
    LeaseLost(RunId),
}

/// A run to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewRun {
    /// For whom.
    pub merchant: MerchantId,
    /// Who asks.
    pub trigger: Trigger,
    /// For what.
    pub request: Request,
}

/// What became of a request for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    /// It waits in the queue.
    Queued(RunId),
    /// The merchant has one, queued or running.
    Active(RunId),
    /// Nobody of that id is registered.
    UnknownMerchant,
}

/// What became of the attempt to begin a run in the foreground.
#[derive(Debug, Clone)]
pub enum Begun {
    /// It is ours.
    Claimed(Box<Claim>),
    /// The merchant has a run whose holder's lease ends in `lapses_in` unless it is renewed.
    Busy {
        /// That run.
        run_id: RunId,
        /// Raised when the holder changes.
        lease_until: DateTime<Utc>,
        /// From now, by the database's clock.
        lapses_in: Duration,
    },
    /// Nobody of that id is registered.
    UnknownMerchant,
}

/// How a run ends.
#[derive(Debug, Clone)]
pub struct Ending {
    /// A status that is an end.
    pub status: RunStatus,
    /// Why, if it failed.
    pub failure: Option<Failure>,
    /// What it covered.
    pub window: Option<Window>,
    /// What it counted.
    pub totals: Totals,
    /// Requests it sent.
    pub requests: u64,
    /// The merchant's watermark from now on; `None`: as it was.
    pub watermark: Option<DateTime<Utc>>,
}

/// A firing of the schedule, and what was decided about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firing {
    /// Make a run for every active merchant, each at its own offset within `spread`.
    Run {
        /// Whether it is on time or made up for.
        trigger: Trigger,
        /// Over how long the runs are spread.
        spread: Duration,
    },
    /// Too old to make up for, or outlived by a later one: only recorded.
    Skip,
    /// The schedule began: nothing before this instant is missed.
    Begin,
}

/// Which runs to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunFilter {
    /// Of this merchant.
    pub merchant: Option<MerchantId>,
    /// With this status.
    pub status: Option<RunStatus>,
    /// Older than this one.
    pub before: Option<RunId>,
    /// At most so many.
    pub limit: u64,
}

/// How many runs are removed at once.
pub const PRUNE_BATCH: u64 = 1000;

/// A firing all of whose runs have ended, in whichever processes.
#[derive(Debug, Clone)]
pub struct EndedSweep {
    /// When it was due.
    pub slot: DateTime<Utc>,
    /// How long it took from the firing to the last run's end.
    pub took: Duration,
    /// How many of its runs ended so, and what they counted.
    pub runs: Vec<(RunStatus, u64, Totals)>,
}

/// What the scrape shows of the database.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// Runs that a worker holds.
    pub runs_active: u64,
    /// Runs that wait.
    pub runs_queued: u64,
    /// Merchants by state.
    pub merchants: Vec<(MerchantState, u64)>,
    /// Active merchants that nothing has covered for longer than a day and two hours.
    pub merchants_overdue: u64,
    /// The newest end of a run that succeeded.
    pub last_success: Option<DateTime<Utc>>,
    /// The watermark that lies furthest back, of the active merchants.
    pub oldest_watermark: Option<DateTime<Utc>>,
}

/// The ledger of runs, which is also their queue. Every time is the database's own.
pub trait Ledger: Send + Sync + Clone + 'static {
    /// Puts a run into the queue.
    fn enqueue(&self, run: NewRun) -> impl Future<Output = Result<Enqueued, TargetError>> + Send;

    /// Makes a run and claims it at once, for the foreground. An orphan whose lease has lapsed is ended
    /// as `abandoned`: the new run covers its window.
    fn begin(&self, run: NewRun) -> impl Future<Output = Result<Begun, TargetError>> + Send;

    /// Takes up to `limit` runs that are due, or whose holder is gone; never two of one merchant.
    fn claim(&self, limit: u32) -> impl Future<Output = Result<Vec<Claim>, TargetError>> + Send;

    /// Renews these leases, and returns those that are still held.
    fn heartbeat(&self, held: &[Lease]) -> impl Future<Output = Result<Vec<Lease>, TargetError>> + Send;

    /// Ends a run: status, totals and watermark in one transaction, fenced.
    fn finish(&self, lease: &Lease, ending: Ending) -> impl Future<Output = Result<Run, TargetError>> + Send;

    /// Gives a run back at its cursor, without spending an attempt; false when the lease is lost.
    fn release(&self, lease: &Lease) -> impl Future<Output = Result<bool, TargetError>> + Send;

    /// Asks for a run's end: `None` unknown, `Some(false)` it has ended already.
    fn cancel(&self, run: RunId) -> impl Future<Output = Result<Option<bool>, TargetError>> + Send;

    /// The newest firing on record of the schedule that `pattern` names.
    fn last_firing(&self, pattern: &str) -> impl Future<Output = Result<Option<DateTime<Utc>>, TargetError>> + Send;

    /// Records a firing and makes its runs, in one transaction; `None` when another process did.
    fn fire(
        &self,
        slot: DateTime<Utc>,
        pattern: &str,
        firing: Firing,
    ) -> impl Future<Output = Result<Option<u64>, TargetError>> + Send;

    /// The database's clock.
    fn now(&self) -> impl Future<Output = Result<DateTime<Utc>, TargetError>> + Send;

    /// The runs that match, newest first.
    fn runs(&self, filter: RunFilter) -> impl Future<Output = Result<Vec<Run>, TargetError>> + Send;

    /// One run.
    fn run(&self, id: RunId) -> impl Future<Output = Result<Option<Run>, TargetError>> + Send;

    /// What was wrong, of one run, in the order in which it was found, after so many and at most so many.
    fn discrepancies(
        &self,
        id: RunId,
        skip: u64,
        limit: u64,
    ) -> impl Future<Output = Result<Vec<Discrepancy>, TargetError>> + Send;

    /// The register.
    fn merchants(&self) -> impl Future<Output = Result<Vec<Merchant>, TargetError>> + Send;

    /// What the scrape shows.
    fn gauges(&self) -> impl Future<Output = Result<Gauges, TargetError>> + Send;

    /// Whether the database answers and has this version's schema; the error says what is wrong.
    fn ready(&self) -> impl Future<Output = Result<(), TargetError>> + Send;

    /// The sweeps whose last run has ended, each told once, whoever asks.
    fn ended_sweeps(&self) -> impl Future<Output = Result<Vec<EndedSweep>, TargetError>> + Send;

    /// Removes some ended runs older than `keep`, with their discrepancies, and returns how many; fewer than
    /// [`PRUNE_BATCH`]: there are no more.
    fn prune(&self, keep: Duration) -> impl Future<Output = Result<u64, TargetError>> + Send;
}

/// A merchant's tokens, in the clear or, as `Tokens<Sealed>`, encrypted.
#[derive(Debug, Clone)]
pub struct Tokens<T = SecretString> {
    /// Sent as the bearer.
    pub access: T,
    /// Good for one refresh only.
    pub refresh: Option<T>,
    /// When the access token ends, if that is known.
    pub expires_at: Option<DateTime<Utc>>,
}

/// An encrypted token, as the database keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed(pub String);

/// A merchant's tokens as stored.
#[derive(Debug, Clone)]
pub struct Credentials<T = SecretString> {
    /// The tokens.
    pub tokens: Tokens<T>,
    /// Since when they are stored.
    pub obtained_at: DateTime<Utc>,
    /// Raised by each change.
    pub version: i64,
    /// Since when a refresh has been under way, by the database's clock.
    pub refreshing_for: Option<Duration>,
}

/// Why tokens could not be read or saved.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The stored text cannot be decrypted.
    #[error("the stored token of merchant {merchant} cannot be read: {reason}")]
    Unreadable {
        /// Whose.
        merchant: MerchantId,
        /// Which key, and what is wrong.
        reason: String,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] TargetError),
}

/// Where tokens are kept. The database keeps sealed ones (`CredentialStore<Sealed>`); the vault opens and
/// seals them for whoever needs them in the clear.
///
/// Salla revokes both tokens when a refresh token is used twice, so a refresh is begun by whoever
/// wins [`begin_refresh`](Self::begin_refresh), sent once, and its result saved at once.
pub trait CredentialStore<T = SecretString>: Send + Sync + 'static {
    /// The merchant's tokens; `None` when there are none.
    fn load(
        &self,
        merchant: MerchantId,
    ) -> impl Future<Output = Result<Option<Credentials<T>>, CredentialError>> + Send;

    /// Marks that the refresh token of `version` is about to be used; false when it is being used, or
    /// was replaced.
    fn begin_refresh(
        &self,
        merchant: MerchantId,
        version: i64,
    ) -> impl Future<Output = Result<bool, CredentialError>> + Send;

    /// Saves both new tokens and clears the mark, in one statement.
    fn complete_refresh(
        &self,
        merchant: MerchantId,
        version: i64,
        tokens: &Tokens<T>,
    ) -> impl Future<Output = Result<(), CredentialError>> + Send;

    /// Clears the mark: the refresh token was certainly not used.
    fn abandon_refresh(
        &self,
        merchant: MerchantId,
        version: i64,
    ) -> impl Future<Output = Result<(), CredentialError>> + Send;

    /// Salla refuses the tokens of `version` for good: the merchant must install the app again.
    fn revoked(&self, merchant: MerchantId, version: i64) -> impl Future<Output = Result<(), CredentialError>> + Send;
}

impl<R: Record> Assessed<R> {
    /// What it counts as, if the database does what is asked.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.verdict {
            Verdict::Create => Outcome::Created,
            Verdict::Update { .. } => Outcome::Updated,
            Verdict::Unchanged => Outcome::Unchanged,
        }
    }
}
