//! A run: one reconciliation of one merchant over one window.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{MerchantId, ResourceRun, Totals, Waiting, Window, words::words};

words! {
    /// Where a run stands.
    RunStatus ("status") {
        /// Waits for a worker.
        Queued = "queued",
        /// A worker holds its lease.
        Running = "running",
        /// Ended: every record is as Salla has it.
        Succeeded = "succeeded",
        /// Ended, with skipped or failed records.
        Partial = "partial",
        /// Given up; the next run covers its window too.
        Failed = "failed",
        /// Stopped by a person.
        Cancelled = "cancelled",
    }
}

impl RunStatus {
    /// Whether a run that stands there goes no further.
    #[must_use]
    pub fn is_end(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

words! {
    /// Who asked for a run.
    Trigger ("trigger") {
        /// The schedule.
        Schedule = "schedule",
        /// The schedule, after a missed sweep.
        CatchUp = "catch_up",
        /// `POST /runs`.
        Http = "http",
        /// The command line.
        Cli = "cli",
    }
}

words! {
    /// How the records that may have changed were found, and with that, what is guaranteed.
    Listing ("listing") {
        /// The server filters by time of change: every change since the watermark.
        Filter = "filter",
        /// The list is sorted by time of change, and read down to the watermark: every change since the watermark. One seventh of
        /// the list is read besides.
        Sort = "sort",
        /// The whole list is read: every change that its rows show. Where rows are summaries, other changes within
        /// `reconcile.detail_check_nights`.
        Scan = "scan",
        /// By day of creation: the new records, and a part of the older ones. All are read within 28 nights.
        Rotation = "rotation",
    }
}

words! {
    /// Why a run failed: one word for one thing to do.
    FailureKind ("failure kind") {
        /// No merchant of that id is registered.
        UnknownMerchant = "unknown_merchant",
        /// No token is stored for the merchant.
        NoToken = "no_token",
        /// The stored token cannot be decrypted.
        TokenDecryptionFailed = "token_decryption_failed",
        /// The token store does not answer.
        TokenStoreUnavailable = "token_store_unavailable",
        /// Salla refuses the merchant's tokens for good.
        NeedsReauthorization = "needs_reauthorization",
        /// The app was installed without a scope that is needed.
        MissingScope = "missing_scope",
        /// The app's own id or secret is missing or wrong.
        InvalidClientCredentials = "invalid_client_credentials",
        /// Salla asked for a longer pause than is waited for.
        RateLimited = "rate_limited",
        /// Salla cannot be reached or answers 5xx.
        SallaUnavailable = "salla_unavailable",
        /// Salla answers, but not in its own protocol.
        SallaInvalidResponse = "salla_invalid_response",
        /// Salla refuses the request.
        SallaRequestRejected = "salla_request_rejected",
        /// The merchant's server offers no listing that this version can rely on.
        ListingUnsupported = "listing_unsupported",
        /// The list cannot be known to be whole.
        ListingUnstable = "listing_unstable",
        /// More records than can be believed are gone at once.
        MassDeletionBlocked = "mass_deletion_blocked",
        /// A page was the previous page again.
        PaginationLoop = "pagination_loop",
        /// The list exceeds a limit.
        PaginationLimitExceeded = "pagination_limit_exceeded",
        /// The database cannot be reached or refuses to work.
        Database = "database",
        /// Another process took the run over.
        LeaseLost = "lease_lost",
        /// The merchant has a run in another process.
        AlreadyRunning = "already_running",
        /// The process of the run ended, and a later run covers its window.
        Abandoned = "abandoned",
        /// The processes of the run ended several times in a row.
        WorkerCrashLoop = "worker_crash_loop",
        /// The window has nothing in it.
        InvalidWindow = "invalid_window",
        /// A defect of this program.
        Internal = "internal",
    }
}

/// Why a run did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One word.
    pub kind: FailureKind,
    /// One sentence for the person on call, with what to do.
    pub message: String,
}

/// A run's id: UUID version 7, so ids sort by age.
pub type RunId = Uuid;

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Run {
    /// Its id.
    pub run_id: RunId,
    /// The merchant.
    pub merchant_id: MerchantId,
    /// Where it stands.
    pub status: RunStatus,
    /// Who asked for it.
    pub trigger: Trigger,
    /// The listing of the first kind of record; absent until the run starts.
    pub listing: Option<Listing>,
    /// Nothing is written by it.
    pub dry_run: bool,
    /// What it covers; absent until it begins.
    pub window: Option<Window>,
    /// What it counted so far, of all kinds together.
    pub totals: Totals,
    /// The result of each kind of record; empty until the run starts, unless the request named the kinds.
    pub resource_results: Vec<ResourceRun>,
    /// Requests sent to Salla so far.
    pub requests: u64,
    /// Why it failed.
    pub error: Option<Failure>,
    /// Why the run cannot go on yet, while it is queued or running.
    pub waiting: Option<Waiting>,
    /// When it was asked for.
    pub queued_at: DateTime<Utc>,
    /// When a worker first took it.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}
