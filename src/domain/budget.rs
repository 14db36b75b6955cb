//! A limit that counts the requests of all merchants and of all processes together. Pure: the clock is handed in.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// The length of a grain, in seconds. The requests of one grain are counted together, and expire together.
const GRAIN: i64 = 10;

/// How long a request counts, in seconds. Ten minutes, and as long as one may be on its way before it is counted there.
const COUNTS: i64 = 600 + 40;

/// The requests of the last ten minutes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// By the second of the epoch in which a grain begins: how many.
    sent: Vec<(i64, u32)>,
    /// The second of the epoch until which nothing may be sent.
    closed_until: Option<i64>,
}

impl Budget {
    /// Takes one request of `allowance` in ten minutes; or after how long, at the earliest, there is another.
    ///
    /// # Errors
    /// When nothing is left.
    pub fn take(&mut self, allowance: u32, now: DateTime<Utc>) -> Result<(), TimeDelta> {
        let second = now.timestamp();
        // After a clock was set back, what seems to come from the future was sent by now.
        self.sent.iter_mut().for_each(|(begins, _)| *begins = (*begins).min(second));
        self.sent.retain(|(begins, _)| begins + GRAIN + COUNTS > second);
        if let Some(until) = self.closed_until.map(|until| until.min(second + COUNTS)).filter(|until| *until > second) {
            return Err(TimeDelta::seconds(until - second));
        }
        self.closed_until = None;
        let sent: u32 = self.sent.iter().map(|(_, sent)| sent).sum();
        if sent >= allowance {
            let oldest = self.sent.first().map_or(second, |(begins, _)| *begins);
            return Err(TimeDelta::seconds((oldest + GRAIN + COUNTS - second).max(1)));
        }
        let grain = second - second.rem_euclid(GRAIN);
        match self.sent.last_mut() {
            Some((begins, sent)) if *begins >= grain => *sent += 1,
            _ => self.sent.push((grain, 1)),
        }
        Ok(())
    }

    /// Allows no request for `pause`, and never longer than requests count: then the whole allowance is free again. A
    /// longer pause concerns one merchant.
    pub fn close(&mut self, pause: TimeDelta, now: DateTime<Utc>) {
        let until = now.timestamp() + pause.num_seconds().clamp(1, COUNTS);
        self.closed_until = self.closed_until.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000 + second, 0).unwrap()
    }

    #[test]
    fn the_budget_recovers_after_ten_minutes() {
        let mut budget = Budget::default();
        assert_eq!((budget.take(2, at(0)), budget.take(2, at(5))), (Ok(()), Ok(())));
        let wait = budget.take(2, at(9)).unwrap_err();
        assert!(wait > TimeDelta::minutes(10) && wait < TimeDelta::minutes(11), "{wait}");
        assert_eq!(budget.take(2, at(9) + wait), Ok(()));
    }

    #[test]
    fn closed_for_a_while() {
        let mut budget = Budget::default();
        budget.close(TimeDelta::seconds(120), at(0));
        budget.close(TimeDelta::seconds(3), at(0));
        assert_eq!(budget.take(2, at(20)), Err(TimeDelta::seconds(100)));
        assert_eq!(budget.take(2, at(120)), Ok(()));
        budget.close(TimeDelta::days(7), at(120));
        assert_eq!(budget.take(2, at(120)), Err(TimeDelta::seconds(COUNTS)), "a week concerns one merchant");
        assert_eq!(budget.take(2, at(-9_999)), Err(TimeDelta::seconds(COUNTS)), "the clock was set back");
    }

    #[test]
    fn a_clock_that_is_set_back_blocks_for_at_most_ten_minutes() {
        let mut budget = Budget::default();
        assert_eq!(budget.take(1, at(1_000_000)), Ok(()));
        let wait = budget.take(1, at(0)).unwrap_err();
        assert!(wait < TimeDelta::minutes(11), "{wait}");
    }

    proptest! {
        /// At any time and for any callers: no ten minutes hold more than the allowance, though each may arrive up to 40 s late.
        #[test]
        fn ten_minutes_contain_at_most_the_allowance(steps in proptest::collection::vec((0i64..90, 0i64..=40), 1..200), allowance in 1u32..8) {
            let (mut budget, mut now, mut arrivals) = (Budget::default(), 0, Vec::new());
            for (step, late) in steps {
                now += step;
                match budget.take(allowance, at(now)) {
                    Ok(()) => arrivals.push(now + late),
                    Err(wait) => prop_assert!(wait > TimeDelta::zero()),
                }
            }
            for &begin in &arrivals {
                let within = arrivals.iter().filter(|&&arrival| (begin..begin + 600).contains(&arrival)).count();
                prop_assert!(within <= allowance as usize, "{within} of {allowance} from {begin} on: {arrivals:?}");
            }
        }
    }
}
