//! How many requests one store's limit still permits. Pure: the clock is handed in.
//!
//! The last minute's requests are remembered, so that no minute, wherever it begins, holds more than the
//! limit; a token bucket would allow nearly twice that in the minute after a rest. What the answers'
//! headers announce is believed over our own count, since other apps of the store spend from it too.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// What an answer's headers said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// `X-RateLimit-Limit`: requests a minute.
    pub limit: u32,
    /// `X-RateLimit-Remaining`: of these.
    pub remaining: u32,
    /// `X-RateLimit-Reset`, as a time from now.
    pub reset_in: Duration,
}

/// One store's limit.
#[derive(Debug)]
pub struct Limiter {
    share: f64,
    per_minute: u32,
    sent: VecDeque<Instant>,
    /// What is left until an instant, by the server's own account.
    left: Option<(u32, Instant)>,
    paused_until: Option<Instant>,
}

impl Limiter {
    /// `share` of `per_minute` requests a minute, until an answer says otherwise.
    pub fn new(per_minute: u32, share: f64) -> Self {
        Self { share, per_minute: usable(per_minute, share), sent: VecDeque::new(), left: None, paused_until: None }
    }

    /// Takes one request from the limit, or says how long to wait before asking again.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        while self.sent.front().is_some_and(|&at| now.duration_since(at) >= MINUTE) {
            self.sent.pop_front();
        }
        self.left = self.left.filter(|&(_, reset)| reset > now);
        let pause = self.paused_until.filter(|&until| until > now);
        let announced = self.left.filter(|&(left, _)| left == 0).map(|(_, reset)| reset);
        let counted = self
            .sent
            .len()
            .checked_sub(self.per_minute as usize)
            .and_then(|over| self.sent.get(over))
            .map(|&at| at + MINUTE);
        if let Some(until) = [pause, announced, counted].into_iter().flatten().max() {
            return Err(until.duration_since(now));
        }
        if let Some((left, _)) = &mut self.left {
            *left -= 1;
        }
        self.sent.push_back(now);
        Ok(())
    }

    /// Believes what an answer announced.
    pub fn observe(&mut self, announced: Announced, now: Instant) {
        self.per_minute = usable(announced.limit, self.share);
        let reserved = announced.limit - self.per_minute.min(announced.limit);
        let left = announced.remaining.saturating_sub(reserved);
        self.left = Some((left, now + announced.reset_in.min(MINUTE)));
    }

    /// Sends nothing for `pause`.
    pub fn pause(&mut self, pause: Duration, now: Instant) {
        self.paused_until = self.paused_until.max(Some(now + pause));
    }

    /// Nothing about it is worth remembering.
    pub fn idle(&self, now: Instant) -> bool {
        self.paused_until.is_none_or(|until| until <= now)
            && self.sent.back().is_none_or(|&at| now.duration_since(at) >= MINUTE)
    }
}

/// At least one, or nothing would ever be sent.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the share lies between 0 and 1")]
fn usable(limit: u32, share: f64) -> u32 {
    ((f64::from(limit) * share) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sends as fast as it may for `span`, and returns when.
    fn drive(limiter: &mut Limiter, span: Duration) -> Vec<Instant> {
        let start = Instant::now();
        let (mut now, mut sent) = (start, Vec::new());
        while now < start + span {
            match limiter.take(now) {
                Ok(()) => {
                    sent.push(now);
                    now += Duration::from_millis(7);
                }
                Err(wait) => now += wait,
            }
        }
        sent
    }

    proptest! {
        #[test]
        fn no_minute_holds_more_than_the_limit_and_hardly_less(limit in 1u32..400) {
            let sent = drive(&mut Limiter::new(limit, 1.0), Duration::from_secs(600));
            let crowded = sent.windows(limit as usize + 1).any(|run| run[limit as usize].duration_since(run[0]) < MINUTE);
            prop_assert!(!crowded);
            prop_assert!(sent.len() >= limit as usize * 9);
        }
    }

    #[test]
    fn what_the_server_announces_is_believed() {
        let mut limiter = Limiter::new(120, 1.0);
        let now = Instant::now();
        limiter.observe(Announced { limit: 360, remaining: 1, reset_in: Duration::from_secs(9) }, now);
        assert_eq!(limiter.take(now), Ok(()));
        assert_eq!(limiter.take(now), Err(Duration::from_secs(9)));
        assert_eq!(limiter.take(now + Duration::from_secs(9)), Ok(()));
    }

    #[test]
    fn a_share_is_left_to_others() {
        let mut limiter = Limiter::new(120, 0.5);
        let now = Instant::now();
        limiter.observe(Announced { limit: 100, remaining: 50, reset_in: Duration::from_secs(5) }, now);
        assert_eq!(limiter.take(now), Err(Duration::from_secs(5)));
    }

    #[test]
    fn a_pause_is_kept() {
        let mut limiter = Limiter::new(120, 1.0);
        let now = Instant::now();
        limiter.pause(Duration::from_secs(3), now);
        assert_eq!(limiter.take(now), Err(Duration::from_secs(3)));
        assert!(!limiter.idle(now));
        assert!(limiter.idle(now + MINUTE));
    }
}
