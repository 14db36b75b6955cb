//! The middleware that keeps each store's requests within its limit. It stands inside the retries, so
//! that every attempt pays.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{Extensions, HeaderMap};
use parking_lot::Mutex;
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next, Result};
use tokio::time::{Instant, sleep};

use super::{
    answer::{Call, served_at},
    limiter::{Announced, Limiter},
};
use crate::{domain::MerchantId, reconcile::Metrics};

/// Above this many stores, those at rest are forgotten.
const REMEMBERED: usize = 1024;

/// The limiters of the stores that were asked lately.
#[derive(Debug)]
pub struct Limiters {
    per_minute: u32,
    share: f64,
    stores: Mutex<HashMap<MerchantId, Limiter>>,
}

impl Limiters {
    /// `share` of `per_minute` requests for each store, until its answers say otherwise.
    pub fn new(per_minute: u32, share: f64) -> Self {
        Self { per_minute, share, stores: Mutex::default() }
    }

    /// Sends nothing to a store for `pause`.
    pub fn pause(&self, merchant: MerchantId, pause: Duration) {
        self.with(merchant, |limiter, now| limiter.pause(pause, now));
    }

    fn with<T>(&self, merchant: MerchantId, act: impl FnOnce(&mut Limiter, Instant) -> T) -> T {
        let now = Instant::now();
        let mut stores = self.stores.lock();
        if stores.len() > REMEMBERED {
            stores.retain(|_, limiter| !limiter.idle(now));
        }
        let limiter = stores.entry(merchant).or_insert_with(|| Limiter::new(self.per_minute, self.share));
        act(limiter, now)
    }
}

/// Waits for the limit, and learns it.
#[derive(Debug)]
pub struct Throttle {
    pub limiters: Arc<Limiters>,
    pub metrics: Arc<Metrics>,
}

#[async_trait::async_trait]
impl Middleware for Throttle {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let Some(merchant) = extensions.get::<Call>().map(|call| call.merchant) else {
            return next.run(request, extensions).await;
        };
        let began = Instant::now();
        while let Err(wait) = self.limiters.with(merchant, Limiter::take) {
            sleep(wait).await;
        }
        self.metrics.throttled(began.elapsed());
        let response = next.run(request, extensions).await?;
        if let Some(announced) = announced(response.headers()) {
            self.limiters.with(merchant, |limiter, now| limiter.observe(announced, now));
        }
        Ok(response)
    }
}

/// What the headers announce; the reset is an instant of the server's clock.
fn announced(headers: &HeaderMap) -> Option<Announced> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    let reset_in = number("x-ratelimit-reset")
        .zip(served_at(headers))
        .map_or(60, |(reset, now)| reset.saturating_sub(now.timestamp()));
    Some(Announced {
        limit: u32::try_from(number("x-ratelimit-limit")?).ok().filter(|&limit| limit > 0)?,
        remaining: u32::try_from(number("x-ratelimit-remaining")?).ok()?,
        reset_in: Duration::from_secs(u64::try_from(reset_in).unwrap_or(0)),
    })
}
