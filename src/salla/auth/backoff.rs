//! The backoff after failures of the token endpoint. Pure: the clock is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// The first and the longest pause after a failure of the token endpoint.
const SHORTEST_BACKOFF: Duration = Duration::from_secs(60);
const LONGEST_BACKOFF: Duration = Duration::from_secs(600);

/// The longest pause that an answer can ask for: one answer delays the tokens of all merchants.
const LONGEST_REQUESTED: Duration = Duration::from_secs(3600);

/// When a token endpoint in trouble is tried again. Each try may cost an installation, so all merchants wait.
#[derive(Debug, Default)]
pub struct Backoff {
    until: Option<Instant>,
    pause: Duration,
}

impl Backoff {
    /// The remaining backoff; `None`: a request is allowed.
    pub fn rests(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|rest| !rest.is_zero())
    }

    /// Notes an answer of the token endpoint. `answered`: it sent tokens or a refusal, which ends the backoff.
    /// Otherwise the backoff grows. A longer wait that the endpoint asks for counts instead, up to an hour.
    pub fn heard(&mut self, answered: bool, wants: Option<Duration>, now: Instant) {
        if answered {
            *self = Self::default();
        } else {
            self.pause = (self.pause * 2).clamp(SHORTEST_BACKOFF, LONGEST_BACKOFF);
            self.until = Some(now + self.pause.max(wants.unwrap_or_default().min(LONGEST_REQUESTED)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_until_an_answer() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        assert_eq!(backoff.rests(now), None);
        for minutes in [1, 2, 4, 8, 10, 10] {
            backoff.heard(false, Some(Duration::from_secs(30)), now);
            assert_eq!(backoff.rests(now), Some(Duration::from_secs(minutes * 60)));
        }
        assert_eq!(backoff.rests(now + LONGEST_BACKOFF), None);
        backoff.heard(true, None, now);
        assert_eq!(backoff.rests(now), None);
        backoff.heard(false, Some(Duration::from_secs(3600)), now);
        assert_eq!(backoff.rests(now), Some(Duration::from_secs(3600)), "what it asks for");
        backoff.heard(false, Some(Duration::from_secs(7 * 86_400)), now);
        assert_eq!(backoff.rests(now), Some(LONGEST_REQUESTED), "a week would outlast tokens");
    }
}
