//! One reading of a list from end to end, and how readings prove that the list was read whole.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::RowKey;
use crate::domain::ContentHash;

/// A list that really contains a record twice is read this many times, with different page sizes, before it is believed.
const READINGS_WITH_REPEATS: usize = 3;

/// The evidence of a reading so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanInProgress {
    /// Different records.
    distinct: u64,
    /// Of these, records that no earlier reading of the list had shown.
    fresh: u64,
    /// Of these, records that changed after the walk had begun.
    moving: u64,
    /// Rows of records that this reading had shown already.
    repeats: u64,
    /// Which records these were, in any order.
    repeated: u64,
    /// All rows, in their order and with their versions.
    sequence: u64,
    /// How many rows its page 1 had.
    page_rows: usize,
    /// The server's own account of the list, and whether it changed.
    account: Option<Account>,
    unsteady: bool,
}

/// How many rows and pages there are, by the server.
type Account = (Option<u64>, Option<u32>);

/// A reading that has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedScan {
    distinct: u64,
    fresh: u64,
    moving: u64,
    repeats: u64,
    repeated: u64,
    page_rows: usize,
    /// The server was asked to sort by id.
    #[serde(default)]
    by_id: bool,
    /// How many rows there were when it ended.
    total: Option<u64>,
    /// A digest of the rows in their order; `None` if the reading was not complete, or `total` changed during it.
    sequence: Option<u64>,
}

impl ScanInProgress {
    /// Counts a row that was last seen in pass `mark`. `is_moving`: the record changed after the
    /// walk began. `earlier`: the numbers of the earlier passes over the same list.
    pub fn count(&mut self, row: &RowKey, is_moving: bool, mark: Option<u32>, earlier: Range<u32>) {
        let text = format!("{} {} {:?}", self.sequence, row.id, row.updated_at);
        self.sequence = ContentHash::of_text(&text).short();
        if mark == Some(earlier.end) {
            self.repeats += 1;
            self.repeated = self.repeated.wrapping_add(ContentHash::of_text(&row.id.to_string()).short());
            return;
        }
        self.distinct += 1;
        self.moving += u64::from(is_moving);
        self.fresh += u64::from(!mark.is_some_and(|mark| earlier.contains(&mark)));
    }

    /// Whether it has had an answer.
    pub fn is_begun(&self) -> bool {
        self.account.is_some()
    }

    /// Takes note of what the server says of the list, and of how many rows its page 1 has.
    pub fn note_counts(&mut self, total: Option<u64>, total_pages: Option<u32>, page_rows: usize) {
        let account = self.account.get_or_insert((total, total_pages));
        self.unsteady |= *account != (total, total_pages);
        self.page_rows = page_rows;
    }

    /// The end of this reading.
    pub fn ended(&self, total: Option<u64>, by_id: bool) -> CompletedScan {
        CompletedScan {
            by_id,
            distinct: self.distinct,
            fresh: self.fresh,
            moving: self.moving,
            repeats: self.repeats,
            repeated: self.repeated,
            page_rows: self.page_rows,
            total,
            sequence: (!self.unsteady).then_some(self.sequence),
        }
    }
}

impl CompletedScan {
    /// A reading whose rows were not all read in their order: it proves nothing together with others.
    pub fn partial(total: Option<u64>) -> Self {
        Self {
            distinct: 0,
            fresh: 1,
            moving: 0,
            repeats: 0,
            repeated: 0,
            page_rows: 0,
            by_id: false,
            total,
            sequence: None,
        }
    }

    /// Whether the reading showed a record more than once.
    pub fn has_repeats(&self) -> bool {
        self.repeats > 0
    }

    /// Whether more than a tenth of the records changed after the walk had begun: further readings are as incomplete.
    pub fn is_moving(&self) -> bool {
        self.moving * 10 > self.distinct
    }

    /// Whether the reading showed a record that no earlier one had shown.
    pub fn has_news(&self) -> bool {
        self.fresh > 0
    }

    /// Whether two readings show the same rows in the same order while the server's account of the list stays the same.
    /// A record that is shown twice may stand for one that is lost at a page boundary: then the boundaries must differ.
    fn agrees_with(&self, other: &Self) -> bool {
        let same = self.sequence.is_some() && self.sequence == other.sequence && self.distinct == other.distinct;
        same && !self.has_news() && (self.repeats == 0 || self.page_rows != other.page_rows)
    }
}

/// Whether readings prove the list by their agreement alone, without a count of records.
///
/// Without `total`, the last two readings must agree. With `total`, the last three readings must
/// show all records, and the same ones twice. Each of them must have other page boundaries. Then
/// the list really contains these records twice. A server that sorts by id shows another order in
/// the readings by id: then these agree with each other only.
pub fn agree(readings: &[CompletedScan], distinct: u64) -> bool {
    let Some(last) = readings.last() else {
        return false;
    };
    let same_order: Vec<CompletedScan> = readings.iter().filter(|one| one.by_id == last.by_id).copied().collect();
    let is_proof = |readings: &[CompletedScan]| match last.total {
        Some(total) => repeat_the_same(readings, distinct, total),
        None => readings.len().checked_sub(2).is_some_and(|before| last.agrees_with(&readings[before])),
    };
    is_proof(readings) || is_proof(&same_order)
}

fn repeat_the_same(readings: &[CompletedScan], distinct: u64, total: u64) -> bool {
    let Some(recent) = readings.len().checked_sub(READINGS_WITH_REPEATS).map(|first| &readings[first..]) else {
        return false;
    };
    let same = |reading: &CompletedScan| {
        let all = reading.distinct == distinct && reading.distinct + reading.repeats == total;
        let is_steady = reading.total == Some(total) && reading.sequence.is_some();
        all && is_steady && reading.repeated == recent[0].repeated
    };
    let sizes_differ = (1..recent.len()).all(|at| recent[..at].iter().all(|one| one.page_rows != recent[at].page_rows));
    recent.iter().all(same) && sizes_differ
}
