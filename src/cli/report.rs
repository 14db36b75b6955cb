//! `report`: the changes that were lost over a period.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat, Utc};

use super::{Exit, table::table};
use crate::{
    app::open_store,
    config::Config,
    domain::{Discrepancy, Drift, MerchantId, Period, plain},
    reconcile::{
        self,
        ports::{CorrectedRecord, DriftFilter, RunHistory, ScheduleStore},
    },
};

/// Corrected records that are read from the database at once.
const RECORDS_AT_ONCE: u64 = 1_000;

/// What `report` takes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The report covers runs that are still stored (retention.runs). Records that the first run of a merchant or a full run \
    corrects count as backfilled, and not as lost webhooks.\n\n\
    Environment: SALLA_RECONCILER__DATABASE__URL, __DATABASE__MIGRATE\n\n\
    Examples:\n  salla-reconciler report\n  salla-reconciler report --merchant 1001 --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z\n  \
    salla-reconciler report --records --merchant 1001\n  salla-reconciler report --json"
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
    /// List the records behind `missing` and `stale` with their values before and after, instead of totals.
    #[arg(long)]
    records: bool,
    /// Print one JSON object per merchant or record.
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
    let filter = DriftFilter { merchant: args.merchant, period };
    let drift = reconcile::report(&store, filter).await?;
    if args.records && drift.is_some() {
        list_records(&store, filter, args.json).await?;
        store.close().await?;
        return Ok(Exit::Success);
    }
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

/// Prints the corrected records, a line each, in bounded memory.
async fn list_records(store: &impl RunHistory, filter: DriftFilter, as_json: bool) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        let records = store.corrected_records(filter, after, RECORDS_AT_ONCE).await?;
        let Some(last) = records.last() else {
            return Ok(());
        };
        after = last.id;
        for record in &records {
            if as_json {
                say!("{}", serde_json::to_string(record)?);
            } else {
                say!("{}", line(record));
            }
        }
    }
}

/// One record: when, which, and what was wrong.
fn line(CorrectedRecord { merchant_id, found, .. }: &CorrectedRecord) -> String {
    let Discrepancy { resource, salla_id, kind, fields, changes, .. } = &found.discrepancy;
    let with_value = |field: &String| {
        let change = changes.iter().find(|change| change.field == *field);
        plain(&change.map_or_else(|| field.clone(), ToString::to_string))
    };
    let what: Vec<String> = fields.iter().map(with_value).collect();
    let what = if what.is_empty() { String::new() } else { format!(": {}", what.join(", ")) };
    let late = found.late_seconds.map_or_else(String::new, |seconds| format!(" ({} late)", span(Some(seconds))));
    let at = found.found_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let id = salla_id.map_or_else(String::new, |id| format!(" {id}"));
    format!("{at} merchant {merchant_id} {}{id} {kind}{what}{late}", resource.one())
}

fn rows(drift: &[Drift]) -> String {
    let head = ["merchant", "missing", "stale", "deleted", "backfilled", "median delay", "longest delay", "runs"];
    let rows = drift.iter().map(|drift| {
        vec![
            drift.merchant_id.to_string(),
            drift.missing.to_string(),
            drift.stale.to_string(),
            drift.deleted.to_string(),
            drift.backfilled.total().to_string(),
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
