//! The spans of a run's trace: the run, in it a span for each page, and in those the requests and commits.
//!
//! The spans within a run have a separate target, [`TARGET`]. They exist only if traces are sent,
//! because the log turns this target off. So a log line keeps the span of the run as its context.

use opentelemetry::trace::{Status, TraceContextExt};
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    domain::{Outcome, Run, RunStatus},
    reconcile::ports::Claim,
};

/// Of the spans within a run.
pub const TARGET: &str = "trace";

/// Of a run's own span.
pub const RUN: &str = "salla_reconciler::run";

/// Of a whole run. Where traces are sent, its log lines tell which one is theirs.
pub fn of_run(claim: &Claim) -> Span {
    let lease = &claim.lease;
    let span = tracing::info_span!(target: RUN, "run", run.id = %lease.run_id, merchant.id = lease.merchant.0, trace_id = field::Empty);
    let context = span.context();
    if context.has_active_span() {
        span.record("trace_id", field::display(context.span().span_context().trace_id()));
    }
    span.set_attribute("run.trigger", claim.trigger.as_str());
    span.set_attribute("run.epoch", lease.epoch);
    span
}

/// What the run came to.
pub fn ended(span: &Span, run: &Run) {
    span.set_attribute("run.status", run.status.as_str());
    for outcome in Outcome::ALL {
        span.set_attribute(format!("run.records.{}", outcome.as_str()), count(run.totals.of(outcome)));
    }
    if let Some(failure) = &run.error {
        span.set_attribute("error.type", failure.kind.as_str());
        span.set_status(Status::error(failure.message.clone()));
    } else if run.status == RunStatus::Succeeded {
        span.set_status(Status::Ok);
    }
}

/// Of a page: from asking for it until it is committed.
pub fn of_page(number: u32) -> Span {
    tracing::info_span!(target: TARGET, "page", page.number = number)
}

/// Of the requests for what no page showed.
pub fn of_missing() -> Span {
    tracing::info_span!(target: TARGET, "missing")
}

/// Of what is written together. `system` is the database, by the name of OpenTelemetry's conventions.
pub fn of_commit(system: &'static str, records: usize) -> Span {
    tracing::info_span!(target: TARGET, "commit", otel.kind = "client", db.system.name = system, page.records = records)
}

fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
