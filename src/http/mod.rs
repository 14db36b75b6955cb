//! The HTTP server: open probes and metrics, and an API behind bearer tokens.

pub(crate) mod access;
mod audit;
mod connections;
mod document;
mod examples;
mod headers;
pub(crate) mod limits;
mod log_limit;
mod merchant_token;
mod merchants;
mod paging;
mod probes;
pub(crate) mod problem;
mod proxies;
mod report;
mod runs;
mod schemas;
mod server;
pub(crate) mod session;
mod signature;
pub(crate) mod tokens;
mod trigger;
mod webhooks;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{Extension, Router, http::StatusCode, middleware};
use secrecy::SecretString;
use serde::Deserialize;
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
};
use tokio_util::sync::CancellationToken;
use tower_http::{catch_panic::CatchPanicLayer, limit::RequestBodyLimitLayer, timeout::TimeoutLayer};
use utoipa_axum::router::OpenApiRouter;

pub use access::Access;
pub use limits::RequestRate;
pub use log_limit::LogLimit;
pub use merchant_token::ReadToken;
pub use proxies::{InvalidProxy, TrustedProxies};
pub use signature::WebhookSecret;
pub use tokens::{InvalidToken, MIN_TOKEN, Tokens};

use self::{document::on, problem::Problem};
use crate::reconcile::{
    Liveness, Metrics,
    ports::{MerchantRegistry, Overview, ReadEvent, RunStore},
};

/// The section `http`. `config/default.toml` documents each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Config {
    #[serde(deserialize_with = "crate::config::parsed")]
    pub listen: SocketAddr,
    #[serde(deserialize_with = "crate::config::trimmed")]
    pub api_token: SecretString,
    pub api_token_file: PathBuf,
    #[serde(deserialize_with = "crate::config::trimmed")]
    pub api_tokens: SecretString,
    pub api_tokens_file: PathBuf,
    pub requests_per_second: u32,
    /// The proxies in front of this program, `ADDRESS[/BITS][,…]`.
    pub trusted_proxies: String,
}

/// What the handlers need.
#[derive(Debug)]
pub struct Api<L> {
    /// The table `runs`.
    pub store: L,
    /// The metrics that a scrape reads.
    pub metrics: Arc<Metrics>,
    /// The access control.
    pub access: Access,
    /// The rate limit of requests with a right token.
    pub rate: RequestRate,
    /// The same without a right token.
    pub anonymous_rate: RequestRate,
    /// Rung when a run was put into the queue.
    pub wake: Arc<Notify>,
    /// Whether the process makes progress.
    pub liveness: Liveness,
    /// Called when the process is asked to end.
    pub draining: CancellationToken,
    /// Probes need no token, so they share a few database connections.
    pub probing: Semaphore,
    /// A scrape that waits for the database does not keep the probes waiting.
    pub scraping: Semaphore,
    /// Anybody can cause these log lines.
    pub not_ready: LogLimit,
    /// The same of a scrape.
    pub not_scraped: LogLimit,
}

/// So many probes ask the database at a time.
pub const PROBES_AT_ONCE: usize = 2;

/// What the register's handlers need.
#[derive(Debug)]
pub struct Onboarding<R> {
    /// The register.
    pub register: R,
    /// The metrics that a scrape reads.
    pub metrics: Arc<Metrics>,
    /// What webhooks prove to know.
    pub webhook_secret: WebhookSecret,
    /// Knows their shape.
    pub read_event: ReadEvent,
    /// Shows tokens to other programs of the platform.
    pub read_token: ReadToken,
    /// Anybody can send webhooks without a proof.
    pub unsigned: LogLimit,
}

const BODY_LIMIT: usize = 64 << 10;
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Every route, and the OpenAPI document.
struct Routes<L, R> {
    /// For those with a token.
    runs: Router<Arc<Api<L>>>,
    /// For those with a token.
    register: Router<Arc<Onboarding<R>>>,
    /// For those with a token of the scope `token`.
    tokens: Router<Arc<Onboarding<R>>>,
    /// For everybody.
    open: Router<Arc<Api<L>>>,
    /// For requests that Salla signed.
    webhooks: Router<Arc<Onboarding<R>>>,
    document: String,
}

