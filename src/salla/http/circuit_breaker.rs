//! The middleware around the circuit breakers. It stands inside the retries and the limits, so that it sees every
//! attempt, and every request that it lets through is sent.

use std::{sync::Arc, time::Duration};

use http::{Extensions, StatusCode};
use parking_lot::Mutex;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};
use tokio::time::{Instant, sleep};

use super::{
    breakers::{Breakers, FailureCause, Rejection, State},
    request::Divisible,
    response::Call,
    waits::Waits,
};
use crate::{
    domain::{MerchantId, WaitReason},
    reconcile::{Metrics, ports::SourceError},
    response_headers::retry_after,
    salla::wire::error::{Broken, CircuitOpen, into_source_error, is_sent},
};

/// How long a request sleeps before it looks at the circuit again.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A merchant that has not answered for this long, while others were answered, fails its run.
const PATIENCE: Duration = Duration::from_secs(3600);

/// The next step after a failed request.
#[derive(Debug)]
pub enum AfterFailure {
    /// It is sent again; it waits for Salla, or for another request's probe.
    SendAgain,
    /// This is its end.
    GiveUp(SourceError),
}

/// The behaviour of a request while the circuit is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOpenCircuit {
    /// Wait until Salla is back: for the daemon, whose runs have the night.
    Wait,
    /// Fail at once: for the foreground, where somebody waits.
    Fail,
}

/// The circuits to Salla's host and to its merchants.
#[derive(Debug)]
pub struct Circuit {
    breakers: Mutex<Breakers>,
    when_open: OnOpenCircuit,
    waits: Waits,
    metrics: Arc<Metrics>,
}

impl Circuit {
    /// `attempts` at one request are enough to know that a merchant does not answer.
    pub fn new(when_open: OnOpenCircuit, attempts: u32, waits: Waits, metrics: Arc<Metrics>) -> Self {
        metrics.circuit(&State::WORDS, State::Closed.as_str());
        Self { breakers: Mutex::new(Breakers::new(attempts)), when_open, waits, metrics }
    }

    /// What follows from a request's failure. A run waits for Salla as a whole. It does not wait for one merchant, because its run makes
    /// room for others.
    pub fn after(&self, merchant: MerchantId, error: SourceError) -> AfterFailure {
        if self.when_open == OnOpenCircuit::Fail {
            return AfterFailure::GiveUp(match error {
                SourceError::OpenCircuit { reason, .. } => SourceError::Unavailable { reason, per_row: false },
                error => error,
            });
        }
        if !matches!(error, SourceError::Unavailable { .. } | SourceError::Malformed { .. } | SourceError::NotAsked) {
            return AfterFailure::GiveUp(error);
        }
        self.with(merchant, |breakers, now| {
            if breakers.state() != State::Closed {
                return AfterFailure::SendAgain;
            }
            match breakers.open_circuit(merchant, now) {
                Some(open_circuit) if open_circuit.since > PATIENCE && open_circuit.concerns_merchant_only() => {
                    breakers.forget(merchant);
                    AfterFailure::GiveUp(match open_circuit.last {
                        FailureCause::Unavailable(reason) => SourceError::Unavailable { reason, per_row: false },
                        FailureCause::Malformed(reason) => SourceError::Malformed { reason },
                    })
                }
                Some(open_circuit) => {
                    let (FailureCause::Unavailable(reason) | FailureCause::Malformed(reason)) = open_circuit.last;
                    AfterFailure::GiveUp(SourceError::OpenCircuit { pause: open_circuit.pause, reason })
                }
                // Another request's probe has closed it.
                None if matches!(error, SourceError::NotAsked) => AfterFailure::SendAgain,
                None => AfterFailure::GiveUp(error),
            }
        })
    }

    /// The consequence of a page that failed in all attempts without a single broken row.
    pub fn blame(&self, merchant: MerchantId, error: SourceError, attempts: u32) -> AfterFailure {
        let cause = match &error {
            SourceError::Unavailable { reason, .. } => FailureCause::Unavailable(reason.clone()),
            other => FailureCause::Malformed(other.to_string()),
        };
        self.with(merchant, |breakers, now| {
            (0..attempts).for_each(|_| breakers.merchant_failed(merchant, false, &cause, now));
        });
        self.after(merchant, error)
    }

