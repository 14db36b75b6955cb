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
    repeats: Repeats,
}

/// A reading that has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Different records that it showed.
    pub distinct: u64,
    /// How many rows there were when it ended.
    pub total: Option<u64>,
    /// Rows beyond the first of a record; `None`: not known.
    pub repeats: Option<Repeats>,
}

/// Records that were listed more than once: how many rows too many, and which and of which age.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeats {
    rows: u64,
    digest: u64,
}

impl Pass {
    /// Counts a row that was last seen in pass `mark`; `earlier`: the numbers of the passes before this one over the
    /// same list.
    pub fn count(&mut self, row: &RowKey, mark: Option<u32>, earlier: Range<u32>) {
        if mark == Some(earlier.end) {
            let text = format!("{} {:?}", row.id, row.updated_at);
            self.repeats.rows += 1;
            self.repeats.digest = self.repeats.digest.wrapping_add(Fingerprint::of_text(&text).short());
            return;
        }
        self.distinct += 1;
        self.again += u64::from(mark.is_some_and(|mark| earlier.contains(&mark)));
        self.again_at_once += u64::from(mark.is_some_and(|mark| earlier.contains(&mark) && mark + 1 == earlier.end));
    }

    /// The end of this reading.
    pub fn ended(&self, total: Option<u64>) -> Reading {
        Reading { distinct: self.distinct, total, repeats: Some(self.repeats) }
    }
}

impl Reading {
    /// Whether the reading after this one proves that this one, with those before it, was whole.
    ///
    /// What was seen before its end and again afterwards was in the list at its end, and where that is as many as
    /// the list had rows then, nothing was left out. A list that holds a record twice at all times has fewer records than
    /// rows: then both readings must have shown the same records, and the same ones repeatedly. Without a total it
    /// is enough that two readings agree.
    pub fn is_proved_by(&self, next: &Pass, total: Option<u64>) -> bool {
        let agree = next.distinct == self.distinct && next.again_at_once == self.distinct;
        match self.total {
            Some(rows) => {
                next.again == rows
                    || agree
                        && self.repeats == Some(next.repeats)
                        && total == Some(rows)
                        && self.distinct + next.repeats.rows == rows
            }
            None => agree,
        }
    }
}
