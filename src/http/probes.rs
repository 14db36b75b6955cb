//! What the platform asks: alive, ready, and how it goes.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{Api, problem::Problem};
use crate::reconcile::ports::{DatabaseError, NotReady, RunStore};

/// Probes and scrapes get a correct answer within a few seconds.
const READY_WITHIN: Duration = Duration::from_secs(4);
const GAUGES_WITHIN: Duration = Duration::from_secs(5);

/// Answer of a successful probe.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok` or `ready`.
    status: &'static str,
    /// Version of the program.
    version: &'static str,
}

impl Health {
    fn answer(status: &'static str) -> Response {
        Json(Self { status, version: env!("CARGO_PKG_VERSION") }).into_response()
    }
}

/// Liveness: no background task has ended or stalled.
///
/// The database and Salla are not checked, because a restart would not repair them.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "probes", responses(
    (status = 200, description = "The process makes progress", body = Health),
    (status = 503, description = "A background task ended, or made no progress for five minutes")))]
pub async fn healthz<L: RunStore>(State(api): State<Arc<Api<L>>>) -> Response {
    match api.liveness.problem() {
        None => Health::answer("ok"),
        Some(problem) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, problem).into_response(),
    }
}

/// Readiness: the database can be read and written with the expected schema, every background task runs, and the process
/// is not shutting down.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "probes", responses(
    (status = 200, description = "Database and schema can be used", body = Health),
    (status = 503, description = "Not ready, with the reason; or shutting down")))]
pub async fn readyz<L: RunStore>(State(api): State<Arc<Api<L>>>) -> Response {
    if api.draining.is_cancelled() {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "shutting down").into_response();
    }
    if let Some(failure) = api.liveness.failure() {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, failure).into_response();
    }
    let ready = async {
        let _turn = api.probing.acquire().await;
        api.store.ready().await
    };
    let ready = timeout(READY_WITHIN, ready).await;
    match ready.unwrap_or_else(|_| Err(NotReady::Unavailable("no answer within 4 s".into()))) {
        Ok(()) => Health::answer("ready"),
        Err(error) => {
            let cause = error.to_string();
            api.not_ready.count(move |requests| tracing::warn!(error = cause, requests, "not ready"));
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.public_message()).into_response()
        }
    }
}

/// Shows the metrics. If the database does not answer, its metrics are absent.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "probes", responses(
    (status = 200, description = "Metrics in the text format of Prometheus", body = String, content_type = "text/plain")))]
pub async fn metrics<L: RunStore>(State(api): State<Arc<Api<L>>>) -> Response {
    let gauges = async {
        let _turn = api.scraping.acquire().await;
        api.store.gauges().await
    };
    let gauges = timeout(GAUGES_WITHIN, gauges).await;
    let gauges = gauges
        .unwrap_or_else(|_| Err(DatabaseError::Unavailable("no answer within 5 s".into())))
        .inspect_err(|error| {
            let cause = error.to_string();
            let log = move |requests| {
                tracing::warn!(error = cause, requests, "metrics of the database are missing in this scrape");
            };
            api.not_scraped.count(log);
        })
        .ok();
    match api.metrics.render(gauges.as_ref()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => {
            tracing::error!(error = %error, "metrics cannot be written as text");
            Problem::internal().into_response()
        }
    }
}
