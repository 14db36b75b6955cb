//! The readings: down to the boundary, behind it, and again.

use std::collections::HashSet;

use super::{
    CHEAP_ANSWERS, Conclusion, MAX_EVIDENCE_PAGES, MAX_READINGS, MAX_ROWS, Phase, SortedWalk, evidence::Evidence,
};
use crate::{domain::SortedListResult, reconcile::walk::page_size_for_reading};

impl SortedWalk {
    /// The page size of the present reading. Each further reading has another size, so that page boundaries fall on other
    /// rows.
    pub(super) fn page_size(&self) -> Option<u32> {
        let again = self.reading.checked_sub(1)?;
        let usual = u32::try_from(*self.page_rows.first()?).ok().filter(|rows| *rows > 0)?;
        Some(page_size_for_reading(usual, again))
    }

    /// The details of all rows of a page of the first reading.
    pub(super) fn queue_prefix(&mut self) {
        let ids = self.last_answer().ids.iter().copied();
        let unread = ids.filter(|id| !self.has_read(*id)).collect::<Vec<_>>();
        self.queue.extend(unread);
    }

    /// Ends the first reading at the first of some old rows in succession.
    pub(super) fn look_for_boundary(&mut self) {
        let (mut old_rows, mut met) = (0, HashSet::new());
        let last = self.answers.len() - 1;
        for (at, answer) in self.answers.iter().enumerate() {
            for (place, id) in answer.ids.iter().enumerate().filter(|(_, id)| met.insert(**id)) {
                match self.details_of(*id).last() {
                    // The details come later.
                    None => return,
                    Some(detail) if self.is_old(detail.stamp) => old_rows += 1,
                    Some(detail) if detail.stamp.is_some() => old_rows = 0,
                    _ => {}
                }
                if old_rows == self.rules.old_rows {
                    let pages = self.answers[..at].iter().map(|answer| answer.ids.len());
                    self.prefix_rows = pages.sum::<usize>() + place;
                    self.phase = Phase::Behind { pages: 0 };
                    self.queue.clear();
                    if at == last {
                        self.queue_due(place + 1);
                    }
                    return;
                }
            }
        }
    }

    /// The boundary was not found on the pages so far.
    pub(super) fn continue_prefix(&mut self) {
        let answer = self.last_answer();
        let rows: usize = self.answers.iter().map(|answer| answer.ids.len()).sum();
        if answer.ids.is_empty() && !self.rules.distrusts_empty_pages {
            self.end(Conclusion::Complete);
        } else if answer.is_last {
            self.end(Conclusion::Inconclusive(SortedListResult::NoBoundary));
        } else if rows >= MAX_ROWS || rows * 2 > self.bounds.stored {
            self.end(Conclusion::TooManyChanges);
        }
    }

    /// The details of rows behind the boundary that may have changed, from this place of the last page on.
    pub(super) fn queue_due(&mut self, from: usize) {
        let ids = self.last_answer().ids.iter().skip(from);
        let due: Vec<i64> = ids.copied().filter(|id| self.due.contains(id) && !self.has_read(*id)).collect();
        self.queue.extend(due);
    }

    /// Goes on behind the boundary until there is evidence.
    pub(super) fn judge_evidence(&mut self, pages: u32) {
        if pages == 0 && !self.last_answer().is_last {
            self.phase = Phase::Behind { pages: 1 };
            return;
        }
        match self.evidence() {
            Evidence::Enough if !self.rules.reads_again => self.end(Conclusion::Complete),
            Evidence::Enough => {
                self.phase = Phase::Again;
                self.begin_reading();
            }
            Evidence::Recheck(ids) => {
                self.rechecked.extend(&ids);
                self.queue.extend(ids);
            }
            Evidence::Contradiction { nearer, further } => self.end(Conclusion::NotSorted { nearer, further }),
            Evidence::TooLittle if pages < MAX_EVIDENCE_PAGES && !self.last_answer().is_last => {
                self.phase = Phase::Behind { pages: pages + 1 };
            }
            Evidence::TooLittle => {
                self.end(Conclusion::Inconclusive(SortedListResult::NoEvidence));
            }
        }
    }

    fn begin_reading(&mut self) {
        self.reading += 1;
        self.next_page = 1;
    }

    /// Queues the unread details that a page of a further reading demands. These are details of new
    /// orders, of due orders, and of orders before a changed one. `continue_again` queues the
    /// boundary.
    pub(super) fn queue_again(&mut self) {
        let at = self.answers.len() - 1;
        let ids = &self.answers[at].ids;
        let changed = ids.iter().rposition(|id| self.is_changed(*id)).unwrap_or(0);
        let met: HashSet<i64> = self.answers[..at].iter().flat_map(|answer| &answer.ids).copied().collect();
        let is_needed = |(place, id): &(usize, &i64)| {
            !self.has_read(**id) && (!met.contains(*id) || self.due.contains(*id) || *place < changed)
        };
        let unread: Vec<i64> = ids.iter().enumerate().filter(is_needed).map(|(_, id)| *id).collect();
        self.queue.extend(unread);
    }

    /// Goes on in a further reading, or begins another one.
    pub(super) fn continue_again(&mut self) {
        if let Some(id) = self.unconfirmed_boundary() {
            self.queue.push_back(id);
            return;
        }
        let (at, answer) = (self.answers.len() - 1, self.last_answer());
        let ends_old = answer.ids.last().is_some_and(|id| self.is_old_after(*id, at));
        // Stale details of a row that has just moved to the head would end the reading too early.
        let rows: usize = self.answers.iter().filter(|one| one.reading == self.reading).map(|one| one.ids.len()).sum();
        let is_over = answer.is_last || ends_old && rows >= self.prefix_rows;
        if !is_over {
            // A server that shows the same page under each number would never let the reading end.
            if rows > 2 * self.bounds.stored {
                self.end(Conclusion::Inconclusive(SortedListResult::Unstable));
            }
            return;
        }
        if self.is_proved() {
            self.end(Conclusion::Complete);
        } else if self.reading >= MAX_READINGS || self.costs_more_than_a_scan() {
            self.end(Conclusion::Inconclusive(SortedListResult::Unstable));
        } else {
            self.begin_reading();
        }
    }

    /// Returns an order of the last page that seems older than the threshold, and that must be read
    /// again to be certain. Candidates are the first such order of the page, and the last row.
    fn unconfirmed_boundary(&self) -> Option<i64> {
        if !self.rules.confirms_boundary {
            return None;
        }
        let (at, ids) = (self.answers.len() - 1, &self.last_answer().ids);
        let first = ids.iter().find(|id| self.is_old(self.known(**id)));
        let last = ids.last().filter(|id| self.is_old(self.known(**id)));
        first.into_iter().chain(last).copied().find(|id| self.details_after(*id, at).next().is_none())
    }

    /// A small list may cost more than a scan. Otherwise equal time stamps across its few page boundaries would prevent the
    /// proof each night, until all details have been read.
    fn costs_more_than_a_scan(&self) -> bool {
        let usual = self.page_rows.first().copied().unwrap_or(1).max(1);
        let again = self.answers.iter().filter(|answer| answer.reading > 0).count();
        again > self.bounds.stored.div_ceil(usual).max(CHEAP_ANSWERS)
    }
}
