//! A store's limit, in each of the ways in which servers count, and what they announce of it.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

/// Requests a minute and store, how they are counted, and what is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub per_minute: u32,
    /// Of which minute.
    pub kind: LimitKind,
    /// In the answers' headers.
    pub announces: Announces,
}

/// How the server counts a minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LimitKind {
    /// One that begins with the first request after the last one.
    Window,
    /// The clock's.
    ClockMinute,
    /// The last sixty seconds.
    #[default]
    Sliding,
    /// None: a bucket holds a minute's requests, and drains evenly.
    Leaky,
}

impl LimitKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Window, Self::ClockMinute, Self::Sliding, Self::Leaky];
}

/// Which headers an answer has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Announces {
    /// Limit, remaining and reset.
    #[default]
    All,
    /// Limit and remaining.
    NoReset,
    /// None.
    Nothing,
}

impl Limit {
    /// So many, in any sixty seconds, with all that can be announced.
    #[must_use]
    pub fn a_minute(per_minute: u32) -> Self {
        Self { per_minute, kind: LimitKind::default(), announces: Announces::default() }
    }

    /// Counted in another way.
    #[must_use]
    pub fn of(self, kind: LimitKind) -> Self {
        Self { kind, ..self }
    }

    /// Announced in another way.
    #[must_use]
    pub fn announcing(self, announces: Announces) -> Self {
        Self { announces, ..self }
    }
}

/// The requests of a store.
#[derive(Debug, Default)]
pub struct Meter {
    /// When the requests of the last minute came; `Sliding`.
    recent: VecDeque<DateTime<Utc>>,
    /// When the minute began, or the bucket was last looked at.
    since: DateTime<Utc>,
    /// Requests of that minute, or what is in the bucket, in sixty-thousandths of a request and limit.
    spent: i64,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    pub admitted: bool,
    /// Of the limit.
    pub remaining: u32,
    /// When all of it is there again, on the server's clock.
    pub reset: DateTime<Utc>,
    /// Whole seconds after which a request will be admitted, if no other comes.
    pub retry_after: i64,
}

/// One request in a bucket, whose content drains by the limit each millisecond.
const DROP: i64 = 60_000;

impl Meter {
    /// Counts a request that comes at `now`.
    pub fn count(&mut self, limit: Limit, now: DateTime<Utc>) -> Admission {
        let allowed = i64::from(limit.per_minute);
        let minute = TimeDelta::seconds(60);
        let (admitted, left, reset, again) = match limit.kind {
            LimitKind::Window | LimitKind::ClockMinute => {
                let clock = DateTime::from_timestamp(now.timestamp().div_euclid(60) * 60, 0).unwrap_or(now);
                let begin = if limit.kind == LimitKind::Window { now } else { clock };
                if now >= self.since + minute {
                    (self.since, self.spent) = (begin, 0);
                }
                let admitted = self.spent < allowed;
                self.spent += i64::from(admitted);
                (admitted, allowed - self.spent, self.since + minute, self.since + minute)
            }
            LimitKind::Sliding => {
                while self.recent.front().is_some_and(|&at| at + minute <= now) {
                    self.recent.pop_front();
                }
                let admitted = self.recent.len() < limit.per_minute as usize;
                if admitted {
                    self.recent.push_back(now);
                }
                let oldest = self.recent.front().map_or(now, |&at| at + minute);
                (admitted, allowed - i64::try_from(self.recent.len()).unwrap_or(allowed), now + minute, oldest)
            }
            LimitKind::Leaky => {
                let drained = (now - self.since).num_milliseconds().saturating_mul(allowed);
                (self.spent, self.since) = ((self.spent - drained).max(0), now);
                let admitted = self.spent + DROP <= allowed * DROP;
                self.spent += if admitted { DROP } else { 0 };
                let drains = |drops: i64| now + TimeDelta::milliseconds(drops / allowed.max(1) + 1);
                (admitted, allowed - (self.spent + DROP - 1) / DROP, drains(self.spent), drains(DROP))
            }
        };
        let remaining = u32::try_from(left.max(0)).unwrap_or(u32::MAX);
        Admission { admitted, remaining, reset, retry_after: (again - now).num_seconds() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of these requests, at seconds, are admitted.
    fn admitted(kind: LimitKind, seconds: &[i64]) -> Vec<bool> {
        let (mut meter, limit) = (Meter::default(), Limit::a_minute(2).of(kind));
        let at = |second: i64| DateTime::from_timestamp(1_790_000_040 + second, 0).unwrap();
        seconds.iter().map(|&second| meter.count(limit, at(second)).admitted).collect()
    }

    #[test]
    fn four_ways_to_count() {
        // The clock's minute begins at 0.
        let seconds = [30, 50, 59, 61, 91, 111];
        assert_eq!(admitted(LimitKind::Window, &seconds), [true, true, false, false, true, true]);
        assert_eq!(admitted(LimitKind::ClockMinute, &seconds), [true, true, false, true, true, false]);
        assert_eq!(admitted(LimitKind::Sliding, &seconds), [true, true, false, false, true, true]);
        assert_eq!(admitted(LimitKind::Leaky, &seconds), [true, true, false, true, true, false]);
    }

    #[test]
    fn limits_announce_rest_and_reset() {
        let now = DateTime::from_timestamp(1_790_000_040 + 15, 0).unwrap();
        let verdict = |kind| Meter::default().count(Limit::a_minute(2).of(kind), now);
        for (kind, reset) in LimitKind::ALL.into_iter().zip([60, 45, 60, 30]) {
            let verdict = verdict(kind);
            assert!(verdict.admitted && verdict.remaining == 1, "{kind:?} {verdict:?}");
            assert_eq!((verdict.reset - now).num_seconds(), reset, "{kind:?} {verdict:?}");
        }
    }
}
