//! The order of a list, as far as its rows show it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::RowKey;

/// So many rows in a row, each greater than the one before, are not there by chance.
const ENOUGH: u32 = 20;

/// Which way a list runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// New records come last.
    Ascending,
    /// New records come first.
    Descending,
}

/// How often a value rose and fell from a row to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct PairCounts {
    up: u32,
    down: u32,
}

impl PairCounts {
    fn pair<T: Ord>(&mut self, first: Option<T>, second: Option<T>) {
        if let (Some(first), Some(second)) = (first, second) {
            self.up = self.up.saturating_add(u32::from(first < second));
            self.down = self.down.saturating_add(u32::from(first > second));
        }
    }

    /// The number of pairs for a direction; 0 if one pair contradicts it.
    fn support(self, direction: Direction) -> u32 {
        let (with, against) = match direction {
            Direction::Ascending => (self.up, self.down),
            Direction::Descending => (self.down, self.up),
        };
        if against == 0 { with } else { 0 }
    }

    /// Whether two rows showed different values.
    fn is_shown(self) -> bool {
        self.up + self.down > 0
    }

    fn contradicts(self, direction: Direction) -> bool {
        match direction {
            Direction::Ascending => self.down > 0,
            Direction::Descending => self.up > 0,
        }
    }
}

/// What the rows seen so far say about the order they stand in. A page is an answer of one instant, so within it
/// one pair out of order disproves an order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortOrderDetector {
    updated: PairCounts,
    created: PairCounts,
    id: PairCounts,
    /// A change can bring an old record into this list, so only an order by time of change has it come in at an end.
    entered_by_change: bool,
}

impl SortOrderDetector {
    pub fn new(entered_by_change: bool) -> Self {
        Self { entered_by_change, ..Self::default() }
    }

    /// Takes in a page.
    pub fn observe(&mut self, rows: &[RowKey]) {
        for pair in rows.windows(2) {
            let [first, second] = pair else { continue };
            self.updated.pair(first.updated_at, second.updated_at);
            self.created.pair(first.created_at, second.created_at);
            self.id.pair(Some(first.id), Some(second.id));
        }
    }

    /// Compares the first rows of two pages that were read at different instants. `first` is from
    /// the page nearer to page 1. The row that was read later is new, and did not change meanwhile.
    /// In a sorted list, a row that belongs on the other side would have been seen there. So the
    /// two rows can contradict an order, and never support it.
    pub fn observe_pages(&mut self, direction: Direction, first: &RowKey, second: &RowKey) {
        let mut across = Self::new(self.entered_by_change);
        across.observe(&[*first, *second]);
        if across.updated.contradicts(direction) {
            self.updated.pair(first.updated_at, second.updated_at);
        }
        if !self.entered_by_change && across.created.contradicts(direction) {
            self.created.pair(first.created_at, second.created_at);
        }
    }

    /// Whether records with one stamp stand on both sides of a page boundary. Their order may differ in each answer, so
    /// that one of them is shown twice and another never. Records without a stamp, in a list that shows stamps, are equal.
    pub fn ties(&self, near: &[RowKey], far: &[RowKey]) -> bool {
        let is_tie = |near: &RowKey, far: &RowKey| {
            let same_change =
                near.updated_at == far.updated_at && (near.updated_at.is_some() || self.updated.is_shown());
            let same_creation =
                near.created_at == far.created_at && (near.created_at.is_some() || self.created.is_shown());
            near.id != far.id && (same_change || !self.entered_by_change && same_creation)
        };
        let across = |row: &RowKey, others: &[RowKey]| others.iter().any(|other| is_tie(row, other));
        near.last().is_some_and(|row| across(row, far)) || far.first().is_some_and(|row| across(row, near))
    }

    /// Whether a record was in the list before an instant, by its own stamp. A change brings records into a list of changes, and
    /// a draft into any list. Where the rows do not show changes, only the creation counts.
    pub fn was_listed_before(&self, row: &RowKey, instant: Option<DateTime<Utc>>) -> bool {
        let entered = if self.entered_by_change { row.updated_at } else { row.updated_at.or(row.created_at) };
        entered.zip(instant).is_some_and(|(entered, instant)| entered < instant)
    }

    /// The direction that nothing speaks against so far.
    pub fn candidate(&self) -> Option<Direction> {
        [Direction::Ascending, Direction::Descending].into_iter().find(|direction| self.allows(*direction))
    }

    /// Whether nothing speaks against the list running this way.
    pub fn allows(&self, direction: Direction) -> bool {
        self.support(direction) > 0
    }

    /// Whether the list certainly runs in this direction. Enough pairs of rows must support it. If
    /// a change can bring a record into the list, the rows must also contradict an order by
    /// creation and by id. In such an order, records would come in at any place.
    pub fn proves(&self, direction: Direction) -> bool {
        let alone = !self.entered_by_change || self.created.contradicts(direction) && self.id.contradicts(direction);
        self.support(direction) >= ENOUGH && alone
    }

    fn support(&self, direction: Direction) -> u32 {
        let by_creation = if self.entered_by_change { 0 } else { self.created.support(direction) };
        self.updated.support(direction).max(by_creation)
    }
}

/// Whether a record changed, or was created, at or after an instant.
pub fn changed_since(row: &RowKey, instant: Option<DateTime<Utc>>) -> bool {
    instant.is_some_and(|instant| row.updated_at.or(row.created_at) >= Some(instant))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, second: Option<i64>) -> RowKey {
        let at = second.and_then(|second| DateTime::from_timestamp(1_790_000_000 + second, 0));
        RowKey { id, updated_at: at, created_at: None }
    }

    #[test]
    fn records_without_a_stamp_are_ties_in_a_list_with_stamps() {
        let (near, far) = ([row(1, Some(9)), row(2, None)], [row(3, None), row(4, Some(8))]);
        let mut order = SortOrderDetector::new(false);
        order.observe(&[row(1, None), row(2, None)]);
        assert!(!order.ties(&near, &far), "no stamp is shown");
        order.observe(&[row(5, Some(11)), row(6, Some(10))]);
        assert!(order.ties(&near, &far));
        assert!(!order.ties(&near[..1], &far[1..]));
    }
}
