//! The port of the database: look-ups and page commits.

use std::{collections::HashMap, future::Future};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::{Cursor, Lease, Seen};
use crate::domain::{
    BackfillRule, ContentHash, Decision, LastDetailCheck, MerchantId, OrderItem, Outcome, Record, ResourceRun,
    RotationPace, RotationWindow, RunId, SortedList, StoredRecord, Totals, Unreadable,
};

/// Any error of an adapter, kept as the cause.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An id with the stored time of change, if known.
pub type StoredVersion = (i64, Option<DateTime<Utc>>);

/// One record of a page, with what is to be done about it.
#[derive(Debug)]
pub struct AssessedRecord<R: Record> {
    /// The record.
    pub record: R,
    /// The planned action.
    pub decision: Decision,
    /// The stored version when the record was assessed.
    pub stored: Option<StoredRecord<R>>,
    /// The run has counted it before: it is written if it is newer, and not counted again.
    pub repeat: bool,
}

/// A record whose details were read because a summary was not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetailCheckResult {
    /// The record.
    pub id: i64,
    /// The hash of the row that the list shows; `None`: the list does not show the record.
    pub summary: Option<ContentHash>,
    /// The time of change that the details showed.
    pub changed: Option<DateTime<Utc>>,
    /// The content hash of the stored record after this commit.
    pub stored: ContentHash,
    /// The stored record is newer than the details, and different.
    pub newer_locally: bool,
}

/// What the database knows of a sorted list before a run.
#[derive(Debug, Clone, Copy)]
pub struct SortedListRead {
    /// The state that the last run left.
    pub list: SortedList,
    /// How many records are stored and not marked deleted.
    pub stored: u64,
    /// The oldest details of these records; `None`: the details of some were never read.
    pub details_since: Option<DateTime<Utc>>,
}

/// What a page, or some single records, lead to.
#[derive(Debug)]
pub struct Batch<R: Record> {
    /// Distinct records.
    pub records: Vec<AssessedRecord<R>>,
    /// Rows that could not be transformed.
    pub unreadable: Vec<Unreadable>,
    /// Records that cannot be read and that a row stands for that broke its page and is counted.
    pub counted_already: Vec<Unreadable>,
    /// The items of some records by id. They replace the stored items.
    pub items: HashMap<i64, Vec<OrderItem>>,
    /// Summaries that were enough: their records are as they were.
    pub unchanged: u64,
    /// How many of these were newer than their details, and different, when the details were last read.
    pub newer_locally: u64,
    /// Summaries that were not, for later runs to compare with.
    pub checked: Vec<DetailCheckResult>,
    /// Records that Salla says are gone, and the version that was held when it was asked: those that are still held
    /// so are marked.
    pub deleted: Vec<StoredVersion>,
    /// Previously failed records in this batch. Those that succeed now leave `failed_records`.
    pub recovered: Vec<i64>,
    /// The ids that were seen; each pass at most once.
    pub seen: Seen,
    /// The latest stamp that Salla's clock can have made by now. A stored version that is later is not newer.
    pub latest: Option<DateTime<Utc>>,
    /// The time of the first request for these records. A deletion that another writer marked since then stays.
    pub asked_at: Instant,
    /// The same by the clock that is behind: the clock of the database, or of Salla.
    pub asked_on: DateTime<Utc>,
}

impl<R: Record> Default for Batch<R> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            unreadable: Vec::new(),
            counted_already: Vec::new(),
            items: HashMap::new(),
            unchanged: 0,
            newer_locally: 0,
            checked: Vec::new(),
            deleted: Vec::new(),
            recovered: Vec::new(),
            seen: Seen::new(),
            latest: None,
            asked_at: Instant::now(),
            asked_on: DateTime::UNIX_EPOCH,
        }
    }
}

impl<R: Record> Batch<R> {
    /// Whether the batch contains no difference and no new knowledge.
    pub fn is_unchanged(&self) -> bool {
        let Self { records, unreadable, counted_already, items, checked, deleted, recovered, .. } = self;
        let is_readable = unreadable.is_empty() && counted_already.is_empty();
        let nothing_else = is_readable && items.is_empty() && checked.is_empty();
        nothing_else
            && self.newer_locally == 0
            && deleted.is_empty()
            && recovered.is_empty()
            && records.iter().all(|record| record.decision == Decision::Unchanged)
    }

    /// How many records it counts as unchanged, when it is quiet.
    pub fn unchanged(&self) -> u64 {
        self.unchanged + self.records.iter().filter(|record| !record.repeat).count() as u64
    }
}

/// A batch and where the run stands with it, committed at once.
#[derive(Debug)]
pub struct PageCommit<'a, R: Record> {
    /// The batch to write.
    pub batch: &'a Batch<R>,
    /// The progress before this page.
    pub resource_runs: &'a [ResourceRun],
    /// The index of the resource run that the page belongs to.
    pub at: usize,
    /// Requests sent so far.
    pub requests: u64,
    /// Where to go on after this page.
    pub cursor: &'a Cursor,
    /// Assess and count, and write no record.
    pub dry_run: bool,
    /// Which differences do not count as drift.
    pub backfill: BackfillRule,
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The totals of this kind of record up to and including this page, by the report of the database.
    pub totals: Totals,
    /// A person asked to stop the run.
    pub cancel: bool,
}

