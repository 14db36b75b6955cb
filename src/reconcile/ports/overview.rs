//! The port of the dashboard: sweeps, merchants needing attention, tokens, sessions.

use std::{future::Future, time::Duration};

use chrono::{DateTime, Utc};

use super::DatabaseError;
use crate::domain::{Merchant, MerchantId, Run, RunStatus, Totals, Trigger};

/// A sweep, with the totals of its runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepSummary {
    /// When it was due.
    pub scheduled_for: DateTime<Utc>,
    /// Whether it was on time or made up for; `None`: it was skipped.
    pub trigger: Option<Trigger>,
    /// How many runs it made.
    pub made: u64,
    /// When it made them.
    pub started_at: DateTime<Utc>,
    /// From then to the last run's end; `None`: some have not ended.
    pub took: Option<Duration>,
    /// Number of runs by status, with their totals; empty if they were removed.
    pub runs: Vec<(RunStatus, u64, Totals)>,
}

impl SweepSummary {
    /// The number of runs with this status.
    #[must_use]
    pub fn count(&self, status: RunStatus) -> u64 {
        self.runs.iter().filter(|(at, ..)| *at == status).map(|(_, runs, _)| runs).sum()
    }

    /// The number of ended runs.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.runs.iter().filter(|(at, ..)| at.is_end()).map(|(_, runs, _)| runs).sum()
    }

    /// What its runs counted together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.runs.iter().fold(Totals::default(), |mut sum, (.., totals)| {
            sum += *totals;
            sum
        })
    }
}

/// A merchant that needs a hand, or at least a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MerchantIssue {
    /// Which.
    pub merchant: Merchant,
    /// It is active, and nothing has covered it for longer than a day and two hours.
    pub overdue: bool,
    /// Its last run that has ended.
    pub last: Option<Run>,
}

/// How a merchant's tokens stand. The tokens themselves are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenState {
    /// When they came from Salla.
    pub issued_at: DateTime<Utc>,
    /// When the access token ends; `None`: Salla did not say.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether there is a refresh token.
    pub renewable: bool,
    /// The start of a refresh that runs, or whose outcome is unknown.
    pub refresh_started_at: Option<DateTime<Utc>>,
    /// Since when Salla refuses them.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// The queries of the dashboard beside those of runs and merchants.
pub trait Overview: Clone + Send + Sync + 'static {
    /// The latest sweeps, newest first.
    fn sweeps(&self, limit: u64) -> impl Future<Output = Result<Vec<SweepSummary>, DatabaseError>> + Send;

    /// Returns the merchants that need attention, at most `limit` of each kind. First come those
    /// that need a reauthorization, and then overdue ones, each with the oldest watermark first.
    /// Last come those whose last run failed or was partial.
    fn attention(&self, limit: u64) -> impl Future<Output = Result<Vec<MerchantIssue>, DatabaseError>> + Send;

    /// The state of the tokens of a merchant; `None` without tokens.
    fn token(&self, merchant: MerchantId) -> impl Future<Output = Result<Option<TokenState>, DatabaseError>> + Send;

    /// Ends a session of the pages before its time, in every process.
    fn end_session(&self, id: &str, ends_at: DateTime<Utc>) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// Whether a session was ended before its time.
    fn session_has_ended(&self, id: &str) -> impl Future<Output = Result<bool, DatabaseError>> + Send;
}