fn routes<L: RunStore, R: MerchantRegistry>() -> Routes<L, R> {
    let runs = OpenApiRouter::with_openapi(document::blank())
        .routes(on(runs::__path_list, runs::list::<L>))
        .routes(on(trigger::__path_create, trigger::create::<L>))
        .routes(on(runs::__path_show, runs::show::<L>))
        .routes(on(runs::__path_discrepancies, runs::discrepancies::<L>))
        .routes(on(trigger::__path_cancel, trigger::cancel::<L>))
        .routes(on(report::__path_show, report::show::<L>))
        .routes(on(audit::__path_list, audit::list::<L>));
    let register = OpenApiRouter::with_openapi(document::blank())
        .routes(on(merchants::__path_list, merchants::list::<R>))
        .routes(on(merchants::__path_show, merchants::show::<R>))
        .routes(on(merchants::__path_put, merchants::put::<R>))
        .routes(on(merchants::__path_put_token, merchants::put_token::<R>))
        .routes(on(merchants::__path_pause, merchants::pause::<R>))
        .routes(on(merchants::__path_resume, merchants::resume::<R>))
        .routes(on(merchants::__path_pause_all, merchants::pause_all::<R>))
        .routes(on(merchants::__path_resume_all, merchants::resume_all::<R>));
    let tokens = OpenApiRouter::with_openapi(document::blank())
        .routes(on(merchant_token::__path_show, merchant_token::show::<R>));
    let open = OpenApiRouter::with_openapi(document::blank())
        .routes(on(probes::__path_healthz, probes::healthz::<L>))
        .routes(on(probes::__path_readyz, probes::readyz::<L>))
        .routes(on(probes::__path_metrics, probes::metrics::<L>))
        .routes(on(document::__path_show, document::show));
    let webhooks =
        OpenApiRouter::with_openapi(document::blank()).routes(on(webhooks::__path_receive, webhooks::receive::<R>));
    let mut whole = document::blank();
    Routes {
        runs: document::merge_routes(runs, true, &mut whole),
        register: document::merge_routes(register, true, &mut whole),
        tokens: document::merge_routes(tokens, true, &mut whole),
        open: document::merge_routes(open, false, &mut whole),
        webhooks: document::merge_routes(webhooks, false, &mut whole),
        document: whole.to_pretty_json().unwrap_or_default(),
    }
}

/// The document, as `GET /openapi.json` shows it.
#[must_use]
pub fn document<L: RunStore, R: MerchantRegistry>() -> String {
    routes::<L, R>().document
}

/// Every route of the API, beside `pages` for people.
pub fn router<L: RunStore + Overview, R: MerchantRegistry>(
    api: Arc<Api<L>>,
    onboarding: Arc<Onboarding<R>>,
    pages: Router<Arc<Api<L>>>,
) -> Router {
    let Routes { runs, register, tokens, open, webhooks, document } = routes::<L, R>();
    let guarded = runs
        .merge(register.with_state(Arc::clone(&onboarding)))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), access::require::<L>))
        .merge(
            tokens
                .with_state(Arc::clone(&onboarding))
                .route_layer(middleware::from_fn_with_state(Arc::clone(&api), access::require_token_scope::<L>)),
        )
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), limits::by_address::<L>));
    let limit = webhooks::LargeBodyLimit::new(Arc::clone(&onboarding.metrics));
    let webhooks = webhooks
        .layer(RequestBodyLimitLayer::new(webhooks::BODY_LIMIT))
        .layer(middleware::from_fn_with_state(limit, webhooks::limit_large_bodies))
        .with_state(onboarding);
    open.merge(guarded)
        .merge(pages)
        .layer(RequestBodyLimitLayer::new(BODY_LIMIT))
        .merge(webhooks)
        .layer(Extension(document::Text(document.into())))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "no resource has this address") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not allow the method")
        })
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER_WITHIN))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            axum::response::IntoResponse::into_response(Problem::internal())
        }))
        .layer(middleware::from_fn(access::require_one_host))
        .layer(middleware::map_response(problem::everywhere))
        .layer(middleware::map_response(headers::everywhere))
        .with_state(api)
}

/// Serves until `stop` is called and the open requests are answered.
pub async fn serve<L: RunStore + Overview, R: MerchantRegistry>(
    listener: TcpListener,
    api: Arc<Api<L>>,
    onboarding: Arc<Onboarding<R>>,
    pages: Router<Arc<Api<L>>>,
    stop: CancellationToken,
) {
    let proxies = api.access.proxies().clone();
    server::serve(listener, router(api, onboarding, pages), proxies, stop).await;
}
