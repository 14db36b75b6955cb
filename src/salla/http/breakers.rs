//! The circuit breakers for Salla and for each merchant. Pure: the clock is an argument.
//!
//! A circuit opens after several failures in a row. The circuit of the host needs failures of several merchants. An
//! open circuit lets single requests through as probes, and closes when a probe is answered.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::domain::MerchantId;

/// Failures in a row, without an answer in between, until Salla counts as down.
const FAILURES: u32 = 10;
/// The smallest number of merchants with failures.
const STORES: usize = 3;
/// A record that Salla cannot show fails alone. This many in a row open the circuit of the merchant.
const SINGLE_RECORDS: u32 = 10;
/// The pause before the first probe; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// And never longer than this, so that a Salla that is back is noticed within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(40);
/// A merchant without requests for this long after its pause starts again without failures.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);
/// A probe without an answer for this long is replaced by another one.
const PROBE_TAKES_AT_MOST: Duration = Duration::from_secs(50);

/// The state of a circuit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// Requests go through.
    #[default]
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

/// One circuit.
#[derive(Debug, Default)]
struct Breaker {
    state: State,
    failures: u32,
    /// Before the next probe; zero until it opens.
    pause: Duration,
}

impl Breaker {
    /// Lets a request through, or says for how long to wait before asking again.
    fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.state {
            State::Closed => Ok(()),
            State::Open(until) | State::HalfOpen(until) if until > now => Err(until.duration_since(now)),
            State::Open(_) | State::HalfOpen(_) => {
                self.state = State::HalfOpen(now + PROBE_TAKES_AT_MOST);
                Ok(())
            }
        }
    }

    /// A request failed; `enough` of them in a row open the circuit.
    fn failed(&mut self, enough: u32, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        match self.state {
            State::Closed if self.failures >= enough => self.open(FIRST_PAUSE, now),
            State::HalfOpen(_) => self.open((self.pause * 2).min(LONGEST_PAUSE), now),
            // A request that ran when the circuit opened.
            State::Closed | State::Open(_) => {}
        }
    }

    fn is_of_the_past(&self, now: Instant) -> bool {
        matches!(self.state, State::Open(until) | State::HalfOpen(until) if until + REMEMBERED_FOR < now)
    }

    fn open(&mut self, pause: Duration, now: Instant) {
        self.pause = pause;
        self.state = State::Open(now + pause);
    }
}

/// The problem of an answer, or of a missing answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureCause {
    /// None came, or 5xx.
    Unavailable(String),
    /// One came that is not Salla's.
    Malformed(String),
}

/// A merchant's circuit.
#[derive(Debug)]
struct MerchantBreaker {
    breaker: Breaker,
    since: Instant,
    last: FailureCause,
}

/// Why a request may not go out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Salla is down; the time until the next probe.
    Host(Duration),
    /// A probe for the merchant is running.
    Probing,
    /// Salla does not answer for the merchant.
    Merchant,
}

/// A merchant for which Salla does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCircuit {
    /// Until it may be asked again.
    pub pause: Duration,
    /// For how long it has failed.
    pub since: Duration,
    /// Salla answered for other merchants meanwhile.
    pub alone: bool,
    /// The last problem.
    pub last: FailureCause,
}

impl OpenCircuit {
    /// It is not Salla that is away: other merchants are answered, or this one is, by somebody else.
    pub fn concerns_merchant_only(&self) -> bool {
        self.alone || matches!(self.last, FailureCause::Malformed(_))
    }
}

/// The host's circuit, and those of the merchants that fail.
#[derive(Debug)]
pub struct Breakers {
    host: Breaker,
    /// The merchants that failed since Salla last answered; no more are remembered than matter.
    failing: HashSet<MerchantId>,
    merchants: HashMap<MerchantId, MerchantBreaker>,
    last_answer: Option<Instant>,
    attempts: u32,
}

impl Breakers {
    /// `attempts` at one request are enough to open a merchant's circuit.
    pub fn new(attempts: u32) -> Self {
        Self {
            host: Breaker::default(),
            failing: HashSet::new(),
            merchants: HashMap::new(),
            last_answer: None,
            attempts,
        }
    }

    /// The host's.
    pub fn state(&self) -> State {
        self.host.state
    }

    /// The number of merchants with an open circuit.
    pub fn open_merchants(&self) -> usize {
        self.merchants.values().filter(|state| state.breaker.state != State::Closed).count()
    }

    /// Lets a merchant's request through, or says why not. While the host's circuit is open, it alone decides.
    pub fn admit(&mut self, merchant: MerchantId, now: Instant) -> Result<(), Rejection> {
        if self.host.state != State::Closed {
            return self.host.admit(now).map_err(Rejection::Host);
        }
        if self.merchants.get(&merchant).is_some_and(|state| state.breaker.is_of_the_past(now)) {
            self.merchants.remove(&merchant);
        }
        let Some(state) = self.merchants.get_mut(&merchant) else { return Ok(()) };
        let probing = matches!(state.breaker.state, State::HalfOpen(_));
        state.breaker.admit(now).map_err(|_| if probing { Rejection::Probing } else { Rejection::Merchant })
    }

