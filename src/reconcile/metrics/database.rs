//! Metrics that are read from the database at each scrape, so that no value outlives the answer it came from.

use chrono::{DateTime, Utc};
use prometheus::{Registry, proto::MetricFamily};

use super::Maker;
use crate::reconcile::ports::Gauges;

/// The help of each metric. Every process reports the same values of one database.
const HELP: [(&str, &str); 13] = [
    ("database_up", "1 if the database answered this scrape. At 0, the other metrics from the database are absent."),
    ("runs_active", "Running runs of all processes."),
    ("runs_queued", "Queued runs of all processes."),
    ("runs_due", "Queued runs whose time has come. If none is active, no worker claims them."),
    ("global_pause", "1 while all merchants are paused."),
    ("merchants", "Registered merchants by state."),
    (
        "merchants_overdue",
        "Active merchants whose oldest watermark, or registration without one, is older than 26 hours.",
    ),
    ("last_success_timestamp_seconds", "Unix time at which a run last succeeded; 0: never."),
    ("oldest_watermark_timestamp_seconds", "Unix time of the oldest watermark of an active merchant; 0: none."),
    (
        "last_sweep_timestamp_seconds",
        "Unix time of the last sweep that was not skipped, or of the first start of the schedule; 0: none.",
    ),
    ("events_pending", "Events that are not delivered to cdc.webhook_url yet."),
    ("oldest_pending_event_timestamp_seconds", "Unix time of the oldest pending event; 0: none is pending."),
    ("replication_slot_lag_bytes", "WAL that the consumer of cdc.slot has not confirmed. Absent without that slot."),
];

/// `None`: the database did not answer.
pub(super) fn gather(gauges: Option<&Gauges>) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let registry = Registry::new();
    let make = Maker { registry: &registry, help: &HELP };
    make.gauge("database_up")?.set(i64::from(gauges.is_some()));
    if let Some(gauges) = gauges {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let unix = |at: Option<DateTime<Utc>>| at.map_or(0, |at| at.timestamp());
        for (name, value) in [
            ("runs_active", count(gauges.runs_active)),
            ("runs_queued", count(gauges.runs_queued)),
            ("runs_due", count(gauges.runs_due)),
            ("global_pause", i64::from(gauges.global_pause)),
            ("merchants_overdue", count(gauges.merchants_overdue)),
            ("last_success_timestamp_seconds", unix(gauges.last_success)),
            ("oldest_watermark_timestamp_seconds", unix(gauges.oldest_watermark)),
            ("last_sweep_timestamp_seconds", unix(gauges.last_sweep)),
        ] {
            make.gauge(name)?.set(value);
        }
        if let Some(backlog) = &gauges.backlog {
            make.gauge("events_pending")?.set(count(backlog.pending));
            make.gauge("oldest_pending_event_timestamp_seconds")?.set(unix(backlog.oldest));
            if let Some(lag) = backlog.replication_slot_lag_bytes {
                make.gauge("replication_slot_lag_bytes")?.set(count(lag));
            }
        }
        let merchants = make.gauges("merchants", "state")?;
        for (state, held) in &gauges.merchants {
            merchants.with_label_values(&[state.as_str()]).set(count(*held));
        }
    }
    Ok(registry.gather())
}
