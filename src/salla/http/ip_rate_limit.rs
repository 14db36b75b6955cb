//! The middleware that keeps all merchants' requests within what Salla counts by the address they come from. It stands
//! inside the retries, so that every attempt pays; and no request is sent while the limit cannot be read.

use std::{sync::Arc, time::Duration};

use http::{Extensions, StatusCode};
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};
use tokio::time::{Instant, sleep};

use super::{circuit_breaker::OnOpenCircuit, response::Call, waits::Waits};
use crate::{
    domain::{MerchantId, WaitReason},
    reconcile::{Metrics, ports::IpRateLimitStore},
    response_headers::retry_after,
    salla::wire::error::IpLimitExceeded,
};

/// A shorter wait is sat out; in a longer one the daemon has other work.
const PATIENCE: Duration = Duration::from_secs(5);

/// The wait when the database does not report the remaining budget.
const UNKNOWN: Duration = Duration::from_secs(30);

/// After a 429 that does not say for how long.
const REFUSED: Duration = Duration::from_secs(120);

/// Waits for a turn, or gives up.
#[derive(Debug)]
pub struct IpRateLimit<B> {
    pub budget: Arc<B>,
    /// Requests in ten minutes.
    pub allowance: u32,
    /// The foreground waits for as long as it takes.
    pub when_open: OnOpenCircuit,
    pub waits: Waits,
    pub metrics: Arc<Metrics>,
}

#[async_trait::async_trait]
impl<B: IpRateLimitStore> Middleware for IpRateLimit<B> {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let Some(call) = extensions.get::<Call>().filter(|call| call.counted_by_address) else {
            return next.run(request, extensions).await;
        };
        self.wait(call.merchant).await?;
        let response = next.run(request, extensions).await?;
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            // The limit of the merchant may be used up instead; the answer does not say which.
            let pause = retry_after(response.headers()).unwrap_or(REFUSED);
            if let Err(error) = self.budget.close(pause).await {
                tracing::warn!(error = %error, "failed to persist Retry-After");
            }
        }
        Ok(response)
    }
}

impl<B: IpRateLimitStore> IpRateLimit<B> {
    async fn wait(&self, merchant: MerchantId) -> Result<()> {
        let (began, mut shown) = (Instant::now(), None);
        loop {
            let wait = match self.budget.take(self.allowance).await {
                Ok(Ok(())) => {
                    self.metrics.throttled(began.elapsed());
                    return Ok(());
                }
                Ok(Err(wait)) => wait,
                Err(error) => {
                    tracing::warn!(error = %error, "shared rate limit unavailable; request delayed");
                    UNKNOWN
                }
            };
            if wait > PATIENCE && self.when_open == OnOpenCircuit::Wait {
                return Err(Error::middleware(IpLimitExceeded(wait)));
            }
            if wait > PATIENCE && shown.is_none() {
                let message = "the request limit of this IP address is used up";
                shown = self.waits.begin(merchant, WaitReason::AddressLimit, message, wait);
                tracing::info!(merchant.id = merchant.0, "{message}; waiting for up to {} s", wait.as_secs());
            }
            sleep(wait.min(PATIENCE)).await;
        }
    }
}
