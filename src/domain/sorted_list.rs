//! The state of the sorted list of a merchant, which is kept from night to night.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{SETTLING, words::words};

/// A smaller merchant is scanned: that costs hardly more requests.
const MIN_ORDERS: u64 = 120;

/// The longest penalty, and the time within which a second missed change counts.
const MAX_SCAN_NIGHTS: u16 = 28;

/// A week without a violation halves the next penalty.
const GOOD_WEEK: TimeDelta = TimeDelta::days(7);

words! {
    /// How a list contradicted its order.
    ListingViolation ("listing violation") {
        /// Rows do not stand in the order of their changes.
        NotSorted = "not_sorted",
        /// A change was found that the sorted list should have shown.
        MissedChange = "missed_change",
    }
}

words! {
    /// The result of reading a sorted list.
    SortedListResult ("result of a sorted list") {
        /// Every change was found.
        Complete = "complete",
        /// So many orders changed that all details must be read.
        TooManyChanges = "too_many_changes",
        /// The list ended before its unchanged part.
        NoBoundary = "no_boundary",
        /// The rows do not show by what the list is sorted.
        NoEvidence = "no_evidence",
        /// The changed part of the list does not hold still.
        Unstable = "unstable",
        /// A row of the list cannot be read.
        UnreadableRow = "unreadable_row",
        /// Salla's answers have no `Date` header.
        NoDate = "no_date",
        /// A resumed run cannot use the sorted list any more.
        NoPlan = "no_plan",
        /// Rows do not stand in the order of their changes.
        NotSorted = "not_sorted",
        /// A sample shows a change that the list should have shown.
        MissedChange = "missed_change",
    }
}

impl SortedListResult {
    /// How the list contradicted its order; `None`: it did not.
    #[must_use]
    pub fn violation(self) -> Option<ListingViolation> {
        match self {
            Self::NotSorted => Some(ListingViolation::NotSorted),
            Self::MissedChange => Some(ListingViolation::MissedChange),
            _ => None,
        }
    }
}

/// The state of the sorted list of one merchant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SortedList {
    /// Every change of `updated_at` before this instant, by Salla's clock, has been read.
    pub watermark: Option<DateTime<Utc>>,
    /// So many nights the whole list is scanned, because the list was found unreliable.
    pub scan_nights: u16,
    /// So many scan nights follow the next list that is not sorted.
    pub next_penalty: u16,
    /// What this run found wrong with the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub violation: Option<ListingViolation>,
    /// The time of the last violation, or of the week without one that halved the penalty.
    pub violated_at: Option<DateTime<Utc>>,
    /// The time of the last missed change.
    pub missed_at: Option<DateTime<Utc>>,
    /// Since then, no change was missed.
    pub reliable_since: Option<DateTime<Utc>>,
}

