//! How much one address may ask, and how often it may be wrong about its token.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Api, problem::Problem};
use crate::reconcile::ports::RunStore;

/// The number of requests after which idle addresses are forgotten.
const SWEEP_EVERY: u64 = 4096;

/// A wrong token is forgiven after this long.
const FORGIVEN_AFTER: Duration = Duration::from_millis(200);

/// So many wrong tokens at once are looked at.
const TRIES: u32 = 5;

/// Requests by address: a number per second, with a burst of twice as many.
#[derive(Debug)]
pub struct RequestRate {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    asked: AtomicU64,
}

impl RequestRate {
    /// `per_second` of one address; 0 counts as 1.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let per_second = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        let burst = per_second.saturating_add(per_second.get());
        Self {
            limiter: RateLimiter::dashmap(Quota::per_second(per_second).allow_burst(burst)),
            asked: AtomicU64::new(0),
        }
    }

    /// Counts a request, or says how long to wait.
    fn admit(&self, address: IpAddr) -> Result<(), Duration> {
        if self.asked.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        self.limiter.check_key(&address).map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }
}

/// Wrong tokens by address. governor's buckets cannot be read without being drawn from; this one can.
#[derive(Debug, Default)]
pub struct Failures {
    /// When all of an address's failures will be forgiven.
    clean_at: Mutex<HashMap<IpAddr, Instant>>,
}

impl Failures {
    /// Counts a failure, or says how long the address has to wait. One that is refused does not count.
    pub fn count(&self, address: IpAddr) -> Result<(), Duration> {
        let now = Instant::now();
        let mut clean_at = self.clean_at.lock();
        // Few at a time: each is forgotten within a second.
        clean_at.retain(|_, at| *at > now);
        let at = clean_at.entry(address).or_insert(now);
        let wait = at.saturating_duration_since(now + FORGIVEN_AFTER * (TRIES - 1));
        if !wait.is_zero() {
            return Err(wait);
        }
        *at += FORGIVEN_AFTER;
        Ok(())
    }
}

/// Whom a request counts for: an address, or of IPv6 the network that one customer has.
pub fn caller_address(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<std::net::SocketAddr>>();
    caller_network(peer.map_or(IpAddr::from([0, 0, 0, 0]), |ConnectInfo(peer)| peer.ip()))
}

/// The key of one caller. An IPv6 caller owns a /64 network.
pub fn caller_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

/// The answer to one who asks too much; says when to come again, in whole seconds.
pub fn too_many(what: &str, wait: Duration) -> Problem {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem::too_many(format!("{what}; try again in {seconds} s"), seconds)
}

/// Lets a request pass, or answers it. Those without a right token have a rate of their own, so that they take nothing from
/// others of their address.
pub async fn by_address<L: RunStore>(State(api): State<Arc<Api<L>>>, request: Request, next: Next) -> Response {
    let rate = if api.access.recognizes(request.headers()) { &api.rate } else { &api.anonymous_rate };
    match rate.admit(caller_address(&request)) {
        Ok(()) => next.run(request).await,
        Err(wait) => too_many("this address exceeds http.requests_per_second", wait).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test(start_paused = true)]
    async fn five_wrong_tokens_a_second_are_counted() {
        let (failures, other) = (Failures::default(), IpAddr::from([127, 0, 0, 2]));
        for _ in 0..TRIES {
            assert_eq!(failures.count(ADDRESS), Ok(()));
        }
        assert_eq!(failures.count(ADDRESS), Err(FORGIVEN_AFTER));
        assert_eq!(failures.count(other), Ok(()));
        tokio::time::advance(FORGIVEN_AFTER).await;
        assert_eq!(failures.count(ADDRESS), Ok(()));
        assert_eq!(failures.count(ADDRESS), Err(FORGIVEN_AFTER));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(failures.count(other), Ok(()));
        assert_eq!(failures.clean_at.lock().len(), 1, "an address that is forgiven is forgotten");
    }

    #[test]
    fn two_seconds_worth_at_once_and_the_quiet_are_forgotten() {
        let rate = RequestRate::new(50);
        let admitted = (0..200).filter(|_| rate.admit(ADDRESS).is_ok()).count();
        assert!((100..110).contains(&admitted), "{admitted}");
        assert!(rate.admit(ADDRESS).unwrap_err() <= Duration::from_millis(20));
        let rate = RequestRate::new(1_000_000);
        for number in 0..3 * u32::try_from(SWEEP_EVERY).unwrap() {
            rate.admit(IpAddr::V4(number.into())).unwrap();
        }
        let kept = rate.limiter.len();
        assert!(kept <= 2 * usize::try_from(SWEEP_EVERY).unwrap(), "{kept} addresses are kept");
    }

    #[test]
    fn ipv6_counts_by_network() {
        let address = |text: &str| {
            let mut request = Request::default();
            request.extensions_mut().insert(ConnectInfo(std::net::SocketAddr::new(text.parse().unwrap(), 1)));
            caller_address(&request)
        };
        assert_eq!(address("2001:db8:1:2:3::4"), address("2001:db8:1:2:5::6"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
    }
}
