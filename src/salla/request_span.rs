//! A span for each request that is sent, by OpenTelemetry's conventions for HTTP clients.

use http::{Method, StatusCode};
use opentelemetry::trace::Status;
use reqwest_middleware::Error;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use url::Url;

use crate::reconcile::span::TARGET;

/// Of one attempt; `earlier` were sent before it. Neither headers nor bodies are shown, and the addresses hold no secret:
/// the configuration refuses those with a user or a password.
pub fn of_request(method: &Method, url: &Url, earlier: u64) -> Span {
    let span = tracing::info_span!(
        target: TARGET,
        "request",
        otel.name = method.as_str(),
        otel.kind = "client",
        http.request.method = method.as_str(),
        url.full = url.as_str(),
        server.address = url.host_str(),
        server.port = url.port_or_known_default(),
    );
    if earlier > 0 {
        span.set_attribute("http.request.resend_count", i64::try_from(earlier).unwrap_or(i64::MAX));
    }
    span
}

/// The status that was answered, if one was, and the kind of what went wrong after it, if anything did.
pub fn answered(span: &Span, status: Option<StatusCode>, error: Option<&'static str>) {
    if let Some(status) = status {
        span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
    }
    let refused = status.filter(|status| status.is_client_error() || status.is_server_error());
    let kind = error.map(ToOwned::to_owned).or_else(|| refused.map(|status| status.as_str().to_owned()));
    if let Some(kind) = kind {
        span.set_attribute("error.type", kind);
        span.set_status(Status::error(""));
    }
}

/// The cause of a missing or unreadable answer, as one word.
pub fn kind_of(error: &Error) -> &'static str {
    match error {
        Error::Reqwest(error) => kind_of_transport(error),
        Error::Middleware(_) => "malformed_answer",
    }
}

/// The same of a request that passes no middleware.
pub fn kind_of_transport(error: &reqwest::Error) -> &'static str {
    match error {
        error if error.is_timeout() => "timeout",
        error if error.is_connect() => "connect",
        error if error.is_body() || error.is_decode() => "body",
        _ => "request",
    }
}
