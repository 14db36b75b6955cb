//! `POST /webhooks/salla`: a merchant installs the app, uninstalls it, or its subscription ends.
//!
//! Salla counts 200 and 201 as delivered. After any other answer it tries again, three times in
//! all. So an event that is not for this program is answered 200. An event that the database cannot
//! take now is answered 503, before Salla stops waiting. A signed body that cannot be read is
//! answered 400. Salla then sends it twice more, and shows it as failed in its log of deliveries.
//! People look there.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Bytes, HttpBody},
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use chrono::Utc;
use serde::Serialize;
use tokio::{sync::Semaphore, time::timeout};
use utoipa::ToSchema;

use super::{LogLimit, Onboarding, problem::Problem, runs::Answer, signature::Proof};
use crate::reconcile::{
    Metrics,
    ports::{AppEvent, Applied, MerchantRegistry, ParsedWebhook, UnreadableEvent},
};

/// Salla's patience was seen to be ten seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// Orders come here too where the portal sends every event to one address, and are larger than anything else.
pub const BODY_LIMIT: usize = 1 << 20;

/// From the first byte of a request to its answer: Salla hears no later one.
const IN_ALL: Duration = Duration::from_secs(9);

/// How many larger bodies are read at once. A caller has proved nothing until its whole body is read.
const LARGE_BODIES_AT_ONCE: usize = 32;

/// Every app event is smaller. Each connection may send one at any time, also while others send larger bodies slowly.
const SMALL_BODY: u64 = 64 << 10;

/// The label of what is not known by name.
const OTHER: &str = "other";

/// Reads a request when there is room for its body. A caller that has gone away does not wait.
#[derive(Debug, Clone)]
pub struct LargeBodyLimit {
    large: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    late: LogLimit,
}

impl LargeBodyLimit {
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { large: Arc::new(Semaphore::new(LARGE_BODIES_AT_ONCE)), metrics, late: LogLimit::default() }
    }
}

/// Lets a request pass when it is its turn.
pub async fn limit_large_bodies(
    State(limit): State<LargeBodyLimit>,
    ConnectInfo(source): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let is_small = request.body().size_hint().upper().is_some_and(|bytes| bytes <= SMALL_BODY);
    let pass = async {
        let _permit = if is_small { None } else { limit.large.acquire().await.ok() };
        next.run(request).await
    };
    timeout(IN_ALL, pass).await.unwrap_or_else(|_| {
        limit.metrics.webhook(OTHER, "late");
        let source = source.ip();
        limit.late.count(move |requests| {
            tracing::warn!(%source, requests, "a webhook was not received in time");
        });
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the body was not received in time; try again").into_response()
    })
}

/// Effect of an event.
#[derive(Debug, Serialize, ToSchema)]
pub struct Receipt {
    /// `applied`, or without effect: `ignored` (not for this program), `replayed`, `outdated`, `stale`,
    /// `unknown_merchant`.
    #[schema(example = "applied")]
    result: &'static str,
}

/// Receives an app event of Salla. The signature is checked before the body is read.
#[utoipa::path(post, path = "/webhooks/salla", operation_id = "receive_webhook", tag = "webhooks",
    params(
        ("X-Salla-Security-Strategy" = Option<String>, Header, nullable = false, example = "Signature",
            description = "`Signature` or `Token`. Without it, either proof counts"),
        ("X-Salla-Signature" = Option<String>, Header, nullable = false,
            description = "HMAC-SHA256 of the body in hex, with `salla.webhook_secret` or `salla.client_secret`")),
    request_body(content = serde_json::Value, content_type = "application/json",
        example = json!({"event": "app.uninstalled", "merchant": 1001, "created_at": "2026-11-25 02:00:00", "data": {}})),
    responses(
    (status = 200, description = "Received; `result` says whether it changed something", body = Receipt),
    (status = 400, description = "The signature is valid, and the body is not"),
    (status = 401, description = "Missing or wrong signature"),
    (status = 403, description = "No secret is configured"),
    (status = 413, description = "The body is larger than 1 MiB"),
    (status = 422, description = "The token belongs to another merchant")))]
pub async fn receive<R: MerchantRegistry>(
    State(onboarding): State<Arc<Onboarding<R>>>,
    ConnectInfo(source): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    match onboarding.webhook_secret.check(&headers, &body) {
        Proof::Given => {}
        Proof::NoSecret => {
            onboarding.metrics.webhook(OTHER, "no_secret");
            let detail = "webhooks cannot be verified: set salla.webhook_secret or salla.client_secret";
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        Proof::Wrong => {
            onboarding.metrics.webhook(OTHER, "unauthorized");
            let source = source.ip();
            onboarding.unsigned.count(move |requests| {
                tracing::warn!(%source, requests, "webhook refused: wrong signature; compare salla.webhook_secret with the Partners Portal");
            });
            let detail = "the signature is missing or wrong";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, detail));
        }
    }
    match (onboarding.read_event)(&body, Utc::now()) {
        Ok(ParsedWebhook::AppEvent(event)) => take(&onboarding, event).await,
        Ok(ParsedWebhook::Ignored { name, merchant }) => {
            onboarding.metrics.webhook(name, "ignored");
            if name != OTHER {
                tracing::info!(event = name, merchant.id = merchant.map(|id| id.0), "webhook ignored");
            }
            Ok(Json(Receipt { result: "ignored" }).into_response())
        }
        Err(UnreadableEvent { name, reason }) => {
            onboarding.metrics.webhook(name, "malformed");
            tracing::error!(event = name, reason, "webhook lost: signed, but the body cannot be read");
            Err(Problem::new(StatusCode::BAD_REQUEST, reason))
        }
    }
}

async fn take<R: MerchantRegistry>(onboarding: &Onboarding<R>, event: AppEvent) -> Answer {
    let (name, merchant) = (event.name, event.merchant.0);
    if event.made.is_none() {
        tracing::warn!(event = name, merchant.id = merchant, "webhook without a valid created_at is treated as new");
    }
    let applied = match timeout(ANSWER_WITHIN, onboarding.register.apply(&event)).await {
        Ok(Ok(applied)) => applied,
        Ok(Err(error)) => {
            onboarding.metrics.webhook(name, "failed");
            return Err(error.into());
        }
        Err(_) => {
            onboarding.metrics.webhook(name, "failed");
            tracing::error!(
                event = name,
                merchant.id = merchant,
                "the database did not answer in time; Salla tries again"
            );
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the database does not answer; try again"));
        }
    };
    onboarding.metrics.webhook(name, applied.as_str());
    match applied {
        Applied::Done(state) => {
            tracing::info!(event = name, merchant.id = merchant, state = state.as_str(), "webhook applied");
        }
        Applied::Stale => tracing::warn!(
            event = name,
            merchant.id = merchant,
            "authorization ignored: it is older than 24 hours, and its tokens may have been used"
        ),
        Applied::Replayed | Applied::Outdated | Applied::UnknownMerchant => {
            tracing::info!(event = name, merchant.id = merchant, result = applied.as_str(), "webhook has no effect");
        }
    }
    Ok(Json(Receipt { result: applied.as_str() }).into_response())
}
