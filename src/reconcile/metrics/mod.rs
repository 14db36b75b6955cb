//! The numbers of `/metrics`. No label carries a merchant id: there may be a hundred thousand.

mod database;

use std::time::Duration;

use prometheus::{
    Counter, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector,
};

use crate::{
    domain::{FailureKind, ListingViolation, Outcome, Resource, Run, RunStatus, SortedListResult, Trigger},
    reconcile::ports::Gauges,
};

/// The metrics of this process, in a separate registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    runs: IntCounterVec,
    failures: IntCounterVec,
    run_duration: Histogram,
    records: IntCounterVec,
    requests: IntCounterVec,
    request_duration: Histogram,
    throttled: Counter,
    circuit: IntGaugeVec,
    store_circuits_open: IntGauge,
    token_refreshes: IntCounterVec,
    webhooks: IntCounterVec,
    events: IntCounterVec,
    listing_violations: IntCounterVec,
    sorted_lists: IntCounterVec,
    late_records: IntCounterVec,
    /// Runs that another process took over from this one.
    pub leases_lost: IntCounter,
    /// Runs that had to wait, or failed in the foreground, for what keeps the tokens did not answer.
    pub tokens_unavailable: IntCounter,
}

/// The help of each metric of this process, by the name behind the prefix.
const HELP: [(&str, &str); 18] = [
    ("build_info", "Always 1. The label has the version."),
    ("runs_total", "Runs that ended in this process."),
    (
        "run_failures_total",
        "Runs that failed in this process, by failure kind. docs/reference/states.md has the action.",
    ),
    ("run_duration_seconds", "Time from the claim of a run to its end."),
    ("records_total", "Distinct records by outcome. created and updated are corrected drift."),
    ("salla_requests_total", "Requests to Salla by status code of the answer; error: no answer."),
    ("salla_request_duration_seconds", "Time of one request to Salla, including the body, without retries."),
    ("salla_throttled_seconds_total", "Time that requests waited for a rate limit."),
    ("salla_circuit_state", "1 for the state of the circuit to Salla. While it is open, runs wait."),
    ("merchant_circuits_open", "Merchants with errors only, while Salla answers others. The log names them."),
    (
        "token_refreshes_total",
        "Token refreshes by result. After refused and unknown, let the merchant install the app again.",
    ),
    (
        "webhooks_total",
        "Webhooks by event and result. For unauthorized and malformed, check the secret and the portal of Salla.",
    ),
    ("event_deliveries_total", "Deliveries to cdc.webhook_url by result. rejected and no_response are tried again."),
    (
        "listing_violations_total",
        "Runs that found a sorted list unreliable, by kind, and scanned the list instead. The log names the orders.",
    ),
    (
        "sorted_lists_total",
        "Sorted lists by result. After any result but complete, the run scans the whole list, so no change is lost.",
    ),
    (
        "late_records_total",
        "Records that Salla showed late: an earlier run covered the time of their change, and did not find them. The log names them.",
    ),
    ("leases_lost_total", "Runs that another process took over from this running process."),
    ("token_store_errors_total", "Runs that waited or failed because AWS KMS or Secrets Manager did not answer."),
];

const RUN_BUCKETS: [f64; 12] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0];
const REQUEST_BUCKETS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Makes metrics in a registry, each with its help.
struct Maker<'a> {
    registry: &'a Registry,
    help: &'static [(&'static str, &'static str)],
}

