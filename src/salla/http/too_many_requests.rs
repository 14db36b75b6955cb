//! Handles a 429, and a 503 with `Retry-After`. The crate reqwest-retry knows neither, so this middleware stands inside
//! it. The limiter of the merchant pauses, and the next attempt waits there like any other request.

use std::{sync::Arc, time::Duration};

use http::{Extensions, StatusCode};
use rand::RngExt;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};

use super::{
    rate_limit::{Limiters, keep},
    response::Call,
    retry::StopRetrying,
};
use crate::{reconcile::ports::BackoffStore, response_headers::retry_after};

/// The shortest pause, also after `Retry-After: 0`.
const SHORTEST_ASKED: Duration = Duration::from_secs(1);

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
impl<P: BackoffStore> Middleware for ObeyRetryAfter<P> {
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
                "Salla asks to wait for {}",
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
