//! The walk over the pages of a list that changes during the reading. It decides which page comes
//! next, and when the list is known to be read whole. `docs/explanation/guarantees.md` has the
//! argument.
//!
//! - If the list certainly runs from old to new, the walk reads its pages from the last to the
//!   first. Every change meanwhile moves an untouched row towards page 1 only. So the row cannot
//!   get behind the reader.
//! - If the list certainly runs from new to old, the walk reads its pages forward. New rows push
//!   others away from page 1. If `total` says that rows are gone, the reader steps back by as many
//!   rows.
//! - The walk reads the end where changes arrive again, until it shows nothing new.
//! - If records with one time stamp lie across a page boundary, their order may differ in each
//!   answer. Then the walk counts the records (`count.rs`), and rows that are shown twice prove
//!   nothing.
//! - The walk reads any other list to its end, and again with other page sizes. The list is read
//!   whole when the records of one instant are as many as `total` at that instant.
//!
//! A short page is never taken for the last one: Salla may return fewer rows than asked for.

mod count;
mod error;
mod failed_rows;
mod page;
mod page_sizes;
mod phase;
mod reading;
mod sort_order;
mod transitions;

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use count::{Count, Met};
pub use error::WalkError;
use error::{Distance, check};
pub use page::{Answer, RowKey};
pub use page_sizes::page_size_for_reading;
use phase::{NewRows, Phase, Round};
use reading::{CompletedScan, ScanInProgress};
use sort_order::{SortOrderDetector, changed_since};
use transitions::is_last;

use crate::domain::SETTLING;

/// How often at most the end where changes arrive is read again.
const EDGE_ROUNDS: u8 = 3;

/// How often at most a list of unknown order is read.
const READINGS: usize = 3;

/// The maximum number of readings of a list in which records with one time stamp lie across page
/// boundaries. Each reading shows about two thirds of the missing records.
const READINGS_WITH_TIES: usize = 16;

/// The number of readings without a new record after which such a list fails.
const STALE_READINGS: usize = 6;

/// So many answers a page are not the way to read a list.
const ANSWERS_A_PAGE: u32 = 32;

/// The largest number of readings in all.
const MAX_ANSWERS: u32 = 20_000;

/// When each record was last seen, by the number of the pass. Memory: some twenty bytes a record.
pub type SeenIds = HashMap<i64, u32>;

/// The state of a walk over one list. It is stored in the cursor of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListWalk {
    stage: Phase,
    order: SortOrderDetector,
    /// Records seen in earlier passes than this belong to other lists.
    first_pass: u32,
    pass: u32,
    answers: u32,
    stale_pages: u32,
    same_pages: u32,
    /// Different records seen in this list.
    distinct: u64,
    first_total_pages: Option<u32>,
    total: Option<u64>,
    /// How many rows page 1 had; `uneven`: another one had a different number.
    page_rows: usize,
    uneven: bool,
    /// How many rows page 1 had in the first reading.
    first_page_rows: usize,
    /// Records with one stamp lie across a page boundary.
    has_ties: bool,
    /// The present reading asks for the list sorted by id.
    #[serde(default)]
    by_id: bool,
    count: Count,
    reading: ScanInProgress,
    /// The readings that have come to their end.
    readings: Vec<CompletedScan>,
    /// The numbers that stand for rows that break their pages.
    #[serde(default)]
    failed_rows: Vec<i64>,
    /// How many answers a row broke that then stood elsewhere.
    #[serde(default)]
    broken_answers: u64,
    /// Rows that no reading showed, because they break every answer that holds them.
    #[serde(default)]
    unread: u64,
    #[serde(skip)]
    previous: Option<(u32, Vec<RowKey>)>,
}

impl ListWalk {
    /// A walk over a list, whose first pass gets this number. `entered_by_change`: a change can bring a record into
    /// the list that was not in it.
    pub fn new(entered_by_change: bool, pass: u32) -> Self {
        Self {
            stage: Phase::First,
            order: SortOrderDetector::new(entered_by_change),
            first_pass: pass,
            pass,
            answers: 0,
            stale_pages: 0,
            same_pages: 0,
            distinct: 0,
            first_total_pages: None,
            total: None,
            page_rows: 0,
            uneven: false,
            first_page_rows: 0,
            has_ties: false,
            by_id: false,
            count: Count::default(),
            reading: ScanInProgress::default(),
            readings: Vec::new(),
            failed_rows: Vec::new(),
            broken_answers: 0,
            unread: 0,
            previous: None,
        }
    }

    /// The page to read next; `None`: the list has been read whole.
    pub fn next(&self) -> Option<u32> {
        match self.stage {
            Phase::First => Some(1),
            Phase::Through { next, .. } | Phase::Edge { next, .. } | Phase::Verify { next } => Some(next),
            Phase::Whole => None,
        }
    }

    /// How many rows to ask for a page; `None`: as many as usual.
    pub fn page_size(&self) -> Option<u32> {
        let again = self.pass.checked_sub(self.first_pass + 1)?;
        let usual = u32::try_from(self.first_page_rows).ok().filter(|rows| *rows > 0)?;
        Some(page_size_for_reading(usual, again))
    }

    /// Whether to ask for the list sorted by id: there, records with one stamp stand in one order. A server may ignore it, so
    /// every second further reading only has other page sizes.
    pub fn is_by_id(&self) -> bool {
        self.by_id
    }

    /// How many rows the list holds that no reading showed, because they break every answer that holds them.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    /// The number of the present pass.
    pub fn pass(&self) -> u32 {
        self.pass
    }

