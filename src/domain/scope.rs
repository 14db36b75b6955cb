//! Which part of a merchant's records one list is to hold.

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

/// The records that a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// What changed at or after an instant.
    Changed {
        /// That instant.
        since: DateTime<Utc>,
    },
    /// Records that were created on these days in the merchant's zone.
    Created {
        /// The first day; `None`: from the beginning.
        from: Option<NaiveDate>,
        /// The last day; `None`: to the end.
        to: Option<NaiveDate>,
    },
    /// All records, sorted by time of change, newest first.
    SortedByChange,
}

impl Scope {
    /// All records, by day of creation.
    pub const EVERYTHING: Self = Self::Created { from: None, to: None };

    /// Whether a change can bring a record into the list that was not in it. Where it cannot, only new records
    /// come in.
    ///
    /// A change can turn a draft into an order. The next run over a list of changes does not list the others again.
    #[must_use]
    pub fn is_entered_by_change(&self) -> bool {
        matches!(self, Self::Changed { .. })
    }

    /// Two scopes that together hold what this one holds. An open end is taken for `oldest` or `newest` in finding
    /// the middle, and stays open. `None`: it is a single day, or not a scope of days.
    #[must_use]
    pub fn split(&self, oldest: NaiveDate, newest: NaiveDate) -> Option<[Self; 2]> {
        let Self::Created { from, to } = *self else {
            return None;
        };
        let first = from.unwrap_or_else(|| to.map_or(oldest, |to| oldest.min(to)));
        let last = to.unwrap_or_else(|| newest.max(first));
        let days = (last - first).num_days();
        if days < 1 {
            // An open scope may hold more days than is known.
            return None;
        }
        let middle = first.checked_add_signed(chrono::TimeDelta::days((days - 1) / 2))?;
        Some([Self::Created { from, to: Some(middle) }, Self::Created { from: middle.succ_opt(), to }])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn day(number: i64) -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 1, 1).unwrap() + chrono::TimeDelta::days(number)
    }

    fn holds(scope: &Scope, at: NaiveDate) -> bool {
        matches!(scope, Scope::Created { from, to } if from.is_none_or(|from| from <= at) && to.is_none_or(|to| at <= to))
    }

    proptest! {
        #[test]
        fn halves_of_a_range_cover_it(
            from in proptest::option::of(0i64..400), length in proptest::option::of(0i64..400), at in -50i64..900, newest in 0i64..800,
        ) {
            let to = length.map(|length| from.unwrap_or(0) + length);
            let scope = Scope::Created { from: from.map(day), to: to.map(day) };
            if let Some(halves) = scope.split(day(0), day(newest)) {
                let held = halves.iter().filter(|half| holds(half, day(at))).count();
                prop_assert_eq!(held, usize::from(holds(&scope, day(at))));
                prop_assert!(halves.iter().all(|half| *half != scope));
            }
        }
    }

    #[test]
    fn a_day_is_not_split() {
        assert_eq!(Scope::Created { from: Some(day(3)), to: Some(day(3)) }.split(day(0), day(9)), None);
        assert_eq!(Scope::Changed { since: DateTime::UNIX_EPOCH }.split(day(0), day(9)), None);
        let mut scopes = vec![Scope::EVERYTHING];
        let mut days = 0;
        while let Some(scope) = scopes.pop() {
            match scope.split(day(0), day(30)) {
                Some(halves) => scopes.extend(halves),
                None => days += 1,
            }
        }
        assert_eq!(days, 31);
    }
}
