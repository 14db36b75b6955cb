//! The middleware that keeps each merchant's requests within its limit, and all merchants' together within the process's. It
//! stands inside the retries, so that every attempt pays.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use http::{Extensions, HeaderMap, StatusCode};
use parking_lot::Mutex;
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next, Result};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{
    limiter::{Announced, Grant, Limiter, Reset},
    response::Call,
    waits::Waits,
};
use crate::{
    domain::{MerchantId, WaitReason},
    reconcile::{Metrics, ports::BackoffStore},
    response_headers::served_at,
};

/// Above this many merchants, those at rest are forgotten.
const REMEMBERED: usize = 1024;

/// How often idle merchants are removed at most: each removal looks at all merchants.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// The largest share of the limit of a minute that a process sends at once.
const AT_ONCE: u32 = 600;

/// The limiters of merchants with recent requests.
#[derive(Debug)]
pub struct Limiters {
    per_minute: u32,
    share: f64,
    merchants: Mutex<MerchantLimiters>,
    waits: Waits,
}

#[derive(Debug)]
struct MerchantLimiters {
    asked: HashMap<MerchantId, MerchantLimiter>,
    looked_through: Instant,
}

impl MerchantLimiters {
    fn forget_those_at_rest(&mut self, now: Instant) {
        if self.asked.len() > REMEMBERED && now >= self.looked_through + FORGET_EVERY {
            self.asked.retain(|_, state| !state.limiter.idle(now));
            self.looked_through = now;
        }
    }
}

#[derive(Debug)]
struct MerchantLimiter {
    limiter: Limiter,
    /// Rung at each answer, which may be what others wait for.
    answered: Arc<Notify>,
}

impl Limiters {
    /// `share` of `per_minute` requests for each merchant, until its answers say otherwise.
    pub fn new(per_minute: u32, share: f64, waits: Waits) -> Self {
        let merchants = MerchantLimiters { asked: HashMap::new(), looked_through: Instant::now() };
        Self { per_minute, share, merchants: Mutex::new(merchants), waits }
    }

    /// Sends nothing for a merchant for `pause`.
    pub fn pause(&self, merchant: MerchantId, pause: Duration) {
        self.with(merchant, |state, now| state.limiter.pause(pause, now));
    }

    /// Requests of the last minute, for other processes.
    pub fn recent_requests(&self, merchant: MerchantId) -> u32 {
        self.with(merchant, |state, now| state.limiter.recent_requests(now))
    }

    /// Requests of another process in this minute.
    pub fn add_recent_requests(&self, merchant: MerchantId, recent_requests: Option<u32>) {
        self.with(merchant, |state, now| state.limiter.add_recent_requests(recent_requests, now));
    }

    /// Waits for leave to send a request.
    async fn admit(&self, merchant: MerchantId) -> RequestInFlight<'_> {
        loop {
            let (taken, answer) = self.with(merchant, |state, now| {
                // Before the limiter is asked, so that no answer in between is missed.
                let answer = Arc::clone(&state.answered).notified_owned();
                (state.limiter.take(now), answer)
            });
            match taken {
                Ok(grant) => return RequestInFlight { limiters: self, merchant, grant: Some(grant) },
                Err(wait) => {
                    let message = "the rate limit of the merchant is used up, or Salla asked to wait";
                    let _shown = self.waits.begin(merchant, WaitReason::RateLimited, message, wait);
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = answer => {}
                    }
                }
            }
        }
    }

    fn with<T>(&self, merchant: MerchantId, act: impl FnOnce(&mut MerchantLimiter, Instant) -> T) -> T {
        let mut merchants = self.merchants.lock();
        let now = Instant::now();
        merchants.forget_those_at_rest(now);
        let state = merchants.asked.entry(merchant).or_insert_with(|| MerchantLimiter {
            limiter: Limiter::new(self.per_minute, self.share),
            answered: Arc::default(),
        });
        act(state, now)
    }
}

/// A request that is in progress. A caller that drops it without an answer, by an error or a cancellation, has sent
/// it all the same.
struct RequestInFlight<'a> {
    limiters: &'a Limiters,
    merchant: MerchantId,
    grant: Option<Grant>,
}

impl RequestInFlight<'_> {
    fn answered(mut self, announced: Announced) {
        self.tell(announced);
    }

    fn tell(&mut self, announced: Announced) {
        if let Some(grant) = self.grant.take() {
            self.limiters.with(self.merchant, |state, now| {
                state.limiter.answered(grant, announced, now);
                state.answered.notify_waiters();
            });
        }
    }
}

impl Drop for RequestInFlight<'_> {
    fn drop(&mut self) {
        self.tell(Announced::default());
    }
}