    /// Takes in the page that was next, which `began` when Salla's clock showed it, and moves on. Returns for each
    /// row the pass that saw it last.
    pub fn admit(
        &mut self,
        answer: Answer<'_>,
        seen: &mut SeenIds,
        began: Option<DateTime<Utc>>,
        elapsed: Duration,
    ) -> Result<Vec<Option<u32>>, WalkError> {
        let number = self.next().unwrap_or(1);
        // Rows on no page: the server does not know how many pages there are.
        let total_pages = answer.total_pages.filter(|&pages| pages > 0 || answer.rows.is_empty());
        let answer = Answer { total_pages, ..answer };
        self.broken_answers += u64::from(answer.is_broken);
        let pass = self.pass;
        let marks: Vec<_> = answer.rows.iter().map(|row| seen.insert(row.id, pass)).collect();
        let new = |mark: &Option<u32>| mark.is_none_or(|mark| mark < self.first_pass);
        let news: Vec<&RowKey> =
            answer.rows.iter().zip(&marks).filter(|(_, mark)| new(mark)).map(|(row, _)| row).collect();
        let settled_until = began.map(|began| began - SETTLING);
        let late = |row: &&RowKey| changed_since(row, settled_until);
        let first_is_settled_news = |row: &&RowKey| marks.first().is_some_and(new) && !late(row);
        self.look_at(number, answer, answer.rows.first().filter(first_is_settled_news))?;
        self.distinct += news.len() as u64;
        let news = match news.as_slice() {
            [] => NewRows::None,
            rows if rows.iter().all(late) => NewRows::Recent,
            _ => NewRows::Settled,
        };
        self.count_rows(answer, &marks, began);
        self.stage = self.onward(number, answer, news, began)?;
        self.total = answer.total;
        self.answers += 1;
        let stale = news == NewRows::None && self.readings.is_empty();
        self.stale_pages = if stale { self.stale_pages + 1 } else { 0 };
        self.bound(number, answer, elapsed)?;
        Ok(marks)
    }

    /// Counts the rows of a page for the present reading, and for the proof by count.
    fn count_rows(&mut self, answer: Answer<'_>, marks: &[Option<u32>], began: Option<DateTime<Utc>>) {
        let settled_until = began.map(|began| began - SETTLING);
        // Stamps have whole seconds.
        let moving_since = began.map(|began| began + TimeDelta::seconds(1));
        let is_first_answer = !self.reading.is_begun();
        if is_first_answer {
            self.count.begin(self.pass, answer.total, answer.contradicts_total(self.page_rows));
        }
        for (row, mark) in answer.rows.iter().zip(marks) {
            let is_moving = changed_since(row, moving_since);
            self.reading.count(row, is_moving, *mark, self.first_pass..self.pass);
            self.count.add(Met {
                pass: self.pass,
                before: mark.filter(|mark| *mark >= self.first_pass),
                is_settled: self.order.was_listed_before(row, settled_until),
                is_first_answer,
            });
        }
        self.reading.note_counts(answer.total, answer.total_pages, self.page_rows);
    }

    /// Learns what the page shows of the list's order, and whether the server turns its pages at all.
    /// `settled_news`: the page's first row, if it is new and was not changed of late.
    fn look_at(&mut self, number: u32, answer: Answer<'_>, settled_news: Option<&RowKey>) -> Result<(), WalkError> {
        if let Some((earlier, rows)) = self.previous.take().filter(|(earlier, _)| *earlier != number) {
            let same = rows.iter().map(|row| row.id).eq(answer.rows.iter().map(|row| row.id));
            self.same_pages = if same && !rows.is_empty() { self.same_pages + 1 } else { 0 };
            // Moving rows can make a page look like the previous one, and `total` shows what is hidden.
            if self.same_pages > u32::from(answer.total.is_some()) {
                return Err(WalkError::Repeated(number));
            }
            let (near, far) = if number < earlier { (answer.rows, &rows[..]) } else { (&rows[..], answer.rows) };
            self.has_ties |= self.order.ties(near, far);
            if let (Phase::Through { direction, .. }, Some(first), Some(then)) =
                (self.stage, settled_news, rows.first())
            {
                let (near, far) = if number < earlier { (first, then) } else { (then, first) };
                self.order.observe_pages(direction, near, far);
            }
        }
        self.order.observe(answer.rows);
        self.first_total_pages = self.first_total_pages.or(answer.total_pages);
        if number == 1 {
            self.page_rows = answer.rows.len();
            if self.pass == self.first_pass {
                self.first_page_rows = self.page_rows;
            }
        } else if !is_last(number, answer) && answer.rows.len() != self.page_rows {
            self.uneven = true;
        }
        self.previous = Some((number, answer.rows.to_vec()));
        Ok(())
    }

    /// Checks the bounds, unless the walk is over.
    fn bound(&self, page: u32, answer: Answer<'_>, elapsed: Duration) -> Result<(), WalkError> {
        let Some(next) = self.next() else {
            return Ok(());
        };
        let pages = self.first_total_pages.max(answer.total_pages).unwrap_or(page.max(next));
        if self.answers > MAX_ANSWERS {
            return Err(WalkError::Endless { page, why: "20,000 requests were sent" });
        }
        if self.answers > pages.saturating_add(10).saturating_mul(ANSWERS_A_PAGE) {
            return Err(self.unstable(answer));
        }
        check(Distance {
            page: page.min(next),
            first_total_pages: self.first_total_pages,
            total_pages: answer.total_pages,
            stale_pages: self.stale_pages,
            elapsed,
        })
    }
}

#[cfg(test)]
mod tests;
