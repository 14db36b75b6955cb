//! The proof by count: whether every order before the boundary has been read.
//!
//! At the instant of an answer, a certain number of rows stand before the boundary. Each order that
//! changed since the threshold stands before it. The proof counts those of them that were certainly
//! in the list at that instant. If they are as many as the rows, no order is missing. The order of
//! equal time stamps does not matter.

use std::collections::{HashMap, HashSet};

use super::{Answer, GRAIN, SortedWalk};
use crate::domain::SETTLING;

impl SortedWalk {
    /// Whether an answer of an earlier reading shows that nothing is missing.
    pub(super) fn is_proved(&self) -> bool {
        if !self.rules.counts {
            return self.last_reading_showed_no_new_order();
        }
        let mut last_met: HashMap<i64, usize> = HashMap::new();
        for (at, answer) in self.answers.iter().enumerate() {
            last_met.extend(answer.ids.iter().map(|id| (*id, at)));
        }
        let mut earlier = self.answers.iter().enumerate().filter(|(_, answer)| answer.reading < self.reading);
        earlier.any(|(at, answer)| self.proves(at, answer, &last_met))
    }

    fn proves(&self, at: usize, answer: &Answer, last_met: &HashMap<i64, usize>) -> bool {
        let Some(place) = self.boundary(at, answer) else {
            return false;
        };
        if answer.number > 1 && self.uneven.contains(&answer.reading) {
            return false;
        }
        let rows_before = (answer.number as usize - 1) * self.page_rows[answer.reading as usize] + place;
        let before_boundary: HashSet<i64> = answer.ids[..place].iter().copied().collect();
        let mut unstamped = self.unstamped_head(answer.reading);
        unstamped.extend(self.unstamped_before_changed(at));
        let stood_before =
            |id: &i64| unstamped.contains(id) || self.stood_before(*id, at, answer, before_boundary.contains(id));
        // More orders than rows show that the details of the boundary were stale, and that it had moved to the head of the list.
        let counted = last_met.iter().filter(|(id, last)| **last >= at && stood_before(id)).count();
        counted == rows_before || counted > rows_before && !self.rules.confirms_boundary
    }

    /// The orders without a time of change at the head of the list, in a reading and in the present one. A server that puts
    /// them there leaves them there.
    fn unstamped_head(&self, reading: u32) -> HashSet<i64> {
        let head = |reading: u32| {
            let answers = self.answers.iter().filter(move |answer| answer.reading == reading);
            answers.flat_map(|answer| answer.ids.iter().copied()).take_while(|id| self.is_unstamped(*id))
        };
        let now: HashSet<i64> = head(self.reading).collect();
        head(reading).filter(|id| now.contains(id)).collect()
    }

    /// The orders whose details show no time of change, and that an answer up to `at` showed before
    /// a changed order. That order had changed since the threshold. The list is sorted, so the
    /// orders before it had also changed.
    fn unstamped_before_changed(&self, at: usize) -> HashSet<i64> {
        let changed = Some(self.bounds.threshold + GRAIN);
        let mut found = HashSet::new();
        for (number, answer) in self.answers[..=at].iter().enumerate() {
            let settled = answer.served_at.map(|served_at| served_at - SETTLING);
            let had_changed = |id: &i64| {
                let mut details = self.details_of(*id).iter().filter(|detail| detail.stamp >= changed);
                details.any(|detail| detail.answers_before <= number || detail.stamp < settled)
            };
            let last = answer.ids.iter().rposition(had_changed).unwrap_or(0);
            found.extend(answer.ids[..last].iter().filter(|id| self.is_unstamped(**id)));
        }
        found
    }

    /// Whether the details were read and show no time of change: the order is gone, or it cannot be read.
    fn is_unstamped(&self, id: i64) -> bool {
        self.details_of(id).last().is_some_and(|detail| detail.stamp.is_none())
    }

    /// The first row of an answer that was older than the threshold when the answer came.
    fn boundary(&self, at: usize, answer: &Answer) -> Option<usize> {
        answer.ids.iter().position(|id| self.is_old_after(*id, at))
    }

    /// Whether an order that was in the list at or after an answer stood before the boundary at that instant.
    fn stood_before(&self, id: i64, at: usize, answer: &Answer, is_in_answer: bool) -> bool {
        let details = self.details_of(id);
        if is_in_answer && self.is_unstamped(id) {
            return true;
        }
        if !self.rules.counts_changed_only {
            return is_in_answer || !details.is_empty();
        }
        let settled = answer.served_at.map(|served_at| served_at - SETTLING);
        let mut changed = details.iter().filter(|detail| detail.stamp >= Some(self.bounds.threshold));
        changed.any(|detail| is_in_answer || detail.answers_before <= at || detail.stamp < settled)
    }

    fn last_reading_showed_no_new_order(&self) -> bool {
        let ids = |is_last: bool| {
            self.answers.iter().filter(move |one| (one.reading == self.reading) == is_last).flat_map(|one| &one.ids)
        };
        let known: HashSet<&i64> = ids(false).collect();
        ids(true).all(|id| known.contains(id))
    }
}
