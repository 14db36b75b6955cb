//! The platform's side: what is held, and how a page is committed.

use std::future::Future;

use chrono::{DateTime, Utc};

use super::{Cursor, Lease};
use crate::domain::{Held, MerchantId, Outcome, Record, RunId, Totals, Unreadable, Verdict, Window};

/// Any error of an adapter, kept as the cause.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

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
