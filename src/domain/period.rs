//! The period of a report.

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use serde::Serialize;

/// How far back a report reaches by default.
const USUAL: TimeDelta = TimeDelta::days(30);

/// A half-open span `[since, until)`. A run lies in it when it ended in it, and with the run all that it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Period {
    /// The first instant that counts.
    pub since: DateTime<Utc>,
    /// The first instant that does not.
    pub until: DateTime<Utc>,
}

/// A period that ends before it begins, or lies where no run can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the period ends ({until}) before it begins ({since}), or lies outside of the years 1970 to 9999")]
pub struct InvalidPeriod {
    since: DateTime<Utc>,
    until: DateTime<Utc>,
}

impl Period {
    /// The requested period; by default the last thirty days.
    ///
    /// # Errors
    /// When `until` is not after `since`, or either is absurd.
    pub fn new(
        since: Option<DateTime<Utc>>,
        until: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<Self, InvalidPeriod> {
        let until = until.unwrap_or(now);
        let since = since.or_else(|| until.checked_sub_signed(USUAL)).unwrap_or(until);
        let sensible = |at: DateTime<Utc>| (1970..10_000).contains(&at.year());
        if since < until && sensible(since) && sensible(until) {
            Ok(Self { since, until })
        } else {
            Err(InvalidPeriod { since, until })
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn at(days: i64) -> DateTime<Utc> {
        Utc.timestamp_opt(1_790_000_000 + days * 86_400, 0).unwrap()
    }

    #[test]
    fn the_default_period_is_thirty_days() {
        let period = |since, until| Period::new(since, until, at(0));
        assert_eq!(period(None, None), Ok(Period { since: at(-30), until: at(0) }));
        assert_eq!(period(None, Some(at(-60))), Ok(Period { since: at(-90), until: at(-60) }));
        assert_eq!(period(Some(at(-1)), None), Ok(Period { since: at(-1), until: at(0) }));
        for (since, until) in [
            (Some(at(1)), None),
            (Some(at(-1)), Some(at(-1))),
            (Some(at(-1)), Some(at(-2))),
            (Some(DateTime::<Utc>::MIN_UTC), None),
            (None, Some(DateTime::<Utc>::MIN_UTC)),
            (None, Some(DateTime::<Utc>::MAX_UTC)),
        ] {
            assert!(period(since, until).is_err(), "{since:?} {until:?}");
        }
    }
}
