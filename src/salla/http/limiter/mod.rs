//! How many requests one merchant's limit still permits. Pure: the clock is handed in.
//!
//! The server does not say how it counts. There are four possibilities:
//!
//! - minutes that begin with a request
//! - minutes of the clock
//! - the last sixty seconds
//! - a leaky bucket
//!
//! Each of them accepts a client that never sends more requests than the limit within any sixty
//! seconds. The log of the last minute ensures that. It costs almost nothing: in the long run, no
//! such server permits more. A request may reach the server at any time between its sending and its
//! answer. So it stays in the log for one minute after its answer.
//!
//! The headers of the answers announce two facts that the log cannot know. These are the limit, and
//! the requests of others. Others are other apps, or this program before a restart.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// How long a request counts. The tenth of a second: clocks that are being set run faster or slower than they should.
const MINUTE: Duration = Duration::from_millis(60_100);

/// A reset that moves on by less, in seconds, is not that of another minute.
const NEXT_MINUTE: i64 = 55;

/// The rate-limit headers of an answer; each may be missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Announced {
    /// `X-RateLimit-Limit`: requests a minute, at least one.
    pub limit: Option<u32>,
    /// `X-RateLimit-Remaining`: of these.
    pub remaining: Option<u32>,
    /// `X-RateLimit-Reset`.
    pub reset: Option<Reset>,
    /// It came with status 429, and some of the others.
    pub refused: bool,
}

/// When the server's count restarts, by its own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// Seconds of the Unix epoch on the server's clock, as announced.
    pub at: i64,
    /// From the answer on; both ends are whole seconds of the server's clock.
    pub wait: Duration,
}

impl Reset {
    /// The end of the second that is announced; and no minute that has begun lasts longer than one.
    fn ends(self, now: Instant) -> Instant {
        now + self.wait.saturating_add(Duration::from_secs(1)).min(MINUTE)
    }
}

/// A permit for one request. Its answer, or failure, must be reported to [`Limiter::answered`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Requests that were sent before it.
    number: u64,
    /// Of these, the ones that no longer counted when it was sent.
    past: u64,
    /// It is the last one for at least this long: a restarted program has to wait for the rest of it.
    pub rest: Option<Duration>,
}

/// One merchant's limit.
#[derive(Debug)]
pub struct Limiter {
    share: f64,
    /// Requests a minute, everybody's.
    limit: u32,
    /// When those requests were answered that still count; ascending.
    log: VecDeque<Instant>,
    in_flight: u32,
    /// Requests that count no longer.
    past: u64,
    /// The latest answered request.
    newest: u64,
    /// Requests of other processes, and until when they count.
    others: Option<(u32, Instant)>,
    window: Option<Window>,
    /// The reset is one that every request moves on: no end of anything, but "in a minute", or "when all has leaked".
    reset_moves: bool,
    paused_until: Option<Instant>,
    /// Answers announced the remaining requests.
    announced: bool,
}

/// Less than this part of a limit is not worth telling others of.
const WORTH_TELLING: u32 = 10;

/// The remaining requests that the server announces, and the time until which no more are allowed.
#[derive(Debug)]
struct Window {
    /// Of the server's minute; without one, nothing is left after a refusal.
    reset: Option<i64>,
    remaining: u32,
    ends: Instant,
}

impl Limiter {
    /// `share` of `per_minute` requests a minute, until an answer says otherwise.
    pub fn new(per_minute: u32, share: f64) -> Self {
        Self {
            share,
            limit: per_minute,
            log: VecDeque::new(),
            in_flight: 0,
            past: 0,
            newest: 0,
            others: None,
            window: None,
            reset_moves: false,
            paused_until: None,
            announced: false,
        }
    }

    /// Requests of the last minute that still count, for other processes, if the server does not announce them.
    pub fn recent_requests(&mut self, now: Instant) -> u32 {
        self.forget(now);
        let sent = u32::try_from(self.log.len()).unwrap_or(u32::MAX).saturating_add(self.in_flight);
        if self.announced || sent <= usable(self.limit, self.share) / WORTH_TELLING { 0 } else { sent }
    }

    /// Counts requests that another process has sent within the last minute, at unknown times. With
    /// `None`, their number is also unknown, and a quarter of the usable limit counts. The process
    /// may have sent so many after it last renewed its lease.
    pub fn add_recent_requests(&mut self, recent_requests: Option<u32>, now: Instant) {
        let usable = usable(self.limit, self.share);
        if self.log.is_empty() && self.in_flight == 0 {
            self.log.extend(std::iter::repeat_n(now, recent_requests.unwrap_or(usable / 4).min(usable) as usize));
        }
    }

    /// Takes one request from the limit, or says how long to wait at most before asking again; any answer is
    /// reason to ask earlier.
    pub fn take(&mut self, now: Instant) -> Result<Grant, Duration> {
        self.forget(now);
        // After a quiet minute nothing is known of what others left: one request goes ahead to learn it.
        if self.log.is_empty() && self.in_flight > 0 {
            return Err(MINUTE);
        }
        if let Some(until) = self.closed_until(now) {
            return Err(until.duration_since(now));
        }
        let (number, past) = (self.sent(), self.past);
        self.in_flight += 1;
        Ok(Grant { number, past, rest: self.closed_until(now).map(|until| until.duration_since(now)) })
    }

