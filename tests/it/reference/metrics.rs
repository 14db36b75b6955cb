//! `docs/reference/metrics.md`, from `/metrics` of a daemon.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{assert_current, cell};
use crate::support::{Engine, Site, server::Server, site::shop, until};

const HEAD: &str = "# Metrics\n\nGenerated from `GET /metrics`. No label has a merchant id. Metrics of the database are read at each scrape, and every\n\
    replica reports the same values: take their `max`, never their `sum`. `process_*` metrics of the process are also there.\n\n\
    [Runbook](../runbook.md) has the alerts on these metrics, for example\n[merchants_overdue](../runbook.md#sallareconcilermerchantsbehind).\n";

/// The name of a family behind the prefix.
const PREFIX: &str = "salla_reconciler_";

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_metrics_is_current() {
    // A server with logical replication, so that every metric is there.
    let server = Server::start(Engine::Postgres16.major()).await;
    let mut site = Site::on(Engine::Postgres16, server.url(), [shop(1001, 0, 3)]).await;
    let slot = "SELECT CAST(pg_create_logical_replication_slot('reference', 'pgoutput') AS text)";
    site.database.text(slot).await;
    site.set("CDC__SLOT", "reference");
    site.set("CDC__WEBHOOK_URL", "http://127.0.0.1:9/");
    site.set("CDC__WEBHOOK_SECRET", "reference-canary-0123");
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("merchant_id=1001", |run| run["status"] == "succeeded").await;
    let scrape = async || daemon.get("/metrics").await.1.as_str().unwrap_or_default().to_owned();
    until("the lag of the slot is known", async || scrape().await.contains("replication_slot_lag_bytes")).await;
    let families = families(&scrape().await);
    let mut text = HEAD.to_owned();
    let (of_database, of_process): (Vec<_>, Vec<_>) =
        families.iter().partition(|(name, _)| OF_THE_DATABASE.contains(&name.as_str()));
    for (title, families) in [("Of one process", of_process), ("Of the database", of_database)] {
        let _ = write!(text, "\n## {title}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
        for (name, family) in families {
            let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(
                text,
                "| `{PREFIX}{name}` | {} | {} | {} |",
                family.kind,
                labels.join(", "),
                cell(&family.help)
            );
        }
    }
    assert_current("metrics.md", &text);
}

const OF_THE_DATABASE: [&str; 13] = [
    "database_up",
    "events_pending",
    "global_pause",
    "last_success_timestamp_seconds",
    "last_sweep_timestamp_seconds",
    "merchants",
    "merchants_overdue",
    "oldest_pending_event_timestamp_seconds",
    "oldest_watermark_timestamp_seconds",
    "replication_slot_lag_bytes",
    "runs_active",
    "runs_due",
    "runs_queued",
];

#[derive(Debug, Default)]
struct Family {
    help: String,
    kind: String,
    labels: Vec<String>,
}

/// The families of the program in a text of Prometheus, by name.
fn families(scrape: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in scrape.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let Some(name) = name.strip_prefix(PREFIX) else { continue };
            families.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let Some(name) = name.strip_prefix(PREFIX) else { continue };
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((name, labels)) = line.split_once('{') {
            let name = name.strip_prefix(PREFIX).unwrap_or_default();
            let Some(family) = families.get_mut(name) else { continue };
            let labels = labels.split_once('}').map_or("", |(labels, _)| labels);
            for label in labels.split("\",").filter_map(|label| label.split_once('=')).map(|(label, _)| label) {
                if !family.labels.iter().any(|known| known == label) {
                    family.labels.push(label.to_owned());
                }
            }
        }
    }
    families
}
