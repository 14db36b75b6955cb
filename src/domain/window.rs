//! The interval of changes that a run covers.

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::Resources;

/// A list of Salla shows a change this late. A change that is older than this stands in the list.
pub const SETTLING: TimeDelta = TimeDelta::seconds(60);

/// A half-open span `[since, until)` of UTC instants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first instant that is covered.
    pub since: DateTime<Utc>,
    /// The first instant that is not.
    pub until: DateTime<Utc>,
}

/// What a caller asked of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The start of the window; `None`: the policy decides.
    pub since: Option<DateTime<Utc>>,
    /// The end of the window; `None`: now.
    pub until: Option<DateTime<Utc>>,
    /// All records instead of a window.
    #[serde(default)]
    pub full: bool,
    /// Show the differences, and write no record.
    #[serde(default)]
    pub dry_run: bool,
    /// Which kinds of record; none: those that are configured.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
}

/// How far a merchant's records of one kind are covered before a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covered {
    /// All that Salla changed before this instant has been read back.
    UpTo(DateTime<Utc>),
    /// Nothing, since the merchant was registered at this instant.
    NothingSince(DateTime<Utc>),
}

/// How far a window reaches back by default.
#[derive(Debug, Clone, Copy)]
pub struct WindowPolicy {
    /// At least this far before now.
    pub lookback: TimeDelta,
    /// And this far before the last watermark.
    pub overlap: TimeDelta,
}

/// A window that ends before it begins, or lies where no order can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the window ends ({until}) before it begins ({since}), or lies outside of the years 1970 to 9999")]
pub struct InvalidWindow {
    since: DateTime<Utc>,
    until: DateTime<Utc>,
}

impl Request {
    /// Checks what can be checked before the run begins.
    ///
    /// # Errors
    /// When `until` is not after `since`, or either is absurd.
    pub fn validate(&self, now: DateTime<Utc>) -> Result<(), InvalidWindow> {
        let until = self.until.unwrap_or(now);
        let earliest = if self.full { Some(DateTime::UNIX_EPOCH) } else { self.since };
        let since = earliest.unwrap_or(DateTime::UNIX_EPOCH);
        let sensible = |at: DateTime<Utc>| (1970..10_000).contains(&at.year());
        if since < until && sensible(since) && sensible(until) { Ok(()) } else { Err(InvalidWindow { since, until }) }
    }
}

impl Window {
    /// Plans the window of a run that begins `now`: back to where what is `covered` ends, and at least as far as the
    /// policy's lookback. A night that failed or was missed thus widens the next one.
    ///
    /// # Errors
    /// When the request's own bounds leave nothing between them.
    pub fn plan(
        now: DateTime<Utc>,
        covered: Covered,
        policy: WindowPolicy,
        request: &Request,
    ) -> Result<Self, InvalidWindow> {
        request.validate(now)?;
        let until = request.until.unwrap_or(now);
        let since = if request.full {
            DateTime::UNIX_EPOCH
        } else {
            request.since.unwrap_or_else(|| {
                let back = |from: DateTime<Utc>, span| from.checked_sub_signed(span).unwrap_or(DateTime::UNIX_EPOCH);
                let lookback = back(until.min(now), policy.lookback);
                lookback.min(match covered {
                    Covered::UpTo(watermark) => back(watermark, policy.overlap),
                    Covered::NothingSince(registered) => registered,
                })
            })
        };
        if since < until { Ok(Self { since, until }) } else { Err(InvalidWindow { since, until }) }
    }

    /// The watermark after a run over this window that began at `observed_at` of Salla's clock. It never moves back,
    /// and never over a gap. Salla shows some changes late, before the last watermark, so the window must begin before
    /// it.
    #[must_use]
    pub fn advance(
        &self,
        covered: Covered,
        overlap: TimeDelta,
        observed_at: DateTime<Utc>,
        until_requested: Option<DateTime<Utc>>,
    ) -> Option<DateTime<Utc>> {
        let now_covered = until_requested.map_or(observed_at, |until| until.min(observed_at));
        match covered {
            // A first window that ends in the past says nothing about what came after it.
            Covered::NothingSince(registered) => {
                (until_requested.is_none() && self.since <= registered).then_some(now_covered)
            }
            Covered::UpTo(watermark) if self.since <= watermark - overlap => Some(watermark.max(now_covered)),
            Covered::UpTo(watermark) => Some(watermark),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    const POLICY: WindowPolicy = WindowPolicy { lookback: TimeDelta::hours(24), overlap: TimeDelta::minutes(10) };

    fn at(hours: i64) -> DateTime<Utc> {
        Utc.timestamp_opt(1_790_000_000 + hours * 3600, 0).unwrap()
    }

    #[test]
    fn reaches_back_to_the_last_success_when_that_is_longer_ago() {
        let plan = |covered| Window::plan(at(0), covered, POLICY, &Request::default()).unwrap().since;
        assert_eq!(plan(Covered::UpTo(at(-2))), at(-24));
        assert_eq!(plan(Covered::UpTo(at(-72))), at(-72) - TimeDelta::minutes(10));
    }

    /// A first success also covers the failed nights before it.
    #[test]
    fn reaches_back_to_the_registration_when_nothing_ever_succeeded() {
        let plan = |registered| {
            let covered = Covered::NothingSince(registered);
            Window::plan(at(0), covered, POLICY, &Request::default()).unwrap().since
        };
        assert_eq!(plan(at(0)), at(-24));
        assert_eq!(plan(at(-72)), at(-72));
        // By the database's clock a merchant may be registered a moment from now.
        assert_eq!(plan(at(1)), at(-24));
    }

    #[test]
    fn a_window_that_ends_before_it_begins_is_refused() {
        let request = Request { since: Some(at(1)), until: Some(at(0)), ..Request::default() };
        assert!(Window::plan(at(2), Covered::NothingSince(at(0)), POLICY, &request).is_err());
    }

    #[test]
    fn the_watermark_moves_forward_only_and_over_no_gap() {
        let window = Window { since: at(-24), until: at(0) };
        let advance = |covered, until| window.advance(covered, POLICY.overlap, at(0), until);
        assert_eq!(advance(Covered::NothingSince(at(-3)), None), Some(at(0)));
        assert_eq!(advance(Covered::NothingSince(at(-3)), Some(at(-5))), None);
        assert_eq!(advance(Covered::NothingSince(at(-48)), None), None, "of the first day nothing was read");
        assert_eq!(advance(Covered::UpTo(at(-2)), None), Some(at(0)));
        assert_eq!(advance(Covered::UpTo(at(-48)), None), Some(at(-48)));
        assert_eq!(advance(Covered::UpTo(at(-24)), None), Some(at(-24)), "what came late before it was not read again");
        assert_eq!(advance(Covered::UpTo(at(-24) + POLICY.overlap), None), Some(at(0)));
        assert_eq!(advance(Covered::UpTo(at(-2)), Some(at(-5))), Some(at(-2)));
    }
}
