//! How many events are sent beside each other, and when a receiver in trouble is tried again. Pure.

use std::time::Duration;

/// Events on their way at the same time.
const MOST_AT_ONCE: u32 = 16;

const SHORTEST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The first and the longest pause before an undelivered event is sent again.
const SHORTEST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// The pace of one process: one event after trouble, and twice as many after each round without.
#[derive(Debug)]
pub struct DeliveryBackoff {
    at_once: u32,
    rest: Duration,
}

impl Default for DeliveryBackoff {
    fn default() -> Self {
        Self { at_once: 1, rest: Duration::ZERO }
    }
}

impl DeliveryBackoff {
    /// How many to send.
    pub fn at_once(&self) -> u32 {
        self.at_once
    }

    /// Whether the last round brought trouble.
    pub fn is_troubled(&self) -> bool {
        !self.rest.is_zero()
    }

    /// All were taken in.
    pub fn on_success(&mut self) {
        *self = Self { at_once: (self.at_once * 2).min(MOST_AT_ONCE), rest: Duration::ZERO };
    }

    /// The receiver answers, and has something against each of them, which wait by themselves; gives the rest until the
    /// next round. It may be all there are.
    pub fn refused(&self) -> Duration {
        SHORTEST_REST
    }

    /// Some were not; gives the rest until the next round.
    pub fn went_wrong(&mut self) -> Duration {
        *self = Self { at_once: 1, rest: (self.rest * 2).clamp(SHORTEST_REST, LONGEST_REST) };
        self.rest
    }
}

/// For how long an event waits after so many tries. `share`, from 0 to 1, is chance: events that failed together are
/// not tried again together.
pub fn pause(attempts: u32, share: f64) -> Duration {
    let doubled = SHORTEST_PAUSE.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1)));
    doubled.min(LONGEST_PAUSE).mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_after_failures() {
        let mut pace = DeliveryBackoff::default();
        let mut sent = Vec::new();
        for _ in 0..6 {
            sent.push(pace.at_once());
            pace.on_success();
        }
        assert_eq!(sent, [1, 2, 4, 8, 16, 16]);
        let rests: Vec<u64> = (0..8).map(|_| pace.went_wrong().as_secs()).collect();
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!((pace.at_once(), pace.is_troubled()), (1, true));
        pace.on_success();
        assert_eq!((pace.at_once(), pace.is_troubled()), (2, false));
    }

    #[test]
    fn events_wait_longer_each_time() {
        let pauses = [1, 2, 3, 9, 10, 100, u32::MAX].map(|attempts| pause(attempts, 1.0).as_secs());
        assert_eq!(pauses, [2, 4, 8, 512, 600, 600, 600]);
        assert_eq!(pause(1, 0.0), Duration::from_secs(1));
    }
}
