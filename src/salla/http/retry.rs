//! Decides which requests are sent again, and how often. The middleware [`CountAttempts`] stands between these retries
//! and the retries after a 429. So both together make no more attempts than `salla.max_attempts`.

use std::time::Duration;

use http::{Extensions, StatusCode};
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};
use reqwest_retry::{Jitter, RetryTransientMiddleware, Retryable, RetryableStrategy, policies::ExponentialBackoff};

use super::{circuit_breaker::may_be_of_a_row, request::Divisible, response::Call};
use crate::salla::wire::error::{Broken, LastAttempt};

/// The first pause after a failure; each further one is twice as long, with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

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

/// Marks an answer that must not be requested again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopRetrying {
    /// It was the last attempt.
    Attempts,
    /// Salla asks for a longer pause than is waited for.
    Pause,
}

/// How often a page is requested before it is divided. Single rows are requested next, with the attempts that are left. 503
/// and a broken connection often pass: one row is enough then.
fn attempts_before_division(max_attempts: u32, result: &Result<Response>) -> u32 {
    let often_passes = match result {
        Ok(response) => response.status() == StatusCode::SERVICE_UNAVAILABLE,
        Err(error) => matches!(error, Error::Reqwest(_)),
    };
    max_attempts.saturating_sub(if often_passes { 1 } else { 2 }).max(1)
}

/// Counts the attempts at a request, and marks the last one.
#[derive(Debug)]
pub struct CountAttempts {
    pub max_attempts: u32,
}

#[async_trait::async_trait]
impl Middleware for CountAttempts {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let result = next.run(request, extensions).await;
        let attempts = |call: &Call| match call.divisible {
            Divisible::Page if may_be_of_a_row(&result) => attempts_before_division(self.max_attempts, &result),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_often_passes_is_retried_once_more_before_a_page_is_divided() {
        let answer = |status: u16| {
            let mut response = http::Response::new("");
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok(Response::from(response))
        };
        let attempts = |status| (1..=5).map(|most| attempts_before_division(most, &answer(status))).collect::<Vec<_>>();
        assert_eq!(attempts(500), [1, 1, 1, 2, 3]);
        assert_eq!(attempts(503), [1, 1, 2, 3, 4]);
    }
}
