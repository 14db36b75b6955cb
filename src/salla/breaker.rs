//! When to leave a Salla alone that is down. Pure: the clock is handed in.
//!
//! The circuit opens after so many failures in a row, of several stores: one store's trouble is its own.
//! Open, it lets one request through now and then, the probe, and closes when a probe is answered.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use crate::domain::MerchantId;

/// Failures in a row, without any answer that is none, before Salla counts as down.
const FAILURES: u32 = 10;
/// Of at least so many stores.
const STORES: usize = 3;
/// The pause before the first probe; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// And never longer than this, so that a Salla that is back is noticed within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(40);
/// A probe of which nothing was heard for this long is given up, and another one sent.
const PROBE_TAKES_AT_MOST: Duration = Duration::from_secs(50);

/// The state of the circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Requests go through.
    Closed,
    /// None does until then.
    Open(Instant),
    /// One is on its way; the others wait for what becomes of it, until then at the longest.
    HalfOpen(Instant),
}

impl State {
    /// The words that the metrics use.
    pub const WORDS: [&str; 3] = ["closed", "open", "half_open"];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(_) => "open",
            Self::HalfOpen(_) => "half_open",
        }
    }
}

/// The circuit to Salla's host.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    failures: u32,
    stores: HashSet<MerchantId>,
    pause: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed, failures: 0, stores: HashSet::new(), pause: FIRST_PAUSE }
    }
}

impl Breaker {
    pub fn state(&self) -> State {
        self.state
    }

    /// Lets a request through, or says for how long to wait before asking again.
    pub fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.state {
            State::Closed => Ok(()),
            State::Open(until) | State::HalfOpen(until) if until > now => Err(until.duration_since(now)),
            State::Open(_) | State::HalfOpen(_) => {
                self.state = State::HalfOpen(now + PROBE_TAKES_AT_MOST);
                Ok(())
            }
        }
    }

    /// Salla answered.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Salla could not be reached, or was broken.
    pub fn failed(&mut self, merchant: MerchantId, now: Instant) {
        match self.state {
            State::Closed => {
                self.failures += 1;
                if self.stores.len() < STORES {
                    self.stores.insert(merchant);
                }
                if self.failures >= FAILURES && self.stores.len() >= STORES {
                    self.state = State::Open(now + self.pause);
                }
            }
            State::HalfOpen(_) => {
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                self.state = State::Open(now + self.pause);
            }
            // A request that was under way when the circuit opened.
            State::Open(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &mut Breaker, stores: i64, times: i64, now: Instant) {
        for time in 0..times {
            breaker.failed(MerchantId(time % stores), now);
        }
    }

    #[test]
    fn opens_after_failures_of_several_stores_and_closes_after_a_probe() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        fail(&mut breaker, 3, 9, now);
        assert_eq!(breaker.admit(now), Ok(()));
        fail(&mut breaker, 3, 1, now);
        assert_eq!(breaker.admit(now), Err(FIRST_PAUSE));
        let later = now + FIRST_PAUSE;
        assert_eq!(breaker.admit(later), Ok(()));
        assert!(breaker.admit(later).is_err(), "one probe at a time");
        breaker.failed(MerchantId(1), later);
        assert_eq!(breaker.admit(later), Err(FIRST_PAUSE * 2));
        assert_eq!(breaker.admit(later + FIRST_PAUSE * 2), Ok(()));
        breaker.succeeded();
        assert_eq!(breaker.admit(later), Ok(()));
    }

    #[test]
    fn one_store_s_trouble_is_its_own() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        fail(&mut breaker, 1, 1000, now);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn an_answer_in_between_begins_the_count_anew() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        fail(&mut breaker, 3, 9, now);
        breaker.succeeded();
        fail(&mut breaker, 3, 9, now);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn a_salla_that_is_back_is_noticed_within_a_minute_and_a_lost_probe_is_replaced() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        fail(&mut breaker, 3, 10, now);
        for _ in 0..20 {
            let wait = breaker.admit(now).unwrap_err();
            assert!(wait <= LONGEST_PAUSE);
            now += wait;
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.failed(MerchantId(1), now);
        }
        now += LONGEST_PAUSE;
        assert_eq!(breaker.admit(now), Ok(()));
        assert_eq!(breaker.admit(now + PROBE_TAKES_AT_MOST), Ok(()));
    }
}
