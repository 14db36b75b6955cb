//! The numbers of `/metrics`. No label carries a merchant id: there may be a hundred thousand.

use std::time::Duration;

use chrono::{DateTime, Utc};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use super::ports::Gauges;
use crate::domain::Run;

/// Every metric, in a registry of its own.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    runs: IntCounterVec,
    run_duration: Histogram,
    records: IntCounterVec,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    throttled: prometheus::Counter,
    token_refreshes: IntCounterVec,
    /// Runs that another process took over from this one.
    pub leases_lost: IntCounter,
    runs_active: IntGauge,
    runs_queued: IntGauge,
    merchants: IntGaugeVec,
    merchants_overdue: IntGauge,
    last_success: IntGauge,
    oldest_watermark: IntGauge,
}

/// Registers a metric in `$registry` under the project's prefix.
macro_rules! register {
    ($registry:ident, $kind:ident :: new, $name:literal, $help:literal) => {{
        let metric = $kind::with_opts(Opts::new(concat!("salla_reconciler_", $name), $help))?;
        $registry.register(Box::new(metric.clone()))?;
        metric
    }};
    ($registry:ident, $kind:ident, $name:literal, $help:literal, $labels:expr) => {{
        let metric = $kind::new(Opts::new(concat!("salla_reconciler_", $name), $help), &$labels)?;
        $registry.register(Box::new(metric.clone()))?;
        metric
    }};
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// Never in practice: when two metrics share a name.
    pub fn new() -> Result<Self, prometheus::Error> {
        use prometheus::Counter;
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let run_duration = Histogram::with_opts(
            HistogramOpts::new("salla_reconciler_run_duration_seconds", "How long runs took, from claim to end.")
                .buckets(vec![0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0]),
        )?;
        registry.register(Box::new(run_duration.clone()))?;
        let request_duration = HistogramVec::new(
            HistogramOpts::new(
                "salla_reconciler_salla_request_duration_seconds",
                "How long Salla took to answer, body included; no retries in it.",
            )
            .buckets(vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
            &[],
        )?;
        registry.register(Box::new(request_duration.clone()))?;
        let build_info =
            register!(registry, IntGaugeVec, "build_info", "Always 1; the label tells the version.", ["version"]);
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            runs: register!(
                registry,
                IntCounterVec,
                "runs_total",
                "Runs that ended in this process, by how they ended and who asked for them.",
                ["status", "trigger"]
            ),
            run_duration,
            records: register!(
                registry,
                IntCounterVec,
                "records_total",
                "Distinct records by what became of them; created and updated are drift that was corrected.",
                ["resource", "outcome"]
            ),
            requests: register!(
                registry,
                IntCounterVec,
                "salla_requests_total",
                "Requests sent to Salla by the answer's status code, or `error` where none came.",
                ["code"]
            ),
            request_duration,
            throttled: register!(
                registry,
                Counter::new,
                "salla_throttled_seconds_total",
                "Time that requests waited for a store's rate limit."
            ),
            token_refreshes: register!(
                registry,
                IntCounterVec,
                "token_refreshes_total",
                "Token refreshes by result; `unknown` and `refused` need the merchant to install the app again.",
                ["result"]
            ),
            leases_lost: register!(
                registry,
                IntCounter::new,
                "leases_lost_total",
                "Runs that another process took over; look for stalls of this one."
            ),
            runs_active: register!(
                registry,
                IntGauge::new,
                "runs_active",
                "Runs under way, in all processes (from the database)."
            ),
            runs_queued: register!(
                registry,
                IntGauge::new,
                "runs_queued",
                "Runs that wait, in all processes (from the database)."
            ),
            merchants: register!(
                registry,
                IntGaugeVec,
                "merchants",
                "Registered merchants by state (from the database).",
                ["state"]
            ),
            merchants_overdue: register!(
                registry,
                IntGauge::new,
                "merchants_overdue",
                "Active merchants whose watermark is older than 26 hours: see /runs for why."
            ),
            last_success: register!(
                registry,
                IntGauge::new,
                "last_success_timestamp_seconds",
                "When a run last succeeded, Unix time; 0: never."
            ),
            oldest_watermark: register!(
                registry,
                IntGauge::new,
                "oldest_watermark_timestamp_seconds",
                "The watermark furthest back among active merchants, Unix time; 0: none yet."
            ),
            registry,
        };
        // A label that has not happened yet reads 0 instead of being absent.
        for result in ["renewed", "refused", "not_used", "unknown"] {
            metrics.token_refreshes.with_label_values(&[result]).inc_by(0);
        }
        Ok(metrics)
    }

    /// Counts a run that ended here after `took`.
    pub fn run_ended(&self, run: &Run, took: Duration) {
        self.runs.with_label_values(&[run.status.as_str(), run.trigger.as_str()]).inc();
        self.run_duration.observe(took.as_secs_f64());
    }

    /// Counts `count` records of `resource` that had `outcome`.
    pub fn records(&self, resource: &str, outcome: &str, count: u64) {
        self.records.with_label_values(&[resource, outcome]).inc_by(count);
    }

    /// Counts one request to Salla; `code` is absent when no answer came.
    pub fn request(&self, code: Option<u16>, took: Duration) {
        let code = code.map_or_else(|| "error".to_owned(), |code| code.to_string());
        self.requests.with_label_values(&[code.as_str()]).inc();
        self.request_duration.with_label_values::<&str>(&[]).observe(took.as_secs_f64());
    }

    /// Counts time spent waiting for a store's limit.
    pub fn throttled(&self, waited: Duration) {
        self.throttled.inc_by(waited.as_secs_f64());
    }

    /// Counts a token refresh.
    pub fn token_refresh(&self, result: &str) {
        self.token_refreshes.with_label_values(&[result]).inc();
    }

    /// Sets what is read from the database at each scrape.
    pub fn observe(&self, gauges: &Gauges) {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let unix = |instant: Option<DateTime<Utc>>| instant.map_or(0, |at| at.timestamp());
        self.runs_active.set(count(gauges.runs_active));
        self.runs_queued.set(count(gauges.runs_queued));
        self.merchants_overdue.set(count(gauges.merchants_overdue));
        for (state, merchants) in &gauges.merchants {
            self.merchants.with_label_values(&[state.as_str()]).set(count(*merchants));
        }
        self.last_success.set(unix(gauges.last_success));
        self.oldest_watermark.set(unix(gauges.oldest_watermark));
    }

    /// The text that Prometheus scrapes.
    ///
    /// # Errors
    /// When a metric cannot be written as text; never in practice.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
