//! `run`: runs in the foreground.

use chrono::{DateTime, Utc};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::{sync::mpsc::unbounded_channel, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Exit, actor::actor, progress::show_progress, signal, table::table};
use crate::{
    app::Services,
    config::Config,
    domain::{MerchantId, Request, Resource, ResourceRun, RunStatus, Totals, Trigger},
    reconcile::{
        Ended, Heartbeat, OnStop, ProgressSender, Sweep,
        ports::{NewRun, RunHistory},
    },
    salla::OnOpenCircuit,
    store::Store,
};

/// What `run` takes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Environment: SALLA_RECONCILER__DATABASE__*, __TARGET__*, __VAULT__*, __SALLA__*, __RECONCILE__*, __PRIVACY__*, __CDC__*,\n__TELEMETRY__LOG_FORMAT\n\n\
    Examples:\n  salla-reconciler run\n  salla-reconciler run --merchant 1001 --full --dry-run\n  salla-reconciler run --since 2026-11-20T00:00:00Z --json"
)]
pub struct Args {
    /// Merchant id. Can be repeated. Default: every active merchant.
    #[arg(long = "merchant", value_name = "ID")]
    merchants: Vec<MerchantId>,
    /// Start of the window, in RFC 3339. Default: the watermark, and at least reconcile.lookback ago.
    #[arg(long, value_name = "T", value_parser = super::instant)]
    since: Option<DateTime<Utc>>,
    /// End of the window, in RFC 3339. Default: now.
    #[arg(long, value_name = "T", value_parser = super::instant)]
    until: Option<DateTime<Utc>>,
    /// Read all records instead of a window.
    #[arg(long, conflicts_with = "since")]
    full: bool,
    /// Show the differences, and write no record.
    #[arg(long)]
    dry_run: bool,
    /// Kind of record. Can be repeated. Default: reconcile.resources.
    #[arg(long = "resource", value_name = "NAME", value_parser = resource())]
    resources: Vec<Resource>,
    /// Print one JSON object per run instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs, and shows what came of it.
pub async fn run(config: &Config, args: Args) -> anyhow::Result<Exit> {
    let stop = signal::termination()?;
    let resources = args.resources.iter().copied().collect();
    let Args { since, until, full, dry_run, .. } = args;
    let request = Request { since, until, full, dry_run, resources };
    if let Err(error) = request.validate(Utc::now()) {
        use clap::CommandFactory;
        let mut command = super::Cli::command();
        command.error(clap::error::ErrorKind::ValueValidation, error).exit();
    }
    let services = Services::build(config, OnOpenCircuit::Fail).await?;
    let merchants = active(&services.store, args.merchants).await?;
    if merchants.is_empty() {
        eprintln!("no active merchant is registered; `salla-reconciler merchants import` registers some");
    }
    let halt = CancellationToken::new();
    let (ended, ()) = tokio::join!(
        sweep(config, &services, &merchants, request, &halt, |ended| if args.json {
            say!("{}", object(ended));
        }),
        async {
            tokio::select! {
                () = stop => halt.cancel(),
                () = halt.cancelled() => {}
            }
        }
    );
    services.salla.drain().await;
    services.store.close().await?;
    if !args.json && !ended.is_empty() {
        say!("{}", summary(&ended));
        if args.dry_run {
            say!("Dry run: no record was written.");
            expected_costs(&ended, config.salla.requests_per_minute).for_each(|cost| say!("{cost}"));
        }
    }
    // Stopped in the middle, some were never begun.
    Ok(if ended.len() < merchants.len() { Exit::Failure } else { exit(&ended) })
}

/// The listing and the requests of a run that writes, as its dry run shows them.
fn expected_costs(ended: &[Ended], limit: u32) -> impl Iterator<Item = String> {
    let runs = ended.iter().filter_map(Ended::run);
    runs.filter_map(move |run| {
        let (merchant, listing, requests) = (run.merchant_id, run.listing?, run.requests);
        let minutes = requests as f64 / f64::from(limit.max(1));
        Some(format!(
            "merchant {merchant}: listing {listing}, about {requests} requests, {minutes:.1} minutes at {limit} requests per minute"
        ))
    })
}

fn resource() -> impl TypedValueParser<Value = Resource> {
    PossibleValuesParser::new(Resource::ALL.iter().map(|resource| resource.as_str()))
        .try_map(|word| word.parse::<Resource>())
}

async fn active(store: &Store, named: Vec<MerchantId>) -> anyhow::Result<Vec<MerchantId>> {
    if !named.is_empty() {
        let mut distinct = Vec::new();
        for id in named {
            if !distinct.contains(&id) {
                distinct.push(id);
            }
        }
        return Ok(distinct);
    }
    let covered = store.covered_merchants().await?;
    for merchant in store.merchants().await? {
        if covered.binary_search(&merchant.merchant_id).is_err() {
            eprintln!("left out: merchant {} is {}", merchant.merchant_id, merchant.state.as_str());
        }
    }
    Ok(covered)
}

/// Runs each merchant, several at a time, renews the leases, and reports each end to `each`.
pub async fn sweep(
    config: &Config,
    services: &Services,
    merchants: &[MerchantId],
    request: Request,
    halt: &CancellationToken,
    each: impl Fn(&Ended),
) -> Vec<Ended> {
    let began = Instant::now();
    let (sender, events) = unbounded_channel();
    let runner = services.runner(config, ProgressSender::new(sender), OnStop::Cancel);
    let done = CancellationToken::new();
    let heartbeat = tokio::spawn({
        let (leases, store, done) = (runner.leases.clone(), services.store.clone(), done.clone());
        let pause = config.reconcile.lease / 4;
        async move { leases.keep(&store, pause, &Heartbeat::default(), &done).await }
    });
    let bar = tokio::spawn(show_progress(events, merchants.len() as u64));
    let by = actor();
    let new = |merchant| NewRun { merchant, trigger: Trigger::Cli, request, by: by.clone(), key: None };
    let ended: Vec<Ended> = stream::iter(merchants.iter().copied())
        .take_until(halt.cancelled())
        .map(|merchant| runner.foreground(new(merchant), halt))
        .buffer_unordered(config.reconcile.concurrency as usize)
        .inspect(|ended| each(ended))
        .collect()
        .await;
    halt.cancel();
    done.cancel();
    drop(runner);
    Sweep::log(&ended, began);
    let _ = tokio::join!(heartbeat, bar);
    ended
}

fn object(ended: &Ended) -> serde_json::Value {
    match ended {
        Ended::Run(run) => json!(run),
        Ended::Unrecorded { merchant, failure } => json!({
            "run_id": null, "merchant_id": merchant, "status": RunStatus::Failed, "trigger": Trigger::Cli,
            "window": null, "totals": Totals::default(), "resource_results": [], "error": failure, "waiting": null,
            "listing": null, "started_at": null, "finished_at": null,
        }),
        Ended::Elsewhere(merchant) => json!({
            "run_id": null, "merchant_id": merchant, "status": RunStatus::Failed, "trigger": Trigger::Cli,
            "window": null, "totals": Totals::default(), "resource_results": [],
            "error": {"kind": "lease_lost", "message": "another process has taken the run over"},
            "waiting": null, "listing": null, "started_at": null, "finished_at": null,
        }),
    }
}

/// Returns a table with one row per merchant. If a run covers several kinds of record, each kind
/// has a row below it. The reasons of all failed runs follow the table.
pub fn summary(ended: &[Ended]) -> String {
    let head = [
        "merchant",
        "status",
        "fetched",
        "created",
        "updated",
        "backfilled",
        "unchanged",
        "newer here",
        "skipped",
        "failed",
        "requests",
    ];
    let mut rows = Vec::new();
    let mut reasons = Vec::new();
    for ended in ended {
        let value = object(ended);
        let totals = ended.run().map(|run| run.totals).unwrap_or_default();
        let merchant = value["merchant_id"].to_string();
        let requests = ended.run().map_or(0, |run| run.requests).to_string();
        let mut of_merchant = vec![row([&merchant, value["status"].as_str().unwrap_or_default()], totals, requests)];
        let resource_runs = ended.run().map_or(&[][..], |run| &run.resource_results);
        if resource_runs.len() > 1 {
            let of_resource = |resource_run: &ResourceRun| {
                row([resource_run.resource.as_str(), resource_run.status.as_str()], resource_run.totals, String::new())
            };
            of_merchant.extend(resource_runs.iter().map(of_resource));
        }
        rows.push(of_merchant);
        if let (Some(kind), Some(message)) = (value["error"]["kind"].as_str(), value["error"]["message"].as_str()) {
            reasons.push(format!(
                "
merchant {merchant}: {kind}: {message}"
            ));
        }
    }
    rows.sort();
    reasons.sort();
    format!("{}{}", table(&head, rows.concat()), reasons.concat())
}

fn row(begins: [&str; 2], totals: Totals, requests: String) -> Vec<String> {
    let unchanged = totals.unchanged - totals.newer_locally;
    let counts = [
        totals.fetched,
        totals.created,
        totals.updated,
        totals.backfilled_total(),
        unchanged,
        totals.newer_locally,
        totals.skipped,
        totals.failed,
    ];
    let counts = counts.map(|count| count.to_string());
    begins.map(str::to_owned).into_iter().chain(counts).chain([requests]).collect()
}

/// The worst of them counts.
pub fn exit(ended: &[Ended]) -> Exit {
    let all =
        |status: &[RunStatus]| ended.iter().all(|ended| ended.run().is_some_and(|run| status.contains(&run.status)));
    if all(&[RunStatus::Succeeded]) {
        Exit::Success
    } else if all(&[RunStatus::Succeeded, RunStatus::Partial]) {
        Exit::Partial
    } else {
        Exit::Failure
    }
}