impl SortedList {
    /// The start of the changes that tonight's sorted list must show, or why the list is scanned.
    ///
    /// `details_since`: the oldest details of a stored order; `covered`: the watermark of the orders.
    ///
    /// # Errors
    /// The reason why the sorted list cannot be used tonight.
    pub fn threshold(
        &self,
        stored: u64,
        details_since: Option<DateTime<Utc>>,
        covered: DateTime<Utc>,
        overlap: TimeDelta,
    ) -> Result<DateTime<Utc>, &'static str> {
        if self.scan_nights > 0 {
            return Err("an earlier run found the sorted list unreliable");
        }
        if stored < MIN_ORDERS {
            return Err("the merchant has few orders");
        }
        let read = details_since.map(|since| since.min(covered));
        // Another program may have set either watermark.
        let watermark = self.watermark.map(|watermark| watermark.min(covered));
        let watermark = watermark.max(read).ok_or("the details of some orders were never read")?;
        watermark.checked_sub_signed(overlap + SETTLING).ok_or("the watermark is out of range")
    }

    /// Whether the details of all orders were read since the list became reliable.
    #[must_use]
    pub fn is_proven(&self, details_since: Option<DateTime<Utc>>) -> bool {
        self.reliable_since.zip(details_since).is_some_and(|(reliable, details)| reliable <= details)
    }

    /// After a run that read every change.
    #[must_use]
    pub fn complete(self, observed_at: DateTime<Utc>) -> Self {
        let watermark = Some(observed_at);
        let reliable_since = self.reliable_since.or(watermark);
        Self { watermark, reliable_since, ..self.relaxed(observed_at) }
    }

    /// After a run that scanned the list.
    #[must_use]
    pub fn scanned(self, observed_at: DateTime<Utc>) -> Self {
        Self { scan_nights: self.scan_nights.saturating_sub(1), ..self.relaxed(observed_at) }
    }

    /// After a run that found the list unreliable, and scanned it.
    #[must_use]
    pub fn violated(self, violation: ListingViolation, now: DateTime<Utc>) -> Self {
        let nights = self.next_penalty.max(1);
        let again = self.missed_at.is_some_and(|at| now - at <= TimeDelta::days(i64::from(MAX_SCAN_NIGHTS)));
        let mut next = Self { violation: Some(violation), violated_at: Some(now), reliable_since: None, ..self };
        match violation {
            ListingViolation::NotSorted => {
                next.scan_nights = nights;
                next.next_penalty = (nights * 2).min(MAX_SCAN_NIGHTS);
            }
            ListingViolation::MissedChange => {
                if again {
                    // The scans read all details, and the next watermark comes from them.
                    (next.scan_nights, next.watermark) = (MAX_SCAN_NIGHTS, None);
                }
                next.missed_at = Some(now);
            }
        }
        next
    }

    fn relaxed(self, now: DateTime<Utc>) -> Self {
        let is_good = self.violated_at.is_some_and(|at| now - at >= GOOD_WEEK) && self.next_penalty > 1;
        let mut next = Self { violation: None, ..self };
        if is_good {
            (next.next_penalty, next.violated_at) = (self.next_penalty / 2, Some(now));
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(number: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000 + number)
    }

    #[test]
    fn each_contradiction_doubles_the_scan_nights_and_each_good_week_halves_them() {
        let mut list = SortedList::default();
        let mut penalties = Vec::new();
        for number in 0..7 {
            list = list.violated(ListingViolation::NotSorted, day(number));
            penalties.push(list.scan_nights);
        }
        assert_eq!(penalties, [1, 2, 4, 8, 16, 28, 28]);
        list = list.scanned(day(8));
        assert_eq!((list.scan_nights, list.next_penalty, list.violation), (27, 28, None));
        assert_eq!(list.scanned(day(14)).next_penalty, 14);
    }

    #[test]
    fn a_second_missed_change_within_28_nights_leads_to_28_scan_nights() {
        let once = SortedList::default().complete(day(0)).violated(ListingViolation::MissedChange, day(1));
        assert_eq!((once.scan_nights, once.reliable_since), (0, None));
        assert_eq!(once.violated(ListingViolation::MissedChange, day(29)).scan_nights, 28);
        assert_eq!(once.violated(ListingViolation::MissedChange, day(30)).scan_nights, 0);
    }

    #[test]
    fn the_threshold_lies_before_the_watermark_and_needs_all_details() {
        let list = SortedList::default();
        let overlap = TimeDelta::minutes(15);
        let back = overlap + SETTLING;
        assert!(list.threshold(1_000, None, day(5), overlap).is_err());
        assert!(list.threshold(119, Some(day(1)), day(5), overlap).is_err());
        assert_eq!(list.threshold(1_000, Some(day(1)), day(5), overlap), Ok(day(1) - back));
        assert_eq!(list.threshold(1_000, Some(day(6)), day(5), overlap), Ok(day(5) - back));
        assert_eq!(list.complete(day(9)).threshold(1_000, Some(day(1)), day(9), overlap), Ok(day(9) - back));
        let violated = list.violated(ListingViolation::NotSorted, day(9));
        assert!(violated.threshold(1_000, Some(day(1)), day(9), overlap).is_err());
    }
}
