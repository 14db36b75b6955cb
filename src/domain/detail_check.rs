//! Summaries: the part of a record that a list shows, and when that is enough.

use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};

use super::{ContentHash, Record, Setting, StoredRecord, UnknownValue};

/// Within how many nights the details of every record are read, whatever its row shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetailCheckNights {
    /// [`DetailCheckNights::USUAL`]; more where the sorted list of a merchant has proved reliable.
    Auto,
    /// So many; 0: never.
    Fixed(u16),
}

impl DetailCheckNights {
    /// The number for a merchant whose list is scanned, and for a sorted list that is not proved reliable yet.
    pub const USUAL: u16 = 28;

    /// The number for a sorted list that showed every change since the details of all orders were read once.
    pub const RELIABLE: u16 = 280;

    /// The number in force; 0: never.
    #[must_use]
    pub fn nights(self, is_proven: bool) -> u16 {
        match self {
            Self::Auto if is_proven => Self::RELIABLE,
            Self::Auto => Self::USUAL,
            Self::Fixed(nights) => nights,
        }
    }
}

impl FromStr for DetailCheckNights {
    type Err = UnknownValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            number => number.parse().map(Self::Fixed).map_err(|_| UnknownValue::new("number of nights", text)),
        }
    }
}

impl Setting for DetailCheckNights {
    fn takes() -> String {
        "auto, or a number of nights from 0 to 65535".to_owned()
    }
}

/// A record as a list shows it: enough to see that something changed, too little to store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Salla's id.
    pub id: i64,
    /// The hash of the row in the list, without its volatile values.
    pub content_hash: ContentHash,
}

/// The result of the last reading of a record's details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastDetailCheck {
    /// What the list's row hashed to.
    pub summary: ContentHash,
    /// The content hash of the stored record at that time. Another writer may have changed it since.
    pub stored: ContentHash,
    /// The time of change that the details showed.
    pub changed: Option<DateTime<Utc>>,
    /// When that was.
    pub checked_at: DateTime<Utc>,
    /// The stored record was newer than the details, and different.
    pub newer_locally: bool,
}

/// Which details are due tonight although nothing seems to have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetailCheckSchedule {
    /// Now, by the database's clock.
    pub now: DateTime<Utc>,
    /// All of them.
    pub all: bool,
    /// Within how many nights each is due once; 0: never.
    pub nights: u16,
}

impl DetailCheckSchedule {
    /// Each record has its night among these, by its id, so that they do not all come due at once. A record whose night was
    /// missed is due when its last check is as old as that.
    fn due(self, id: i64, checked_at: DateTime<Utc>) -> bool {
        let age = self.now - checked_at;
        // Two runs of one night are closer than this, two nights are not.
        let same_night = age < TimeDelta::hours(12);
        let night = self.now.timestamp().div_euclid(86_400);
        let nights = i64::from(self.nights);
        let has_its_night = || night.rem_euclid(nights) == id.rem_euclid(nights);
        self.all || nights > 0 && (age >= TimeDelta::days(nights) || !same_night && has_its_night())
    }
}

/// Whether the details of a record must be read. They must in each of these cases:
///
/// - The record is missing, or no check of its details is stored.
/// - Its summary changed since the details were last read.
/// - The stored record changed since then, or is marked as deleted.
/// - The details are due.
/// - The last attempt to read or write them failed.
#[must_use]
pub fn needs_detail<R: Record>(
    summary: &Summary,
    stored: Option<&StoredRecord<R>>,
    check: Option<&LastDetailCheck>,
    deep: DetailCheckSchedule,
    failed: bool,
) -> bool {
    let (Some(stored), Some(check)) = (stored, check) else {
        return true;
    };
    let as_it_was = check.summary == summary.content_hash && stored.state() == Some(check.stored) && !stored.deleted;
    failed || !as_it_was || deep.due(summary.id, check.checked_at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Order, OrderColumns};

    fn print(text: &str) -> ContentHash {
        ContentHash::of_text(text)
    }

    fn stored(status: &str) -> StoredRecord<Order> {
        StoredRecord {
            items_version: None,
            known: None,
            updated_at: Some(DateTime::UNIX_EPOCH),
            content_hash: Some(print("payload")),
            payload_hash: None,
            deleted: false,
            columns: OrderColumns {
                reference_id: None,
                status: Some(status.to_owned()),
                currency: None,
                total_amount: None,
                salla_created_at: None,
            },
        }
    }

    fn night(number: i64) -> DetailCheckSchedule {
        DetailCheckSchedule { now: DateTime::UNIX_EPOCH + TimeDelta::days(20_000 + number), all: false, nights: 28 }
    }

    #[test]
    fn an_unchanged_summary_needs_no_details() {
        let (ours, summary) = (stored("a"), Summary { id: 1, content_hash: print("row") });
        let now = DetailCheckSchedule { now: DateTime::UNIX_EPOCH, all: false, nights: 28 };
        let check = LastDetailCheck {
            summary: print("row"),
            stored: ours.state().unwrap(),
            changed: None,
            checked_at: now.now,
            newer_locally: false,
        };
        assert!(!needs_detail(&summary, Some(&ours), Some(&check), now, false));
        assert!(needs_detail::<Order>(&summary, None, Some(&check), now, false), "missing");
        assert!(needs_detail(&summary, Some(&ours), None, now, false), "never checked");
        assert!(needs_detail(&summary, Some(&stored("b")), Some(&check), now, false), "another writer's change");
        let other = Summary { content_hash: print("other"), ..summary };
        assert!(needs_detail(&other, Some(&ours), Some(&check), now, false), "another row");
        assert!(
            needs_detail(&summary, Some(&ours), Some(&check), DetailCheckSchedule { all: true, ..now }, false),
            "--full"
        );
        assert!(needs_detail(&summary, Some(&ours), Some(&check), now, true), "failed before");
        let deleted = StoredRecord { deleted: true, ..stored("a") };
        assert!(needs_detail(&summary, Some(&deleted), Some(&check), now, false), "marked as gone, and listed");
    }

    proptest! {
        #[test]
        fn every_record_is_due_within_28_nights(id in any::<i64>(), start in 0i64..100, missed in proptest::collection::vec(any::<bool>(), 60)) {
            let mut checked = night(start).now;
            let mut since_run = 0;
            for (number, missed) in (1..).zip(missed) {
                if missed && since_run < 3 {
                    since_run += 1;
                    continue;
                }
                since_run = 0;
                let tonight = night(start + number);
                if tonight.due(id, checked) {
                    checked = tonight.now;
                }
                prop_assert!(tonight.now - checked < TimeDelta::days(28));
            }
        }

        #[test]
        fn with_0_nights_nothing_is_due(id in any::<i64>(), start in 0i64..100) {
            let never = DetailCheckSchedule { nights: 0, ..night(start + 1_000) };
            prop_assert!(!never.due(id, night(start).now));
        }

        #[test]
        fn not_all_are_due_in_one_night(first in 0i64..1_000_000) {
            let due = (first..first + 280).filter(|&id| night(5).due(id, night(4).now)).count();
            prop_assert_eq!(due, 10);
        }
    }
}
