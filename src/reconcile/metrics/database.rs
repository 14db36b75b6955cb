//! Metrics that are read from the database at each scrape, so that no value outlives the answer it came from.

use chrono::{DateTime, Utc};
use prometheus::{Registry, proto::MetricFamily};

use super::Maker;
use crate::reconcile::ports::Gauges;

/// As [`super::HELP`]. Every process tells the same of the same database.
const HELP: [(&str, &str); 13] = [
    (
        "database_up",
        "1 when the database answered this scrape; at 0 what it tells is left out: see /readyz and the log for why.",
    ),
    ("runs_active", "Runs under way, in all processes (from the database)."),
    ("runs_queued", "Runs that wait, in all processes (from the database)."),
    (
        "runs_due",
        "Of those that wait, the ones whose time has come (from the database): if none are active, no worker takes them.",
    ),
    (
        "global_pause",
        "1 while all stores are paused: no run begins until `merchants resume --all` (from the database).",
    ),
    ("merchants", "Registered merchants by state (from the database)."),
    (
        "merchants_overdue",
        "Active merchants whose watermark is older than 26 hours: see /runs for why (from the database).",
    ),
    ("last_success_timestamp_seconds", "When a run last succeeded, Unix time; 0: never (from the database)."),
    (
        "oldest_watermark_timestamp_seconds",
        "The watermark furthest back among active merchants, Unix time; 0: none yet (from the database).",
    ),
    (
        "last_firing_timestamp_seconds",
        "The latest firing of the schedule that was not skipped, or its first start, Unix time; 0: none yet (from the database).",
    ),
    (
        "events_pending",
        "Events of runs that ended well and are still to be delivered to cdc.webhook_url (from the database).",
    ),
    (
        "oldest_pending_event_timestamp_seconds",
        "Since when the oldest of them waits, Unix time; 0: none does: if it stays, see event_deliveries_total and replication_slot_lag_bytes (from the database).",
    ),
    (
        "replication_slot_lag_bytes",
        "By how much the consumer of cdc.slot lags behind; absent: no slot of that name: events wait for it (from the database).",
    ),
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
            ("last_firing_timestamp_seconds", unix(gauges.last_sweep)),
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
