//! The middleware around the circuit breaker. It stands inside the retries, so that it hears of every
//! attempt.

use std::{sync::Arc, time::Duration};

use http::{Extensions, StatusCode};
use parking_lot::Mutex;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};
use tokio::time::{Instant, sleep};

use super::{
    answer::Call,
    breaker::{Breaker, State},
    error::{Broken, CircuitOpen},
};
use crate::reconcile::Metrics;

/// How long a request sleeps before it looks at the circuit again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a request does that finds the circuit open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenOpen {
    /// Wait until Salla is back: for the daemon, whose runs have the night.
    Wait,
    /// Fail at once: for the foreground, where somebody waits.
    Fail,
}

/// The circuit to Salla, shared by all stores.
#[derive(Debug)]
pub struct Circuit {
    breaker: Mutex<Breaker>,
    pub when_open: WhenOpen,
    metrics: Arc<Metrics>,
}

impl Circuit {
    pub fn new(when_open: WhenOpen, metrics: Arc<Metrics>) -> Self {
        metrics.circuit(&State::WORDS, State::Closed.as_str());
        Self { breaker: Mutex::default(), when_open, metrics }
    }

    pub fn is_closed(&self) -> bool {
        self.breaker.lock().state() == State::Closed
    }

    /// Acts on the breaker, and tells of a change.
    fn with<T>(&self, act: impl FnOnce(&mut Breaker, Instant) -> T) -> T {
        let mut breaker = self.breaker.lock();
        let before = breaker.state().as_str();
        let done = act(&mut breaker, Instant::now());
        let after = breaker.state().as_str();
        drop(breaker);
        if before != after {
            self.metrics.circuit(&State::WORDS, after);
            match after {
                "open" => tracing::error!(circuit.state = after, "Salla does not answer; its stores wait"),
                "closed" => tracing::info!(circuit.state = after, "Salla answers again"),
                _ => tracing::info!(circuit.state = after, "looking whether Salla is back"),
            }
        }
        done
    }
}

/// The circuit as a middleware.
#[derive(Debug, Clone)]
pub struct Guard(pub Arc<Circuit>);

#[async_trait::async_trait]
impl Middleware for Guard {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let Some(merchant) = extensions.get::<Call>().map(|call| call.merchant) else {
            return next.run(request, extensions).await;
        };
        while let Err(wait) = self.0.with(Breaker::admit) {
            if self.0.when_open == WhenOpen::Fail {
                return Err(Error::middleware(CircuitOpen));
            }
            // Another store's probe may close the circuit at any moment.
            sleep(wait.min(LOOK_AGAIN)).await;
        }
        let result = next.run(request, extensions).await;
        if is_failure(&result) {
            self.0.with(|breaker, now| breaker.failed(merchant, now));
        } else {
            self.0.with(|breaker, _| breaker.succeeded());
        }
        result
    }
}

/// Salla's host is in trouble. A refusal, or a limit, is an answer.
fn is_failure(result: &Result<Response>) -> bool {
    match result {
        Ok(response) => response.status().is_server_error() || response.status() == StatusCode::REQUEST_TIMEOUT,
        Err(Error::Reqwest(_)) => true,
        Err(Error::Middleware(error)) => error.is::<Broken>(),
    }
}
