//! One reading of a list from end to end, and how the next one proves it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{domain::Fingerprint, reconcile::ports::RowKey};

/// What a reading has shown so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Different records.
    distinct: u64,
    /// Of these, records that an earlier reading of the list had shown.
    again: u64,
    /// And that the last reading had shown.
    again_at_once: u64,
    /// Rows of records that this reading had shown already.
    repeats: u64,
    /// All rows, in their order and with their versions.
    sequence: u64,
    /// The server's own account of the list, and whether it changed.
    account: Option<Account>,
    unsteady: bool,
}

/// How many rows and pages there are, by the server.
type Account = (Option<u64>, Option<u32>);

/// A reading that has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Different records that it showed.
    pub distinct: u64,
    /// How many rows there were when it ended.
    pub total: Option<u64>,
    /// What its rows were, in their order; `None`: it was no reading from end to end, or the server's account of the
    /// list changed meanwhile.
    pub sequence: Option<u64>,
}

impl Pass {
    /// Counts a row that was last seen in pass `mark`; `earlier`: the numbers of the passes before this one over the
    /// same list.
    pub fn count(&mut self, row: &RowKey, mark: Option<u32>, earlier: Range<u32>) {
        let text = format!("{} {} {:?}", self.sequence, row.id, row.updated_at);
        self.sequence = Fingerprint::of_text(&text).short();
        if mark == Some(earlier.end) {
            self.repeats += 1;
            return;
        }
        self.distinct += 1;
        self.again += u64::from(mark.is_some_and(|mark| earlier.contains(&mark)));
        self.again_at_once += u64::from(mark.is_some_and(|mark| earlier.contains(&mark) && mark + 1 == earlier.end));
    }

    /// Takes note of what the server says of the list.
    pub fn hear(&mut self, total: Option<u64>, total_pages: Option<u32>) {
        let account = self.account.get_or_insert((total, total_pages));
        self.unsteady |= *account != (total, total_pages);
    }

    /// The end of this reading.
    pub fn ended(&self, total: Option<u64>) -> Reading {
        Reading { distinct: self.distinct, total, sequence: (!self.unsteady).then_some(self.sequence) }
    }
}

impl Reading {
    /// Whether the reading after this one proves that this one, with those before it, was whole.
    ///
    /// What was seen before its end and again afterwards was in the list at its end, and where that is as many as the
    /// list had rows then, nothing was left out. A list that holds a record twice at all times has fewer records than
    /// rows, and where the server gives no total there is nothing to count up to: then both readings must have shown
    /// the same rows in the same order, while the server's account of the list stayed the same.
    pub fn is_proved_by(&self, next: &Pass, total: Option<u64>) -> bool {
        let agree = next.distinct == self.distinct && next.again_at_once == self.distinct;
        let still = agree && self.sequence.is_some() && self.sequence == next.ended(total).sequence;
        match self.total {
            Some(rows) => next.again == rows || still && total == Some(rows) && self.distinct + next.repeats == rows,
            None => still,
        }
    }
}
