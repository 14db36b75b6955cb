//! Salla's side: pages of records, and single ones.

use std::{future::Future, time::Duration};

use chrono::{DateTime, NaiveDate, Utc};

use super::CredentialError;
use crate::{
    domain::{Listing, MerchantId, OrderItem, Outcome, Record, RotationWindow, Scope, Summary, Unreadable},
    reconcile::walk::RowKey,
};

/// The merchant whose records are requested.
#[derive(Debug, Clone, Copy)]
pub struct MerchantContext<'a> {
    /// The merchant.
    pub merchant: MerchantId,
    /// The erased customers of the merchant.
    pub erased: &'a [i64],
}

/// Which page of which list.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest<'a> {
    /// The merchant whose list it is.
    pub whose: MerchantContext<'a>,
    /// The records that the list must contain.
    pub scope: Scope,
    /// Counted from 1.
    pub number: u32,
    /// How many rows a page is to have; `None`: as many as are configured.
    pub page_size: Option<u32>,
    /// Ask for the list sorted by id, if the server can: no two records have the same id.
    pub by_id: bool,
}

/// One page of a list, as it stood at one instant.
#[derive(Debug)]
pub struct Page<R> {
    /// Its rows, in the order in which they came.
    pub rows: Vec<Listed<R>>,
    /// How many pages there are by the server's own account; `None` when it does not say.
    pub total_pages: Option<u32>,
    /// How many rows there are, likewise.
    pub total: Option<u64>,
    /// The time on the server's clock; `None` when it does not say.
    pub served_at: Option<DateTime<Utc>>,
    /// A row broke an answer to the same request, and is not among the rows: it stood elsewhere in the next answer.
    pub is_broken: bool,
    /// The server does not keep to the scope, and why; the records have to be found in another way.
    pub out_of_scope: Option<&'static str>,
    /// The list is longer than the server lets it be read: the first and the last day of what it holds.
    pub too_long: Option<(NaiveDate, NaiveDate)>,
}

/// A row, with what the walk goes by.
#[derive(Debug)]
pub struct Listed<R> {
    /// The input of the walk.
    pub key: RowKey,
    /// What it holds.
    pub row: Row<R>,
}

impl<R> Listed<R> {
    /// Whether the answer fails that holds the row. Its id is not known, and the one in its key stands for its place.
    #[must_use]
    pub fn breaks_its_page(&self) -> bool {
        matches!(&self.row, Row::Unreadable(bad) if bad.outcome == Outcome::Failed && bad.id.is_none())
    }
}

/// What a row holds.
#[derive(Debug)]
pub enum Row<R> {
    /// All of a record.
    Whole(R),
    /// Too little to store.
    Summary(Summary),
    /// Nothing that can be read.
    Unreadable(Unreadable),
}

/// The records of one kind on Salla's side.
///
/// Retries, limits and tokens are the adapter's own affair: an error is its last word. Every call may be dropped at
/// any await without loss, and raises `requests` by each request sent.
pub trait Source<R: Record>: Send + Sync {
    /// Whether the list of a merchant can be read only whole or by days of creation. Then it is
    /// better to read the older records of a large list by rotation.
    fn supports_rotation(&self) -> bool;

    /// Whether the rows of a list may be summaries, so that details have to be read.
    fn shows_summaries(&self) -> bool;

    /// Whether a merchant's list may be read sorted by time of change.
    fn supports_sort(&self) -> bool;

    /// The list of what was created in a slice.
    fn slice_scope(&self, slice: RotationWindow) -> Scope;

    /// The lists to read, the first one last, for what changed at or after `since`, and what they promise. With a `slice`:
    /// that, and what was created since.
    fn begin(&self, since: DateTime<Utc>, slice: Option<RotationWindow>) -> (Vec<Scope>, Listing);

    /// Reads one page.
    fn page(
        &self,
        request: PageRequest<'_>,
        requests: &RequestCount,
    ) -> impl Future<Output = Result<Page<R>, SourceError>> + Send;

    /// Reads one record at its own address; `None`: Salla says that it is gone. `suspect`: earlier attempts failed, so that
    /// the error probably concerns only this record.
    fn record(
        &self,
        whose: MerchantContext<'_>,
        id: i64,
        suspect: bool,
        requests: &RequestCount,
    ) -> impl Future<Output = Result<Option<Result<R, Unreadable>>, SourceError>> + Send;

    /// Whether the list of the days around its creation shows a record.
    fn is_listed(
        &self,
        whose: MerchantContext<'_>,
        record: &R,
        requests: &RequestCount,
    ) -> impl Future<Output = Result<bool, SourceError>> + Send;

