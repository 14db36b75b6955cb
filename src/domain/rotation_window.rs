//! A part of the older records of a merchant, which one night reads.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Records by their time of creation, from one instant to another. Each night reads the next window. After the last
/// window, the first one follows again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationWindow {
    /// At or after; absent: from the beginning.
    pub from: Option<DateTime<Utc>>,
    /// Before; absent: to the end.
    pub to: Option<DateTime<Utc>>,
}

/// How the records of a merchant are divided over the nights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationPace {
    /// In so many nights, every record is read once.
    pub nights: u16,
    /// Each night reads one part in so many more than its share: records that come in meanwhile must fit into the nights.
    pub reserve: u16,
    /// A merchant with no more records than this is read whole each night.
    pub few: u64,
}

impl RotationPace {
    /// How many of so many records one night reads.
    #[must_use]
    pub fn share(self, records: u64) -> u64 {
        let (nights, reserve) = (u64::from(self.nights), u64::from(self.reserve));
        (records * (reserve + 1)).div_ceil(nights * reserve)
    }

    /// Of a list that only shows all records. Ten pages are read whole.
    pub const ROTATION: Self = Self { nights: 28, reserve: 27, few: 600 };

    /// Beside a list that is sorted by time of change.
    pub const SORTED_LIST: Self = Self { nights: 7, reserve: 14, few: 0 };
}