/// The limit of this process for all merchants.
#[derive(Debug)]
pub struct ProcessLimit {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl ProcessLimit {
    /// `per_minute` requests a minute, evenly.
    pub fn new(per_minute: u32) -> Self {
        let per_minute = NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN);
        let at_once = NonZeroU32::new(per_minute.get() / AT_ONCE).unwrap_or(NonZeroU32::MIN);
        Self {
            limiter: RateLimiter::direct(Quota::per_minute(per_minute).allow_burst(at_once)),
            clock: DefaultClock::default(),
        }
    }

    async fn wait(&self) {
        while let Err(early) = self.limiter.check() {
            sleep(early.wait_time_from(self.clock.now())).await;
        }
    }
}

/// A shorter rest than this is over before another process could ask.
const SHORTEST_REST: Duration = Duration::from_secs(1);

/// Waits for the limits, and learns the merchant's.
#[derive(Debug)]
pub struct Throttle<P> {
    pub limiters: Arc<Limiters>,
    /// Where an exhausted limit is kept for the next process that has the merchant.
    pub pauses: Arc<P>,
    pub process: ProcessLimit,
    pub metrics: Arc<Metrics>,
}

#[async_trait::async_trait]
impl<P: BackoffStore> Middleware for Throttle<P> {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let Some(merchant) = extensions.get::<Call>().map(|call| call.merchant) else {
            return next.run(request, extensions).await;
        };
        let began = Instant::now();
        let admitted = self.limiters.admit(merchant).await;
        // Before it is sent: a process that dies cannot report that it was the last one.
        if let Some(rest) = admitted.grant.and_then(|grant| grant.rest).filter(|rest| *rest >= SHORTEST_REST) {
            keep(&*self.pauses, merchant, rest).await;
        }
        // The merchant's leave first: it may take a minute, in which others can use the process's.
        self.process.wait().await;
        self.metrics.throttled(began.elapsed());
        let response = next.run(request, extensions).await?;
        admitted.answered(announced(&response));
        Ok(response)
    }
}

/// Keeps a pause on record; false: only this process knows of it.
pub async fn keep(pauses: &impl BackoffStore, merchant: MerchantId, pause: Duration) -> bool {
    let kept = pauses.pause(merchant, pause).await;
    if let Err(error) = &kept {
        tracing::warn!(merchant.id = merchant.0, error = %error, "a rate-limit backoff is kept in this process only");
    }
    kept.is_ok()
}

/// The values that the headers announce. A header that makes no sense counts as missing.
fn announced(response: &Response) -> Announced {
    let headers = response.headers();
    let limit = number(headers, "x-ratelimit-limit").and_then(|limit| u32::try_from(limit).ok());
    let limit = limit.filter(|&limit| limit > 0);
    let remaining = number(headers, "x-ratelimit-remaining").and_then(|count| u32::try_from(count).ok());
    let rate_limited = response.status() == StatusCode::TOO_MANY_REQUESTS;
    Announced {
        limit,
        remaining,
        reset: number(headers, "x-ratelimit-reset").map(|at| Reset { at, wait: until(headers, at) }),
        // Where nothing is announced, it says no more than its Retry-After, which others obey.
        refused: rate_limited && (limit.is_some() || remaining.is_some()),
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<i64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// The time until an instant of the server's clock; where that is not shown, or not so, it is not known to be short.
fn until(headers: &HeaderMap, at: i64) -> Duration {
    let seconds = served_at(headers).map(|now| at.saturating_sub(now.timestamp()));
    seconds.map_or(Duration::MAX, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_merchants_are_forgotten() {
        let limiters = Limiters::new(120, 1.0, Waits::default());
        let remembered = || limiters.merchants.lock().asked.len();
        let ask =
            |ids: std::ops::Range<i64>| ids.for_each(|id| assert_eq!(limiters.recent_requests(MerchantId(id)), 0));
        let many = i64::try_from(2 * REMEMBERED).unwrap();
        let under_way = limiters.admit(MerchantId(-1)).await;
        ask(0..many);
        assert_eq!(remembered(), 2 * REMEMBERED + 1, "not removed yet");
        advance(FORGET_EVERY).await;
        ask(many..many + 1);
        assert_eq!(remembered(), 2, "one that is under way, and one that was just asked for");
        ask(0..many);
        assert_eq!(remembered(), 2 * REMEMBERED + 2, "they were looked for a moment ago");
        under_way.answered(Announced::default());
        advance(FORGET_EVERY).await;
        ask(many..many + 1);
        assert_eq!(remembered(), 2, "one whose request still counts, and one that was just asked for");
    }
}
