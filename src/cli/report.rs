//! `report`: what was lost over a period.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat, Utc};

use super::{Exit, table::table};
use crate::{
    app::open_store,
    config::Config,
    domain::{Drift, MerchantId, Period},
    reconcile::{
        self,
        ports::{DriftFilter, ScheduleStore},
    },
};

/// What `report` takes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The report covers runs that are still stored (retention.runs). Records that the first run of a merchant or a full run \
    corrects count as backfilled, and not as lost webhooks.\n\n\
    Environment: SALLA_RECONCILER__DATABASE__URL, __DATABASE__MIGRATE\n\n\
    Examples:\n  salla-reconciler report\n  salla-reconciler report --merchant 1001 --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z\n  \
    salla-reconciler report --json"
)]
pub struct Args {
    /// Merchant id. Default: every merchant with a run in the period.
    #[arg(long, value_name = "ID")]
    merchant: Option<MerchantId>,
    /// Start of the period, in RFC 3339. Default: 30 days before its end.
    #[arg(long, value_name = "T", value_parser = super::instant)]
    since: Option<DateTime<Utc>>,
    /// End of the period, in RFC 3339. Default: now.
    #[arg(long, value_name = "T", value_parser = super::instant)]
    until: Option<DateTime<Utc>>,
    /// Print one JSON object per merchant instead of a table.
    #[arg(long)]
    json: bool,
}

/// Tells what the runs of the period found.
pub async fn report(config: &Config, args: Args) -> anyhow::Result<Exit> {
    if let Err(error) = Period::new(args.since, args.until, Utc::now()) {
        use clap::CommandFactory;
        let mut command = super::Cli::command();
        command.error(clap::error::ErrorKind::ValueValidation, error).exit();
    }
    let store = open_store(config).await?;
    // Runs end by the database's clock.
    let period = Period::new(args.since, args.until, store.now().await?)?;
    let drift = reconcile::report(&store, DriftFilter { merchant: args.merchant, period }).await?;
    store.close().await?;
    let drift = drift.with_context(|| {
        let id = args.merchant.map(|id| id.to_string()).unwrap_or_default();
        format!("merchant {id} is not registered; `merchants list` shows the registered ones")
    })?;
    if args.json {
        for drift in &drift {
            say!("{}", serde_json::to_string(drift)?);
        }
    } else {
        say!("{}\n{}", rows(&drift), lost(&drift, period));
    }
    Ok(Exit::Success)
}

fn rows(drift: &[Drift]) -> String {
    let head = ["merchant", "missing", "stale", "deleted", "backfilled", "median delay", "longest delay", "runs"];
    let rows = drift.iter().map(|drift| {
        vec![
            drift.merchant_id.to_string(),
            drift.missing.to_string(),
            drift.stale.to_string(),
            drift.deleted.to_string(),
            (drift.backfilled.missing + drift.backfilled.stale).to_string(),
            span(drift.lateness.median_seconds),
            span(drift.lateness.max_seconds),
            drift.runs.total().to_string(),
        ]
    });
    table(&head, rows)
}

/// Its two largest units; the rest is of no interest.
fn span(seconds: Option<u64>) -> String {
    seconds.map_or_else(
        || "-".to_owned(),
        |seconds| {
            let whole = humantime::format_duration(Duration::from_secs(seconds)).to_string();
            whole.split(' ').take(2).collect::<Vec<_>>().join(" ")
        },
    )
}

/// One line for all of them.
fn lost(drift: &[Drift], period: Period) -> String {
    let mut events: BTreeMap<&str, u64> = BTreeMap::new();
    for (event, count) in drift.iter().flat_map(|drift| &drift.lost_webhooks) {
        *events.entry(event).or_default() += count;
    }
    let events: Vec<String> = events.into_iter().map(|(event, count)| format!("{event} {count}")).collect();
    let events = if events.is_empty() { "none".to_owned() } else { events.join(", ") };
    let [since, until] = [period.since, period.until].map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
    format!("Lost webhooks, {since} to {until}: {events}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        assert_eq!(span(None), "-");
        assert_eq!(span(Some(0)), "0s");
        assert_eq!(span(Some(3_725)), "1h 2m");
        assert_eq!(span(Some(9 * 86_400 + 3_725)), "9days 1h");
    }
}
