//! The HTTP surface: probes and metrics for everybody, the ledger for those with the token.

mod access;
mod audit;
mod headers;
mod limits;
mod merchants;
mod probes;
mod problem;
mod report;
mod runs;
mod server;
mod signature;
mod tokens;
mod webhooks;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    http::StatusCode,
    middleware,
    routing::{get, post},
};
use secrecy::SecretString;
use serde::Deserialize;
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;
use tower_http::{catch_panic::CatchPanicLayer, limit::RequestBodyLimitLayer, timeout::TimeoutLayer};

pub use access::Access;
pub use limits::RequestRate;
pub use signature::WebhookSecret;
pub use tokens::{InvalidToken, Tokens};

use self::problem::Problem;
use crate::reconcile::{
    Metrics, Pulse,
    ports::{Ledger, ReadEvent, Register},
};

/// The section `http`; `config/default.toml` tells what each key is for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Config {
    #[serde(deserialize_with = "crate::config::parsed")]
    pub listen: SocketAddr,
    pub api_token: SecretString,
    pub api_tokens: SecretString,
    pub requests_per_second: u32,
}

/// What the handlers need.
#[derive(Debug)]
pub struct Api<L> {
    /// The ledger.
    pub ledger: L,
    /// What is scraped.
    pub metrics: Arc<Metrics>,
    /// Who may do what.
    pub access: Access,
    /// How often.
    pub rate: RequestRate,
    /// Rung when a run was put into the queue.
    pub wake: Arc<Notify>,
    /// Whether the process makes progress.
    pub pulse: Pulse,
    /// Called when the process is asked to end.
    pub draining: CancellationToken,
}

/// What the register's handlers need.
#[derive(Debug)]
pub struct Onboarding<R> {
    /// The register.
    pub register: R,
    /// What is scraped.
    pub metrics: Arc<Metrics>,
    /// What webhooks prove to know.
    pub webhook_secret: WebhookSecret,
    /// Knows their shape.
    pub read_event: ReadEvent,
}

const BODY_LIMIT: usize = 64 << 10;
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Every route.
pub fn router<L: Ledger, R: Register>(api: Arc<Api<L>>, onboarding: Arc<Onboarding<R>>) -> Router {
    let guarded = Router::new()
        .route("/runs", get(runs::list::<L>).post(runs::create::<L>))
        .route("/runs/{id}", get(runs::show::<L>))
        .route("/runs/{id}/discrepancies", get(runs::discrepancies::<L>))
        .route("/runs/{id}/cancel", post(runs::cancel::<L>))
        .route("/report", get(report::show::<L>))
        .route("/audit", get(audit::list::<L>))
        .merge(merchants::routes(Arc::clone(&onboarding)))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), access::require::<L>))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), limits::by_address::<L>));
    Router::new()
        .route("/healthz", get(probes::healthz::<L>))
        .route("/readyz", get(probes::readyz::<L>))
        .route("/metrics", get(probes::metrics::<L>))
        .merge(guarded)
        .layer(RequestBodyLimitLayer::new(BODY_LIMIT))
        .merge(webhooks::routes(onboarding))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing at this address") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take that method")
        })
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER_WITHIN))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            axum::response::IntoResponse::into_response(Problem::internal())
        }))
        .layer(middleware::map_response(problem::everywhere))
        .layer(middleware::map_response(headers::everywhere))
        .with_state(api)
}

/// Serves until `stop` is called and the requests under way are answered.
pub async fn serve<L: Ledger, R: Register>(
    listener: TcpListener,
    api: Arc<Api<L>>,
    onboarding: Arc<Onboarding<R>>,
    stop: CancellationToken,
) {
    server::serve(listener, router(api, onboarding), stop).await;
}
