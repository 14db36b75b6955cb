//! The walk over a list that the server sorts by time of change, newest first, down to the changes that earlier runs
//! have read. `docs/explanation/guarantees.md` has the argument.
//!
//! 1. The first reading reads page by page, and the details of each row, until three rows in succession are older than
//!    the threshold.
//! 2. Behind these rows, pages are read for evidence that the server sorts (`evidence.rs`).
//! 3. Further readings show the same rows again, until the proof by count succeeds (`proof.rs`).
//!
//! The walk makes no request. It says which request is next, and takes in the answer, so that tests can run it against
//! servers in memory.

mod evidence;
mod proof;
mod readings;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};

pub use self::rules::Rules;
use crate::domain::SortedListResult;

/// Details are read this many at a time: enough to tell an error of one order from an error of the merchant.
const DETAILS_AT_ONCE: usize = 8;

/// The server lets no list be read much further.
const MAX_ROWS: usize = 9_000;

/// The largest number of pages that are read behind the boundary for evidence.
const MAX_EVIDENCE_PAGES: u32 = 11;

/// The largest number of further readings.
const MAX_READINGS: u32 = 16;

/// The details of so many orders can be read in one night: eight minutes at 120 requests per minute.
const SMALL_STORE: usize = 1_000;

/// So many answers in further readings are cheap for a store of any size.
const CHEAP_ANSWERS: usize = 30;

/// Differences up to this are neither for an order of the list nor against it.
const GRAIN: TimeDelta = TimeDelta::seconds(60);

type Stamp = DateTime<Utc>;

/// The task of a walk.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Every change at or after this instant must be read.
    pub threshold: Stamp,
    /// Changes at or after this instant may still be on their way into the list. They prove nothing.
    pub recent_since: Stamp,
    /// How many orders are stored.
    pub stored: usize,
}

/// A row of a page, with what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct SortedRow {
    /// The id of the order.
    pub id: i64,
    /// The creation date that the row shows.
    pub created_at: Option<Stamp>,
    /// The time of change of the stored copy, if this program wrote it.
    pub stored: Option<Stamp>,
    /// The time of change in details that this run read in an earlier process.
    pub read_earlier: Option<Stamp>,
    /// The details must be read wherever the row stands: the order is not stored, or it differs from its row.
    pub is_due: bool,
}

/// A page of the list.
#[derive(Debug, Clone, Copy)]
pub struct SortedPage<'a> {
    pub rows: &'a [SortedRow],
    pub total_pages: Option<u32>,
    /// Salla's clock.
    pub served_at: Option<Stamp>,
}

/// The next step of a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Read a page; `page_size`: `None` means the usual size.
    Page { number: u32, page_size: Option<u32> },
    /// Read the details of these orders.
    Details(Vec<i64>),
    /// The walk is over.
    Done(Conclusion),
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// Every change since the threshold has been read.
    Complete,
    /// The list gave no proof, and nothing speaks against it.
    Inconclusive(SortedListResult),
    /// So many orders changed that all details must be read.
    TooManyChanges,
    /// The server does not sort by time of change: the order further behind has the later change.
    NotSorted { nearer: (i64, Stamp), further: (i64, Stamp) },
}

impl Conclusion {
    /// Whether the scan after the walk reads the details of all orders; `stored`: how many orders are stored.
    ///
    /// Otherwise the watermark would stay, and each further night would show the same changes. A list with many equal time
    /// stamps can be unstable each night. Only a small store is asked for all details because of that.
    pub fn needs_all_details(self, stored: usize) -> bool {
        match self {
            Self::TooManyChanges => true,
            Self::Inconclusive(SortedListResult::Unstable) => stored <= SMALL_STORE,
            Self::Complete | Self::Inconclusive(_) | Self::NotSorted { .. } => false,
        }
    }
}

/// An answer to a request for a page.
#[derive(Debug)]
struct Answer {
    reading: u32,
    number: u32,
    /// The page is the last one, by its own account.
    is_last: bool,
    served_at: Option<Stamp>,
    ids: Vec<i64>,
}

/// Details of an order.
#[derive(Debug, Clone, Copy)]
struct Detail {
    /// The number of answers before the details were read.
    answers_before: usize,
    /// `None`: the order is gone, or has no readable time of change.
    stamp: Option<Stamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The first reading, down to the boundary.
    Prefix,
    /// Pages behind the boundary.
    Behind {
        pages: u32,
    },
    /// A further reading.
    Again,
    Over(Conclusion),
}

/// The state of a walk.
#[derive(Debug)]
pub struct SortedWalk {
    bounds: Bounds,
    rules: Rules,
    phase: Phase,
    answers: Vec<Answer>,
    details: HashMap<i64, Vec<Detail>>,
    /// Stored times of change and creation dates, by id.
    stored: HashMap<i64, Stamp>,
    created: HashMap<i64, Stamp>,
    due: HashSet<i64>,
    /// Details to read before the walk goes on.
    queue: VecDeque<i64>,
    /// Details that were requested last.
    requested: Vec<i64>,
    /// The reading and the page that come next.
    reading: u32,
    next_page: u32,
    /// How many rows the first reading showed before its boundary.
    prefix_rows: usize,
    /// The rows of page 1 of each reading.
    page_rows: Vec<usize>,
    /// Readings with pages of different sizes prove nothing.
    uneven: HashSet<u32>,
    /// Orders whose details were read twice because they contradicted the order of the list.
    rechecked: HashSet<i64>,
}