    /// Acts on the breakers, and logs a change.
    fn with<T>(&self, merchant: MerchantId, act: impl FnOnce(&mut Breakers, Instant) -> T) -> T {
        let mut breakers = self.breakers.lock();
        let (before, open_before) = (breakers.state().as_str(), breakers.open_merchants());
        let done = act(&mut breakers, Instant::now());
        let (after, open_after) = (breakers.state().as_str(), breakers.open_merchants());
        drop(breakers);
        if before != after {
            self.metrics.circuit(&State::WORDS, after);
            match after {
                "open" => tracing::error!(circuit.state = after, "Salla does not answer; circuit open, runs wait"),
                "closed" => tracing::info!(circuit.state = after, "Salla answers again"),
                _ => tracing::info!(circuit.state = after, "testing whether Salla answers again"),
            }
        }
        if open_before != open_after {
            self.metrics.store_circuits_open(open_after);
            if open_after > open_before {
                tracing::warn!(merchant.id = merchant.0, "Salla does not answer for the merchant; circuit open");
            } else {
                tracing::info!(merchant.id = merchant.0, "Salla answers for the merchant again");
            }
        }
        done
    }
}

/// The circuits as a middleware.
#[derive(Debug, Clone)]
pub struct CircuitBreakerLayer(pub Arc<Circuit>);

#[async_trait::async_trait]
impl Middleware for CircuitBreakerLayer {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let call = extensions.get::<Call>().map(|call| (call.merchant, call.single, call.suspect, call.divisible));
        let Some((merchant, single, suspect, divisible)) = call else {
            return next.run(request, extensions).await;
        };
        let mut shown = None;
        while let Err(refused) = self.0.with(merchant, |breakers, now| breakers.admit(merchant, now)) {
            if refused == Rejection::Merchant || self.0.when_open == OnOpenCircuit::Fail {
                return Err(Error::middleware(CircuitOpen));
            }
            // Another request's probe may close the circuit at any moment.
            let wait = if let Rejection::Host(wait) = refused { wait } else { LOOK_AGAIN };
            let message = "Salla does not answer; the circuit is open";
            let begin = || self.0.waits.begin(merchant, WaitReason::SallaUnavailable, message, wait);
            shown = shown.or_else(begin);
            sleep(wait.min(LOOK_AGAIN)).await;
        }
        drop(shown);
        let result = next.run(request, extensions).await;
        match failure_cause(&result) {
            // The record breaks Salla, and did so before.
            Some(_) if suspect && is_answered(&result) => {}
            // A row of the page may break it: the merchant is blamed later, if it breaks no page.
            Some(_) if divisible.is_divided() && may_be_of_a_row(&result) => {
                self.0
                    .with(merchant, |breakers, now| breakers.page_failed(merchant, divisible == Divisible::Page, now));
            }
            Some(cause) => self.0.with(merchant, |breakers, now| breakers.failed(merchant, single, &cause, now)),
            None => self.0.with(merchant, |breakers, now| breakers.succeeded(merchant, now)),
        }
        result
    }
}

/// Whether anything came, be it nothing that can be used.
fn is_answered(result: &Result<Response>) -> bool {
    match result {
        Ok(_) => true,
        Err(Error::Middleware(error)) => error.is::<Broken>(),
        Err(Error::Reqwest(_)) => false,
    }
}

/// Whether a row of the answer may have caused the failure: Salla had the request, and announces no pause for all.
pub fn may_be_of_a_row(result: &Result<Response>) -> bool {
    match result {
        Ok(response) => response.status().is_server_error() && retry_after(response.headers()).is_none(),
        Err(Error::Reqwest(error)) => is_sent(error),
        Err(Error::Middleware(_)) => is_answered(result),
    }
}

/// The problem on Salla's side. A refusal, or a limit, is an answer.
fn failure_cause(result: &Result<Response>) -> Option<FailureCause> {
    let error = match result {
        Ok(response) => {
            let status = response.status();
            let failed = status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT;
            return failed.then(|| FailureCause::Unavailable(status.to_string()));
        }
        // An answer that is too large is an answer.
        Err(Error::Middleware(error)) if matches!(error.downcast_ref(), None | Some(Broken::TooLarge(_))) => {
            return None;
        }
        Err(error) => error,
    };
    Some(match into_source_error(error) {
        SourceError::Unavailable { reason, .. } => FailureCause::Unavailable(reason),
        other => FailureCause::Malformed(other.to_string()),
    })
}