    /// Whether records of this kind have items that must be read.
    fn has_items(&self) -> bool;

    /// Reads the items of one record; otherwise as [`Source::record`].
    fn lines(
        &self,
        whose: MerchantContext<'_>,
        id: i64,
        suspect: bool,
        requests: &RequestCount,
    ) -> impl Future<Output = Result<ItemsRead, SourceError>> + Send;
}

/// The items of one record, as in [`Source::record`].
pub type ItemsRead = Option<Result<Vec<OrderItem>, Unreadable>>;

/// How many requests a run has sent.
#[derive(Debug, Clone, Default)]
pub struct RequestCount(std::sync::Arc<std::sync::atomic::AtomicU64>);

impl RequestCount {
    /// Goes on counting from `sent`.
    #[must_use]
    pub fn from(sent: u64) -> Self {
        Self(std::sync::Arc::new(sent.into()))
    }

    /// Counts one request.
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
        /// The merchant.
        merchant: MerchantId,
        /// Salla's words, or ours.
        reason: String,
    },
    /// The app lacks a scope.
    #[error("the token lacks the scope {scope}: {reason}")]
    MissingScope {
        /// The one that is needed.
        scope: &'static str,
        /// Salla's words.
        reason: String,
    },
    /// The app's own id or secret is missing or wrong.
    #[error("the token cannot be refreshed: {0}")]
    ClientCredentials(String),
    /// Salla asks for a pause.
    #[error("Salla limits the requests of the merchant{}", after(*.retry_after))]
    RateLimited {
        /// For how long, if it says.
        retry_after: Option<Duration>,
    },
    /// Salla cannot be reached, or answers 5xx, after every attempt.
    #[error("Salla is unavailable: {reason}")]
    Unavailable {
        /// What happened to the last attempt.
        reason: String,
        /// Whether a row of the answer may be the cause: the request was sent, and no pause was announced.
        per_row: bool,
    },
    /// Salla does not answer for this merchant only; its circuit is open.
    #[error("Salla does not answer for this merchant ({reason}); next attempt in {}", whole_seconds(*pause))]
    OpenCircuit {
        /// Until it is asked again.
        pause: Duration,
        /// What happened to the last request.
        reason: String,
    },
    /// The limit of the IP address is used up.
    #[error("the request limit of this IP address is used up for {}", whole_seconds(*pause))]
    AddressLimit {
        /// Until some of it is there again, at the earliest.
        pause: Duration,
    },
    /// Salla has not been answering, and was not asked again.
    #[error("Salla is unavailable: the circuit is open, and no request was sent")]
    NotAsked,
    /// The answer is not Salla's protocol.
    #[error("unexpected answer of Salla: {reason}")]
    Malformed {
        /// The problem of the answer.
        reason: String,
    },
    /// The answer redirects. Tokens are sent to the configured host only.
    #[error("unexpected answer of Salla: {status}: redirects are not followed")]
    Redirected {
        /// The status of the answer.
        status: u16,
    },
    /// Salla says that what was asked for is not there, or no more.
    #[error("Salla refuses the request: {reason}")]
    NotFound {
        /// Salla's words.
        reason: String,
    },
    /// Salla refuses the request itself.
    #[error("Salla refuses the request: {reason}")]
    Rejected {
        /// Salla's words.
        reason: String,
    },
    /// The list cannot be relied on.
    #[error("the list of the merchant cannot be read completely: {reason}")]
    ListingUnsupported {
        /// Why.
        reason: String,
    },
}

impl SourceError {
    /// Asked for a single record, it may be that record's trouble alone.
    #[must_use]
    pub fn is_per_record(&self) -> bool {
        matches!(
            self,
            Self::Rejected { .. } | Self::Malformed { .. } | Self::Redirected { .. } | Self::Unavailable { .. }
        )
    }
}

impl SourceError {
    /// Whether a single row of the page may have caused it.
    #[must_use]
    pub fn is_per_row(&self) -> bool {
        match self {
            Self::Malformed { .. } => true,
            Self::Unavailable { per_row, .. } => *per_row,
            _ => false,
        }
    }
}

fn after(pause: Option<Duration>) -> String {
    pause.map_or_else(String::new, |pause| format!(": it asks to wait for {}", whole_seconds(pause)))
}

/// A duration for people, such as `1m 5s`.
fn whole_seconds(pause: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(pause.as_secs_f64().ceil() as u64))
}