    /// Salla answered.
    pub fn succeeded(&mut self, merchant: MerchantId, now: Instant) {
        self.last_answer = Some(now);
        if self.host.state != State::Closed {
            // The host caused the failures of the merchants.
            self.merchants.clear();
        }
        self.merchants.remove(&merchant);
        self.host = Breaker::default();
        self.failing.clear();
    }

    /// Salla could not be reached, or was broken; `single`: by a request for one record.
    pub fn failed(&mut self, merchant: MerchantId, single: bool, cause: &FailureCause, now: Instant) {
        self.merchant_failed(merchant, single, cause, now);
        self.host_failed(merchant, now);
    }

    /// A page failed that one row may have broken. It counts for the host. A part of such a page counts only while the host
    /// is known to be away.
    pub fn page_failed(&mut self, merchant: MerchantId, is_whole: bool, now: Instant) {
        if let Some(MerchantBreaker { breaker, .. }) = self.merchants.get_mut(&merchant)
            && matches!(breaker.state, State::HalfOpen(_))
        {
            // The next request is the probe: it shows whether Salla answers for the merchant.
            breaker.state = State::HalfOpen(now);
        }
        if is_whole || self.host.state != State::Closed {
            self.host_failed(merchant, now);
        }
    }

    /// Counts a failure for the merchant alone, unless the host is away.
    pub fn merchant_failed(&mut self, merchant: MerchantId, single: bool, cause: &FailureCause, now: Instant) {
        if self.host.state == State::Closed {
            let fresh = || MerchantBreaker { breaker: Breaker::default(), since: now, last: cause.clone() };
            let state = self.merchants.entry(merchant).or_insert_with(fresh);
            let requests = if single { SINGLE_RECORDS } else { 1 };
            state.breaker.failed(self.attempts.saturating_mul(requests), now);
            state.last = cause.clone();
        }
    }

    fn host_failed(&mut self, merchant: MerchantId, now: Instant) {
        if self.failing.len() < STORES {
            self.failing.insert(merchant);
        }
        self.host.failed(if self.failing.len() < STORES { u32::MAX } else { FAILURES }, now);
    }

    /// The error of the merchant, if its circuit is open.
    pub fn open_circuit(&self, merchant: MerchantId, now: Instant) -> Option<OpenCircuit> {
        let state = self.merchants.get(&merchant)?;
        let State::Open(until) = state.breaker.state else { return None };
        let pause = until.saturating_duration_since(now);
        let alone = self.last_answer.is_some_and(|answer| answer > state.since);
        Some(OpenCircuit { pause, since: now.duration_since(state.since), alone, last: state.last.clone() })
    }