impl Maker<'_> {
    fn register<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn opts(&self, name: &str) -> Opts {
        let help = self.help.iter().find(|(known, _)| *known == name).map_or(name, |(_, help)| help);
        Opts::new(format!("salla_reconciler_{name}"), help)
    }

    fn counters(&self, name: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(self.opts(name), labels)?)
    }

    fn gauges(&self, name: &str, label: &str) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(self.opts(name), &[label])?)
    }

    fn gauge(&self, name: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::with_opts(self.opts(name))?)
    }

    fn histogram(&self, name: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        let opts = HistogramOpts::from(self.opts(name)).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts)?)
    }
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// Never in practice: when two metrics share a name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let make = Maker { registry: &registry, help: &HELP };
        make.gauges("build_info", "version")?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            runs: make.counters("runs_total", &["status", "trigger"])?,
            failures: make.counters("run_failures_total", &["kind"])?,
            run_duration: make.histogram("run_duration_seconds", &RUN_BUCKETS)?,
            records: make.counters("records_total", &["resource", "outcome"])?,
            requests: make.counters("salla_requests_total", &["code"])?,
            request_duration: make.histogram("salla_request_duration_seconds", &REQUEST_BUCKETS)?,
            throttled: make.register(Counter::with_opts(make.opts("salla_throttled_seconds_total"))?)?,
            circuit: make.gauges("salla_circuit_state", "state")?,
            store_circuits_open: make.gauge("merchant_circuits_open")?,
            token_refreshes: make.counters("token_refreshes_total", &["result"])?,
            webhooks: make.counters("webhooks_total", &["event", "result"])?,
            events: make.counters("event_deliveries_total", &["result"])?,
            listing_violations: make.counters("listing_violations_total", &["kind"])?,
            sorted_lists: make.counters("sorted_lists_total", &["result"])?,
            late_records: make.counters("late_records_total", &["resource"])?,
            leases_lost: make.register(IntCounter::with_opts(make.opts("leases_lost_total"))?)?,
            tokens_unavailable: make.register(IntCounter::with_opts(make.opts("token_store_errors_total"))?)?,
            registry,
        };
        metrics.begin_at_zero();
        Ok(metrics)
    }

    /// Counters start at 0, because Prometheus does not see an increase from an absent series.
    fn begin_at_zero(&self) {
        for status in RunStatus::ALL.iter().filter(|status| status.is_end()) {
            for trigger in Trigger::ALL {
                self.runs.with_label_values(&[status.as_str(), trigger.as_str()]);
            }
        }
        for kind in FailureKind::ALL {
            self.failures.with_label_values(&[kind.as_str()]);
        }
        for violation in ListingViolation::ALL {
            self.listing_violations.with_label_values(&[violation.as_str()]);
        }
        for result in SortedListResult::ALL {
            self.sorted_lists.with_label_values(&[result.as_str()]);
        }
        for resource in Resource::ALL {
            self.late_records.with_label_values(&[resource.as_str()]);
            for outcome in Outcome::ALL {
                self.records.with_label_values(&[resource.as_str(), outcome.as_str()]);
            }
        }
        for result in ["renewed", "refused", "not_attempted", "unknown"] {
            self.token_refreshes.with_label_values(&[result]);
        }
        for code in ["200", "401", "429", "error"] {
            self.requests.with_label_values(&[code]);
        }
        for result in ["delivered", "rejected", "no_response"] {
            self.events.with_label_values(&[result]);
        }
        // For every event.
        for result in ["late", "malformed", "no_secret", "unauthorized"] {
            self.webhooks.with_label_values(&["other", result]);
        }
    }

    /// Counts a run that ended here after `took`.
    pub fn run_ended(&self, run: &Run, took: Duration) {
        self.runs.with_label_values(&[run.status.as_str(), run.trigger.as_str()]).inc();
        self.run_duration.observe(took.as_secs_f64());
        if let Some(failure) = &run.error {
            self.failures.with_label_values(&[failure.kind.as_str()]).inc();
        }
    }

    /// Counts a contradiction of a sorted list.
    pub fn listing_violation(&self, violation: ListingViolation) {
        self.listing_violations.with_label_values(&[violation.as_str()]).inc();
    }

    /// Counts the result of a sorted list.
    pub fn sorted_list(&self, result: SortedListResult) {
        self.sorted_lists.with_label_values(&[result.as_str()]).inc();
    }

    /// Counts `count` records of `resource` that Salla showed late.
    pub fn late_records(&self, resource: Resource, count: u64) {
        self.late_records.with_label_values(&[resource.as_str()]).inc_by(count);
    }

    /// Counts `count` records of `resource` that had `outcome`.
    pub fn records(&self, resource: Resource, outcome: Outcome, count: u64) {
        self.records.with_label_values(&[resource.as_str(), outcome.as_str()]).inc_by(count);
    }

    /// Counts one request to Salla; `code` is absent when no answer came.
    pub fn request(&self, code: Option<u16>, took: Duration) {
        let code = code.map_or_else(|| "error".to_owned(), |code| code.to_string());
        self.requests.with_label_values(&[code.as_str()]).inc();
        self.request_duration.observe(took.as_secs_f64());
    }

    /// Counts the time that a request waited for the limit of its merchant.
    pub fn throttled(&self, waited: Duration) {
        self.throttled.inc_by(waited.as_secs_f64());
    }

    /// Sets the state of the circuit.
    pub fn circuit(&self, states: &[&str], present: &str) {
        for state in states {
            self.circuit.with_label_values(&[*state]).set(i64::from(*state == present));
        }
    }

    /// Whether the circuit is not closed: Salla as a whole does not answer.
    pub fn salla_is_away(&self) -> bool {
        ["open", "half_open"].iter().any(|state| self.circuit.with_label_values(&[*state]).get() == 1)
    }

    /// Sets the number of merchants with an open circuit.
    pub fn store_circuits_open(&self, stores: usize) {
        self.store_circuits_open.set(i64::try_from(stores).unwrap_or(i64::MAX));
    }

    /// Counts a token refresh.
    pub fn token_refresh(&self, result: &str) {
        self.token_refreshes.with_label_values(&[result]).inc();
    }

    /// Counts a webhook; `event` is one of a few known names.
    pub fn webhook(&self, event: &str, result: &str) {
        self.webhooks.with_label_values(&[event, result]).inc();
    }

    /// Counts a try to deliver an event.
    pub fn event(&self, result: &str) {
        self.events.with_label_values(&[result]).inc();
    }

    /// The text that Prometheus scrapes: what this process counted, and what the database told for this scrape; `None`
    /// where it did not answer.
    ///
    /// # Errors
    /// When a metric cannot be written as text; never in practice.
    pub fn render(&self, gauges: Option<&Gauges>) -> Result<String, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(database::gather(gauges)?);
        TextEncoder::new().encode_to_string(&families)
    }
}
