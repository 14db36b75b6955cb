//! Salla's side: pages of records.

use std::{future::Future, time::Duration};

use chrono::{DateTime, Utc};

use super::CredentialError;
use crate::domain::{MerchantId, Record, Unreadable};

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