impl SortedWalk {
    pub fn new(bounds: Bounds, rules: Rules) -> Self {
        Self {
            bounds,
            rules,
            phase: Phase::Prefix,
            answers: Vec::new(),
            details: HashMap::new(),
            stored: HashMap::new(),
            created: HashMap::new(),
            due: HashSet::new(),
            queue: VecDeque::new(),
            requested: Vec::new(),
            reading: 0,
            next_page: 1,
            prefix_rows: 0,
            page_rows: Vec::new(),
            uneven: HashSet::new(),
            rechecked: HashSet::new(),
        }
    }

    /// The next request, or the conclusion.
    pub fn next(&mut self) -> Step {
        if let Phase::Over(conclusion) = self.phase {
            return Step::Done(conclusion);
        }
        if !self.queue.is_empty() {
            let count = self.queue.len().min(DETAILS_AT_ONCE);
            self.requested = self.queue.drain(..count).collect();
            return Step::Details(self.requested.clone());
        }
        Step::Page { number: self.next_page, page_size: self.page_size() }
    }

    /// Takes in the page that was next.
    pub fn admit_page(&mut self, page: SortedPage<'_>) {
        let number = self.next_page;
        for row in page.rows {
            self.admit_row(row);
        }
        if number == 1 {
            self.page_rows.push(page.rows.len());
        }
        let is_last = page.rows.is_empty() || page.total_pages.is_some_and(|pages| number >= pages);
        if !is_last && page.rows.len() != self.page_rows[self.reading as usize] {
            self.uneven.insert(self.reading);
        }
        let ids = page.rows.iter().map(|row| row.id).collect();
        self.answers.push(Answer { reading: self.reading, number, is_last, served_at: page.served_at, ids });
        self.next_page += 1;
        match self.phase {
            Phase::Prefix => self.queue_prefix(),
            Phase::Behind { .. } => self.queue_due(0),
            Phase::Again => self.queue_again(),
            Phase::Over(_) => {}
        }
        self.proceed();
    }

    /// Takes in the details that were requested: for each order its time of change, or `None` if the order is gone or
    /// cannot be read.
    pub fn admit_details(&mut self, stamps: &HashMap<i64, Option<Stamp>>) {
        let answers_before = self.answers.len();
        for id in std::mem::take(&mut self.requested) {
            self.note(id, Detail { answers_before, stamp: stamps.get(&id).copied().flatten() });
        }
        self.proceed();
    }

    /// Whether the details of an order were read.
    pub fn has_read(&self, id: i64) -> bool {
        self.details.contains_key(&id)
    }

    /// Whether the list is read for the first time.
    pub fn is_in_first_reading(&self) -> bool {
        self.reading == 0
    }

    fn admit_row(&mut self, row: &SortedRow) {
        if let Some(created_at) = row.created_at {
            self.created.insert(row.id, created_at);
        }
        if let Some(stored) = row.stored {
            self.stored.insert(row.id, stored);
        }
        if let Some(stamp) = row.read_earlier
            && !self.details.contains_key(&row.id)
        {
            self.note(row.id, Detail { answers_before: 0, stamp: Some(stamp) });
        }
        let is_recent = row.stored.is_some_and(|stored| stored >= self.bounds.threshold);
        if row.is_due || is_recent {
            self.due.insert(row.id);
        }
    }

    fn note(&mut self, id: i64, detail: Detail) {
        self.details.entry(id).or_default().push(detail);
    }

    /// Decides what comes after the answers so far.
    fn proceed(&mut self) {
        if let Phase::Prefix = self.phase {
            self.look_for_boundary();
        }
        if !self.queue.is_empty() {
            return;
        }
        match self.phase {
            Phase::Prefix => self.continue_prefix(),
            Phase::Behind { pages } => self.judge_evidence(pages),
            Phase::Again => self.continue_again(),
            Phase::Over(_) => {}
        }
    }

    fn end(&mut self, conclusion: Conclusion) {
        self.queue.clear();
        self.phase = Phase::Over(conclusion);
    }

    /// The time of change in the last details of an order.
    fn detail(&self, id: i64) -> Option<Stamp> {
        self.details_of(id).last()?.stamp
    }

    /// Everything that was read of the details of an order.
    fn details_of(&self, id: i64) -> &[Detail] {
        self.details.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The details of an order that were read after answer `at`.
    fn details_after(&self, id: i64, at: usize) -> impl Iterator<Item = &Detail> {
        self.details_of(id).iter().filter(move |detail| detail.answers_before > at)
    }

    /// Whether details that were read after answer `at` are older than the threshold.
    fn is_old_after(&self, id: i64, at: usize) -> bool {
        if !self.rules.confirms_boundary {
            return self.is_old(self.detail(id));
        }
        self.details_after(id, at).any(|detail| self.is_old(detail.stamp))
    }

    fn is_old(&self, stamp: Option<Stamp>) -> bool {
        stamp.is_some_and(|stamp| stamp < self.bounds.threshold)
    }

    /// Whether the last details of an order show a change since the threshold.
    fn is_changed(&self, id: i64) -> bool {
        self.detail(id).is_some_and(|stamp| stamp >= self.bounds.threshold)
    }

    /// The best known time of change of an order: of details, or of the stored copy.
    fn known(&self, id: i64) -> Option<Stamp> {
        match self.details_of(id).last() {
            Some(detail) => detail.stamp,
            None => self.stored.get(&id).copied(),
        }
    }

    /// The answer that was taken in last. Each phase goes on after an answer.
    fn last_answer(&self) -> &Answer {
        &self.answers[self.answers.len() - 1]
    }
}