/// The records that a list must contain.
#[derive(Debug, Clone, Copy)]
pub enum ExpectedRecords {
    /// Records whose time stamp is at or after the first instant, and before the second.
    ChangedSince(DateTime<Utc>, DateTime<Utc>),
    /// Records that were created before an instant, or at an unknown time.
    CreatedBefore(DateTime<Utc>),
    /// Records that were created in a slice, or from the first instant on and before the second.
    InRotation(RotationWindow, DateTime<Utc>, DateTime<Utc>),
}

/// The platform's own copy of the records of one kind.
pub trait RecordStore<R: Record>: Send + Sync {
    /// The stored records of `ids` (in any order, without duplicates); one query.
    fn look_up(
        &self,
        merchant: MerchantId,
        ids: &[i64],
    ) -> impl Future<Output = Result<HashMap<i64, StoredRecord<R>>, DatabaseError>> + Send;

    /// The result of the last reading of the details of each of `ids`.
    fn checks(
        &self,
        merchant: MerchantId,
        ids: &[i64],
    ) -> impl Future<Output = Result<HashMap<i64, LastDetailCheck>, DatabaseError>> + Send;

    /// Returns the slice of the older records that is due. `None`: all must be read, because they
    /// are few, or the creation time of some is unknown.
    fn slice(
        &self,
        merchant: MerchantId,
        pace: RotationPace,
    ) -> impl Future<Output = Result<Option<RotationWindow>, DatabaseError>> + Send;

    /// The stored state of the sorted list of a merchant. The merchant's records are covered up to the instant
    /// `covered`.
    fn sorted_list(
        &self,
        merchant: MerchantId,
        covered: DateTime<Utc>,
    ) -> impl Future<Output = Result<SortedListRead, DatabaseError>> + Send;

    /// Stored records whose details were last read before an instant, without those marked deleted: `oldest` with the
    /// oldest details, and `drawn` at random.
    fn samples(
        &self,
        merchant: MerchantId,
        before: DateTime<Utc>,
        oldest: usize,
        drawn: usize,
    ) -> impl Future<Output = Result<Vec<i64>, DatabaseError>> + Send;

    /// How much is held, not marked as gone, and ought to be listed. And of that the ids and versions of what was not
    /// `seen`: a merchant may hold more than fits into memory.
    fn unseen(
        &self,
        merchant: MerchantId,
        ought: ExpectedRecords,
        seen: &(dyn Fn(i64) -> bool + Sync),
    ) -> impl Future<Output = Result<(usize, Vec<StoredVersion>), DatabaseError>> + Send;

    /// The ids of what could not be read or written and has not been since, those not tried for longest first.
    fn failed_records(&self, merchant: MerchantId) -> impl Future<Output = Result<Vec<i64>, DatabaseError>> + Send;

    /// Writes differing records, marks deleted ones, and stores the discrepancies, the totals and
    /// the cursor. All of this is one transaction, fenced by the lease. A row that became newer
    /// meanwhile is left alone and counts as unchanged. A row that the database refuses counts as
    /// failed, and leaves its neighbours alone. The call is safe to repeat if the outcome is
    /// unknown. It must not be dropped half-way.
    fn commit(
        &self,
        lease: &Lease,
        page: PageCommit<'_, R>,
    ) -> impl Future<Output = Result<Committed, DatabaseError>> + Send;
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It cannot be reached, or does not answer in time.
    #[error("the database is unavailable: {0}")]
    Unavailable(Cause),
    /// The database, a table, or a right to them is missing.
    #[error("the database cannot be used: {0}")]
    Unusable(Cause),
    /// It refuses.
    #[error("the database refuses: {0}")]
    Refused(Cause),
    /// Another process holds the run now; nothing was written.
    #[error("the lease on run {0} is lost: another process took over the run, or it ended")]
    LeaseLost(RunId),
}

impl DatabaseError {
    /// The message for callers of the API: without the words of the database, which may quote values.
    #[must_use]
    pub fn summary(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "the database is unavailable",
            Self::Unusable(_) => "the database cannot be used; /readyz and `check` say why",
            Self::Refused(_) => "the database refuses",
            Self::LeaseLost(_) => "another process took over the run, or it ended",
        }
    }
}

impl<R: Record> AssessedRecord<R> {
    /// The outcome of the record, if the database does what is asked.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.decision {
            Decision::Create => Outcome::Created,
            Decision::Update { .. } | Decision::Restore => Outcome::Updated,
            Decision::NewerLocally | Decision::Unchanged | Decision::Adopt => Outcome::Unchanged,
        }
    }
}
