//! The instants at which a cron pattern fires in a time zone. Pure.
//!
//! At a change of daylight saving time, a sweep at a skipped time moves to the first instant after
//! the gap. A sweep at a repeated time takes place once, in the first pass.

use std::{fmt, str::FromStr};

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds},
};

use crate::domain::Setting;

/// Of more occurrences than this at once only the latest counts.
const MOST_AT_ONCE: usize = 1000;

/// A pattern of six fields, seconds first.
#[derive(Clone, PartialEq, Eq)]
pub struct CronPattern {
    text: String,
    cron: Cron,
}

impl fmt::Debug for CronPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl Setting for CronPattern {
    fn takes() -> String {
        "a cron expression with six fields, seconds first, such as 0 0 2 * * *".to_owned()
    }
}

impl FromStr for CronPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let cron = CronParser::builder()
            .seconds(Seconds::Required)
            .build()
            .parse(text)
            .map_err(|error| format!("{error}; write six fields, seconds first, such as `0 0 2 * * *`"))?;
        let pattern = Self { text: text.split_whitespace().collect::<Vec<_>>().join(" "), cron };
        if Calendar::new(pattern.clone(), Tz::UTC).next_after(Utc::now()).is_none() {
            return Err("it never matches".to_owned());
        }
        Ok(pattern)
    }
}

/// A pattern in a time zone.
#[derive(Debug, Clone)]
pub struct Calendar {
    pattern: CronPattern,
    zone: Tz,
}

impl Calendar {
    /// The occurrences of `pattern` by the clocks of `zone`.
    #[must_use]
    pub fn new(pattern: CronPattern, zone: Tz) -> Self {
        Self { pattern, zone }
    }

    /// The name of this schedule. Another schedule has its own history.
    #[must_use]
    pub fn cron(&self) -> String {
        format!("{} {}", self.pattern.text, self.zone)
    }

    /// The first sweep after `instant`.
    #[must_use]
    pub fn next_after(&self, instant: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = instant.with_timezone(&self.zone);
        let next = self.pattern.cron.find_next_occurrence(&local, false).ok()?;
        Some(next.to_utc())
    }

    /// The occurrences after `last`, up to and with `now`; of very many only the last ones.
    #[must_use]
    pub fn between(&self, last: DateTime<Utc>, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let mut slots = Vec::new();
        let mut at = last;
        while let Some(next) = self.next_after(at).filter(|&next| next <= now) {
            if next <= at {
                break;
            }
            slots.push(next);
            at = next;
            if slots.len() > MOST_AT_ONCE {
                at = self.skip_ahead(at, now);
                slots.clear();
            }
        }
        slots
    }

    /// An instant from which only few occurrences are left until `now`.
    fn skip_ahead(&self, at: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
        let mut back = TimeDelta::seconds(1);
        while now - back > at && self.next_after(now - back).is_none_or(|next| next > now) {
            back = back * 2;
        }
        at.max(now - back)
    }
}

#[cfg(test)]
mod tests {
    use chrono::{NaiveDate, TimeZone};

    use super::*;

    fn calendar(pattern: &str, zone: Tz) -> Calendar {
        Calendar::new(pattern.parse().unwrap(), zone)
    }

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn two_in_the_morning_in_riyadh() {
        assert_eq!(
            calendar("0 0 2 * * *", Tz::Asia__Riyadh).next_after(utc("2026-11-24T12:00:00Z")),
            Some(utc("2026-11-24T23:00:00Z"))
        );
    }

    #[test]
    fn daylight_saving_time_skips_and_repeats_no_sweep() {
        for zone in [Tz::Africa__Cairo, Tz::Europe__London, Tz::America__New_York, Tz::Australia__Lord_Howe] {
            for pattern in ["0 0 2 * * *", "0 30 0 * * *", "0 30 1 * * *", "0 30 23 * * *"] {
                let from = zone.with_ymd_and_hms(2026, 1, 1, 12, 0, 0).unwrap().to_utc();
                let slots = calendar(pattern, zone).between(from, from + TimeDelta::days(365));
                let days: Vec<NaiveDate> = slots.iter().map(|slot| slot.with_timezone(&zone).date_naive()).collect();
                let mut distinct = days.clone();
                distinct.dedup();
                assert_eq!(days.len(), 365, "{zone} {pattern}");
                assert_eq!(days, distinct, "{zone} {pattern}");
            }
        }
    }

    #[test]
    fn the_latest_of_many_missed_sweeps_is_kept() {
        let now = utc("2026-11-24T12:00:00Z");
        let slots = calendar("* * * * * *", Tz::UTC).between(now - TimeDelta::days(1), now);
        assert_eq!(slots.last(), Some(&now));
        assert!(slots.len() <= MOST_AT_ONCE);
    }

    #[test]
    fn invalid_cron_expressions_are_refused() {
        for text in ["", "0 2 * * *", "99 0 2 * * *", "0 0 2 31 2 *", "at night"] {
            assert!(text.parse::<CronPattern>().is_err(), "{text}");
        }
    }
}
