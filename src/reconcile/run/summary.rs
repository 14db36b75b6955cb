//! What a run came to, in one log line.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::domain::{Run, RunStatus};

fn timestamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Logs one line: an error for a failed run, a warning for skipped or failed records.
pub fn summarise(run: &Run, took: Duration) {
    let totals = run.totals;
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                run.id = %run.run_id,
                merchant.id = run.merchant_id.0,
                trigger = %run.trigger,
                status = %run.status,
                listing = run.listing.map(|listing| listing.as_str()),
                dry_run = run.dry_run,
                window.since = run.window.map(|window| timestamp(window.since)),
                window.until = run.window.map(|window| timestamp(window.until)),
                fetched = totals.fetched,
                created = totals.created,
                updated = totals.updated,
                unchanged = totals.unchanged,
                skipped = totals.skipped,
                failed = totals.failed,
                newer_locally = totals.newer_locally,
                backfilled = totals.backfilled_total(),
                requests = run.requests,
                duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                error.kind = run.error.as_ref().map(|error| error.kind.as_str()),
                error = run.error.as_ref().map(|error| error.message.as_str()),
                "run ended"
            )
        };
    }
    match run.status {
        RunStatus::Failed => line!(error),
        RunStatus::Partial => line!(warn),
        _ => line!(info),
    }
}
