//! What is tried again, and how long Salla is left alone first.
//!
//! reqwest-retry knows neither `Retry-After` nor 429, so [`ObeyRetryAfter`] stands inside it and takes
//! both: it tells the store's limiter to pause, and the next attempt waits there like any other request.
//! Between the two, [`CountAttempts`] sees to it that both together make no more than may be.

use std::{sync::Arc, time::Duration};

use http::{Extensions, StatusCode};
use rand::RngExt;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};
use reqwest_retry::{Jitter, RetryTransientMiddleware, Retryable, RetryableStrategy, policies::ExponentialBackoff};

use super::{
    answer::Call,
    circuit::may_be_of_a_row,
    error::Broken,
    request::Divisible,
    throttle::{Limiters, keep},
};
use crate::{foreign::retry_after, reconcile::ports::PauseStore};

/// The first pause after a failure; each further one is twice as long, with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A `Retry-After` of nothing at all is no leave to hurry.
const SHORTEST_ASKED: Duration = Duration::from_secs(1);

/// Tries again after connection failures, timeouts, 5xx and broken answers.
pub fn transient(max_attempts: u32) -> RetryTransientMiddleware<ExponentialBackoff, TransientFailures> {
    let policy = ExponentialBackoff::builder()
        .retry_bounds(FIRST_PAUSE, LONGEST_PAUSE)
        .jitter(Jitter::Bounded)
        .build_with_max_retries(max_attempts - 1);
    RetryTransientMiddleware::new_with_policy_and_strategy(policy, TransientFailures)
}

/// The one place that says what is worth another attempt.
pub struct TransientFailures;

impl RetryableStrategy for TransientFailures {
    fn handle(&self, result: &Result<Response>) -> Option<Retryable> {
        match result {
            Ok(response) if response.extensions().get::<StopRetrying>().is_some() => None,
            Ok(response) => (response.status().is_server_error() || response.status() == StatusCode::REQUEST_TIMEOUT)
                .then_some(Retryable::Transient),
            Err(Error::Reqwest(error)) if error.is_builder() || error.is_redirect() => Some(Retryable::Fatal),
            Err(Error::Reqwest(_)) => Some(Retryable::Transient),
            Err(Error::Middleware(error)) => match error.downcast_ref() {
                Some(Broken::ContentType(_) | Broken::Syntax(_) | Broken::FailedStatus(_)) => {
                    Some(Retryable::Transient)
                }
                Some(Broken::TooLarge(_)) | None => Some(Retryable::Fatal),
            },
        }
    }
}

/// On an answer that is not to be asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopRetrying {
    /// It was the last attempt.
    Attempts,
    /// Salla asks for a longer pause than is waited for.
    Pause,
}

/// The last attempt failed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the last attempt failed")]
pub struct LastAttempt(#[source] pub Error);

/// Counts the attempts at a request, and marks the last one.
#[derive(Debug)]
pub struct CountAttempts {
    pub max_attempts: u32,
}

#[async_trait::async_trait]
impl Middleware for CountAttempts {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let result = next.run(request, extensions).await;
        if let Some(call) = extensions.get::<Call>().filter(|_| may_be_of_a_row(&result)) {
            call.broken.add_one();
        }
        let attempts = |call: &Call| match call.divisible {
            // Two rows of it are asked for next.
            Divisible::Page if may_be_of_a_row(&result) => self.max_attempts.saturating_sub(2),
            Divisible::Control => 1,
            // It is divided further, instead of being tried again.
            Divisible::PagePart if may_be_of_a_row(&result) => 1,
            Divisible::No | Divisible::Page | Divisible::PagePart | Divisible::Row => self.max_attempts,
        };
        let is_last = |call: &Call| call.attempts.get() >= u64::from(attempts(call));
        if !extensions.get::<Call>().is_some_and(is_last) {
            return result;
        }
        match result {
            Ok(mut response) => {
                response.extensions_mut().get_or_insert(StopRetrying::Attempts);
                Ok(response)
            }
            Err(error) => Err(Error::middleware(LastAttempt(error))),
        }
    }
}

/// Waits out a 429, and a 503 that says for how long.
#[derive(Debug)]
pub struct ObeyRetryAfter<P> {
    pub limiters: Arc<Limiters>,
    /// Where the pause is kept for the next process that has the merchant.
    pub pauses: Arc<P>,
    pub max_attempts: u32,
    /// A longer pause is not waited for.
    pub longest: Duration,
}

#[async_trait::async_trait]
impl<P: PauseStore> Middleware for ObeyRetryAfter<P> {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        loop {
            let attempt = request
                .try_clone()
                .ok_or_else(|| Error::Middleware(anyhow::anyhow!("the request cannot be repeated")))?;
            let mut response = next.clone().run(attempt, extensions).await?;
            let asked = retry_after(response.headers());
            let told_to_wait = response.status() == StatusCode::TOO_MANY_REQUESTS
                || response.status() == StatusCode::SERVICE_UNAVAILABLE && asked.is_some();
            let Some(call) = extensions.get::<Call>().filter(|_| told_to_wait) else {
                return Ok(response);
            };
            let attempts = u32::try_from(call.attempts.get()).unwrap_or(u32::MAX);
            let pause = asked.map_or_else(|| unannounced(attempts), |asked| asked.max(SHORTEST_ASKED));
            // One that is not waited for here is kept by the database, where a person can lift it.
            let is_kept = keep(&*self.pauses, call.merchant, pause).await;
            if pause <= self.longest || !is_kept {
                self.limiters.pause(call.merchant, pause.min(self.longest));
            }
            if pause > self.longest {
                response.extensions_mut().insert(StopRetrying::Pause);
            }
            if attempts >= self.max_attempts || pause > self.longest {
                return Ok(response);
            }
            tracing::warn!(
                merchant.id = call.merchant.0,
                status = response.status().as_u16(),
                "Salla asks for a pause of {}",
                humantime::format_duration(Duration::from_secs(pause.as_secs()))
            );
        }
    }
}

/// The pause after a 429 that does not say for how long.
fn unannounced(attempts: u32) -> Duration {
    let base = Duration::from_secs(1) * 2u32.saturating_pow(attempts.min(6));
    base.mul_f64(rand::rng().random_range(0.5..1.0))
}