    /// A request has its answer, or will have none; believes what that announced.
    pub fn answered(&mut self, grant: Grant, announced: Announced, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.log.push_back(now);
        // Answers overtake each other, and an old one knows of an old limit.
        let news = grant.number >= self.newest;
        self.newest = self.newest.max(grant.number);
        if let Some(limit) = announced.limit.filter(|_| news) {
            self.limit = limit;
        }
        self.announced |= announced.remaining.is_some();
        let Some(remaining) = announced.remaining.or(announced.refused.then_some(0)) else {
            return;
        };
        let remaining = if announced.refused { 0 } else { remaining.min(self.limit) };
        self.learn(remaining, announced, now);
        if news {
            self.others = self.others(remaining, grant, now);
        }
    }

    /// The requests of others, if no minute of the server shows the remaining ones.
    /// The server may have counted our requests that still counted when this one was sent, and all
    /// later ones. It counted the rest for others.
    fn others(&self, remaining: u32, grant: Grant, now: Instant) -> Option<(u32, Instant)> {
        if self.window.as_ref().is_some_and(|window| window.reset.is_some() && window.ends > now) {
            return None;
        }
        let ours = u32::try_from(self.sent() - grant.past).unwrap_or(u32::MAX);
        let others = (self.limit - remaining).saturating_sub(ours);
        // They continue while an answer is awaited.
        (others > 0).then_some((others.saturating_add(others.div_ceil(8)), now + MINUTE))
    }

    /// Sends nothing for `pause`; a limiter that begins with it takes up the rest of one before.
    pub fn pause(&mut self, pause: Duration, now: Instant) {
        self.paused_until = self.paused_until.max(now.checked_add(pause));
    }

    /// Nothing about it is worth remembering.
    pub fn idle(&self, now: Instant) -> bool {
        let counts = |&at: &Instant| at + MINUTE > now;
        self.in_flight == 0
            && self.paused_until.is_none_or(|until| until <= now)
            && !self.log.back().is_some_and(counts)
    }

    /// Tracks the minute of the server, or a refusal if the minute is unknown.
    fn learn(&mut self, remaining: u32, announced: Announced, now: Instant) {
        // After a minute no server refuses what it refused.
        let refusal = announced.refused.then(|| Window { reset: None, remaining, ends: now + MINUTE });
        let reset = announced.reset.filter(|_| !self.reset_moves);
        match (reset, self.window.as_mut().filter(|window| window.ends > now)) {
            (Some(Reset { at, .. }), Some(Window { reset: Some(known), .. })) if at < *known => {}
            (Some(reset), Some(Window { reset: Some(known), remaining: least, ends })) if reset.at == *known => {
                *least = remaining.min(*least);
                // Each answer shows the server's clock to a second; together they do so more closely.
                *ends = reset.ends(now).min(*ends);
            }
            (Some(Reset { at, .. }), Some(Window { reset: known @ Some(_), remaining: least, .. }))
                if known.is_some_and(|known| at < known.saturating_add(NEXT_MINUTE)) =>
            {
                (self.reset_moves, *known) = (true, None);
                *least = remaining.min(*least);
            }
            // Some servers announce the reset now and then only: until then it does not become more. Nor does it
            // after a refusal, whatever an answer says that was under way.
            (None, Some(window)) | (_, Some(window @ Window { reset: None, .. })) => {
                window.remaining = remaining.min(window.remaining);
            }
            (Some(reset), _) => {
                self.window = Some(Window { reset: Some(reset.at), remaining, ends: reset.ends(now) });
            }
            (None, None) => self.window = refusal,
        }
    }

    /// Until when nothing can be sent, unless an answer changes that.
    fn closed_until(&self, now: Instant) -> Option<Instant> {
        let pause = self.paused_until.filter(|&until| until > now);
        let usable = usable(self.limit, self.share);
        // The server may not have counted requests in progress. Otherwise their answers will show it.
        let reserved = (self.limit - usable).saturating_add(self.in_flight);
        let left = self.window.as_ref().filter(|window| window.ends > now && window.remaining <= reserved);
        let announced = left.map(|window| window.ends);
        let others = self.others.filter(|&(_, until)| until > now);
        let room = usable.saturating_sub(others.map_or(0, |(count, _)| count)) as usize;
        let counted = (self.log.len() + self.in_flight as usize).checked_sub(room).map(|over| {
            let ours = self.log.get(over).map_or(now, |&at| at) + MINUTE;
            others.map_or(ours, |(_, until)| ours.min(until))
        });
        [pause, announced, counted].into_iter().flatten().max()
    }

    fn forget(&mut self, now: Instant) {
        while self.log.front().is_some_and(|&at| at + MINUTE <= now) {
            self.log.pop_front();
            self.past += 1;
        }
    }

    fn sent(&self) -> u64 {
        self.past + self.log.len() as u64 + u64::from(self.in_flight)
    }
}

/// At least one, or nothing would ever be sent.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the share lies between 0 and 1")]
fn usable(limit: u32, share: f64) -> u32 {
    ((f64::from(limit) * share) as u32).max(1)
}

#[cfg(test)]
mod tests;