    /// Forgets the merchant's failures.
    pub fn forget(&mut self, merchant: MerchantId) {
        self.merchants.remove(&merchant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MERCHANT: MerchantId = MerchantId(0);
    const OTHER: MerchantId = MerchantId(7);

    fn cause() -> FailureCause {
        FailureCause::Unavailable("503".to_owned())
    }

    fn fail(breakers: &mut Breakers, merchants: i64, times: i64, now: Instant) {
        for time in 0..times {
            breakers.failed(MerchantId(time % merchants), false, &cause(), now);
        }
    }

    #[test]
    fn the_circuit_opens_and_closes() {
        let (mut breakers, now) = (Breakers::new(100), Instant::now());
        fail(&mut breakers, 3, 9, now);
        assert_eq!(breakers.admit(OTHER, now), Ok(()));
        fail(&mut breakers, 3, 1, now);
        assert_eq!(breakers.admit(OTHER, now), Err(Rejection::Host(FIRST_PAUSE)));
        let later = now + FIRST_PAUSE;
        assert_eq!(breakers.admit(OTHER, later), Ok(()));
        assert!(breakers.admit(MERCHANT, later).is_err(), "one probe at a time");
        breakers.failed(OTHER, false, &cause(), later);
        assert_eq!(breakers.admit(OTHER, later), Err(Rejection::Host(FIRST_PAUSE * 2)));
        assert_eq!(breakers.admit(OTHER, later + FIRST_PAUSE * 2), Ok(()));
        breakers.succeeded(OTHER, now);
        assert_eq!(breakers.admit(OTHER, later), Ok(()));
    }

    #[test]
    fn one_merchant_opens_only_its_circuit() {
        let (mut breakers, now) = (Breakers::new(3), Instant::now());
        fail(&mut breakers, 1, 2, now);
        assert_eq!((breakers.open_circuit(MERCHANT, now), breakers.open_merchants()), (None, 0));
        fail(&mut breakers, 1, 1000, now);
        assert_eq!(breakers.state(), State::Closed);
        assert_eq!(breakers.admit(OTHER, now), Ok(()));
        assert_eq!(breakers.admit(MERCHANT, now), Err(Rejection::Merchant));
        assert_eq!(breakers.open_merchants(), 1);
        let later = now + FIRST_PAUSE;
        let expected = OpenCircuit { pause: Duration::ZERO, since: FIRST_PAUSE, alone: false, last: cause() };
        assert_eq!(breakers.open_circuit(MERCHANT, later), Some(expected));
        assert_eq!(breakers.admit(MERCHANT, later), Ok(()));
        assert_eq!(breakers.admit(MERCHANT, later), Err(Rejection::Probing));
        breakers.failed(MERCHANT, false, &cause(), later);
        assert_eq!(breakers.open_circuit(MERCHANT, later).unwrap().pause, FIRST_PAUSE * 2);
        assert_eq!(breakers.admit(MERCHANT, later + FIRST_PAUSE * 2), Ok(()));
        breakers.succeeded(MERCHANT, now);
        assert_eq!((breakers.admit(MERCHANT, later), breakers.open_merchants()), (Ok(()), 0));
    }

    #[test]
    fn old_failures_of_a_merchant_are_forgotten() {
        let (mut breakers, now) = (Breakers::new(3), Instant::now());
        fail(&mut breakers, 1, 3, now);
        assert!(!breakers.open_circuit(MERCHANT, now).unwrap().alone);
        breakers.succeeded(OTHER, now + FIRST_PAUSE);
        assert!(breakers.open_circuit(MERCHANT, now).unwrap().alone);
        let tomorrow = now + Duration::from_secs(86_400);
        assert_eq!(breakers.admit(MERCHANT, tomorrow), Ok(()));
        breakers.failed(MERCHANT, false, &cause(), tomorrow);
        assert_eq!(breakers.admit(MERCHANT, tomorrow), Ok(()), "it has three attempts again");
    }

    #[test]
    fn an_unreadable_record_does_not_open_the_circuit() {
        let (mut breakers, now) = (Breakers::new(3), Instant::now());
        for _ in 1..3 * SINGLE_RECORDS {
            breakers.failed(MERCHANT, true, &cause(), now);
            assert_eq!(breakers.admit(MERCHANT, now), Ok(()));
        }
        breakers.failed(MERCHANT, true, &cause(), now);
        assert_eq!(breakers.admit(MERCHANT, now), Err(Rejection::Merchant));
    }

    #[test]
    fn a_host_that_answers_again_closes_every_circuit() {
        let (mut breakers, now) = (Breakers::new(3), Instant::now());
        fail(&mut breakers, 3, 10, now);
        assert_eq!(breakers.open_merchants(), 3);
        let later = now + FIRST_PAUSE;
        assert_eq!(breakers.admit(OTHER, later), Ok(()));
        breakers.succeeded(OTHER, now);
        assert_eq!((breakers.admit(MERCHANT, later), breakers.open_merchants()), (Ok(()), 0));
    }

    #[test]
    fn an_answer_resets_the_count_of_failures() {
        let (mut breakers, now) = (Breakers::new(100), Instant::now());
        fail(&mut breakers, 3, 9, now);
        breakers.succeeded(OTHER, now);
        fail(&mut breakers, 3, 9, now);
        assert_eq!(breakers.state(), State::Closed);
    }

    #[test]
    fn a_recovery_is_noticed_within_a_minute() {
        let (mut breakers, mut now) = (Breakers::new(100), Instant::now());
        fail(&mut breakers, 3, 10, now);
        for _ in 0..20 {
            let Err(Rejection::Host(wait)) = breakers.admit(MERCHANT, now) else { panic!("it is closed") };
            assert!(wait <= LONGEST_PAUSE);
            now += wait;
            assert_eq!(breakers.admit(MERCHANT, now), Ok(()));
            breakers.failed(MERCHANT, false, &cause(), now);
        }
        now += LONGEST_PAUSE;
        assert_eq!(breakers.admit(MERCHANT, now), Ok(()));
        assert_eq!(breakers.admit(MERCHANT, now + PROBE_TAKES_AT_MOST), Ok(()));
    }

    #[test]
    fn a_page_that_fails_as_the_probe_of_its_store_lets_the_next_request_probe() {
        let (mut breakers, now) = (Breakers::new(1), Instant::now());
        breakers.failed(MERCHANT, false, &cause(), now);
        assert_eq!(breakers.admit(MERCHANT, now), Err(Rejection::Merchant));
        let later = now + FIRST_PAUSE;
        assert_eq!(breakers.admit(MERCHANT, later), Ok(()));
        assert_eq!(breakers.admit(MERCHANT, later), Err(Rejection::Probing));
        breakers.page_failed(MERCHANT, true, later);
        assert_eq!(breakers.admit(MERCHANT, later), Ok(()), "a single row is requested next");
        breakers.failed(MERCHANT, false, &cause(), later);
        assert_eq!(breakers.admit(MERCHANT, later), Err(Rejection::Merchant));
    }
}
