//! `demo` shows a sweep offline: a simulated Salla, lost webhooks, a stale local copy, one run per merchant, and a
//! comparison.

mod comparison;
mod history;
mod stores;

use std::{net::SocketAddr, time::Duration};

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;

use self::stores::{DemoStore, Situation};
use super::{Exit, run, signal, simulate::Listing, table::table};
use crate::{
    app::{self, Services},
    config::Config,
    domain::{self, Discrepancy, MerchantId, Request, Resource, Run, RunStatus, Totals},
    reconcile::{
        Ended,
        ports::{Actor, MerchantRegistry, Registration, RunHistory},
    },
    salla::OnOpenCircuit,
    schedule::Calendar,
    simulator::{Fault, Shop, Simulator, World},
    telemetry, vault,
};

/// What `demo` takes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n\x20 salla-reconciler demo\n\x20 salla-reconciler demo --once --merchants 20 --orders 2000 --seed 7\n\x20 salla-reconciler demo --listing sort\n\nEnvironment: none. The demo also ignores --config."
)]
pub struct Args {
    /// Number of merchants.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1000))]
    merchants: u16,
    /// Orders per merchant.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    orders: u32,
    /// Address of the dashboard after the sweep, on this machine only.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    listen: SocketAddr,
    /// Exit after the sweep.
    #[arg(long)]
    once: bool,
    /// How the lists of orders can be read. With `filter`, merchant 1002 is an exception: its list has no filter.
    #[arg(long, default_value = "filter", value_enum)]
    listing: Listing,
    /// The same seed gives the same orders, losses and history.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const MAX_CORRECTIONS_SHOWN: usize = 3;

/// The last sweep of the schedule was so long ago. Some webhooks were lost since then.
const SINCE_LAST_SWEEP: TimeDelta = TimeDelta::hours(8);

/// Products, customers and order statuses of each store.
const PRODUCTS: usize = 12;
const CUSTOMERS: usize = 20;
const STATUSES: usize = 4;

/// Shows it all.
pub async fn demo(args: Args) -> anyhow::Result<Exit> {
    if !args.listen.ip().is_loopback() {
        anyhow::bail!(
            "--listen {}: the demo has no API token; use an address of this machine such as 127.0.0.1:8080",
            args.listen
        );
    }
    let mut stop = Box::pin(signal::termination()?);
    let folder = tempfile::tempdir()?;
    let mut simulator = Simulator::start(World::new([])).await?;
    let config = config(&simulator, folder.path(), args.listen)?;
    // A newcomer needs only the table. RUST_LOG shows the log.
    let telemetry = telemetry::init(&config.telemetry, telemetry::NOTHING)?;
    // Before the work, so that a taken port is known at once.
    let listener = if args.once { None } else { Some(app::bind(&config).await?) };
    let services = Services::build(&config, OnOpenCircuit::Wait).await?;

    say!(
        "Merchants of a simulated Salla: {}. Orders per merchant: {}, and a quarter without a filter. \
         The database has a history of thirty nights. Since the last one, some webhooks were lost.",
        args.merchants,
        args.orders
    );
    let local = Database::connect(config.database.url.expose_secret()).await?;
    let stores = tokio::select! {
        stores = prepare(&config, &services, &local, &simulator, &args) => stores?,
        () = &mut stop => anyhow::bail!("stopped"),
    };
    let merchants: Vec<MerchantId> = stores.iter().map(|store| MerchantId(store.merchant_id)).collect();
    let halt = CancellationToken::new();
    let ended = tokio::select! {
        ended = run::sweep(&config, &services, &merchants, Request::default(), &halt, |_| {}) => ended,
        () = &mut stop => anyhow::bail!("stopped"),
    };
    say!("{}", found(&ended, &stores));
    for example in examples(&services, &ended).await? {
        say!("{example}");
    }
    if !is_as_expected(&ended, &stores) {
        anyhow::bail!("the runs did not find what was lost: this is a defect");
    }
    comparison::compare(&local, &stores).await?;
    local.close().await?;
    say!("Checked: for each merchant whose tokens Salla accepts, all readable orders are now the same as in Salla.");
    if let Some(listener) = listener {
        let address = listener.local_addr()?;
        say!(
            "New orders arrive, and no webhook. Serving until Ctrl-C:\n  http://{address}/   (the dashboard)\n  http://{address}/runs\n  http://{address}/metrics\n  curl -X POST http://{address}/runs -d '{{\"merchant_id\":1001}}'"
        );
        simulator.drift(Duration::from_secs(5));
        app::serve(&config, services, listener, stop).await?;
    } else {
        services.store.close().await?;
    }
    telemetry.shutdown().await;
    Ok(Exit::Success)
}

/// Creates the stores with their stale copies and their history, and registers them.
async fn prepare(
    config: &Config,
    services: &Services,
    local: &DatabaseConnection,
    simulator: &Simulator,
    args: &Args,
) -> anyhow::Result<Vec<DemoStore>> {
    let calendar = Calendar::new(config.schedule.cron.clone(), config.schedule.timezone);
    let nights = history::nights(&calendar);
    let since = nights.last().copied().unwrap_or_else(|| Utc::now() - SINCE_LAST_SWEEP);
    args.listing.apply(&mut simulator.world());
    let mut stores = Vec::new();
    for (number, merchant_id) in (0..usize::from(args.merchants)).zip(1001..) {
        let situation = Situation::of(number);
        // Without a filter, the details of each order are read once.
        let orders = if situation == Situation::NoFilter { args.orders.div_ceil(4) } else { args.orders };
        let seed = args.seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
        let now = Utc::now();
        let shop = Shop::with_seed(merchant_id, orders as usize, now, seed);
        let shop = shop.stocked(PRODUCTS, now).visited(CUSTOMERS, now).with_statuses(STATUSES, now);
        let listing = listing(args.listing, situation);
        let (store, mut shop) = DemoStore::drifted(local, shop, situation, listing, since, seed).await?;
        register(services, &store, &mut shop).await?;
        backdate(local, merchant_id, since).await?;
        let mut world = simulator.world();
        if situation == Situation::RateLimited {
            world.script(merchant_id, [Fault::too_many("1")]);
        }
        world.shops.insert(merchant_id, shop);
        stores.push(store);
    }
    history::write(local, &calendar, &nights, &stores, args.seed).await?;
    Ok(stores)
}

/// How the changed orders of a store can be found.
fn listing(asked: Listing, situation: Situation) -> domain::Listing {
    match asked {
        Listing::Filter if situation == Situation::NoFilter => domain::Listing::Scan,
        Listing::Filter => domain::Listing::Filter,
        Listing::Sort => domain::Listing::Sort,
        Listing::Scan => domain::Listing::Scan,
    }
}

/// The defaults, pointed at the simulator and at a file in `folder`; nothing of the environment counts.
fn config(simulator: &Simulator, folder: &std::path::Path, listen: SocketAddr) -> anyhow::Result<Config> {
    let mut config = Config::defaults()?;
    config.database.url = format!("sqlite://{}?mode=rwc", folder.join("demo.db").display()).into();
    config.salla.api_url = simulator.api_url().parse()?;
    config.salla.token_url = simulator.token_url().parse()?;
    config.salla.requests_per_minute = 60_000;
    config.salla.max_requests_per_minute = 600_000;
    config.salla.customer_requests_per_10_minutes = 600_000;
    config.reconcile.resources = Resource::ALL.iter().copied().collect();
    config.reconcile.order_items = true;
    config.salla.client_id = "demo".to_owned();
    config.salla.client_secret = SecretString::from("demo");
    let hour = (Utc::now() - SINCE_LAST_SWEEP).with_timezone(&config.schedule.timezone).hour();
    config.schedule.cron = format!("0 0 {hour} * * *").parse().map_err(anyhow::Error::msg)?;
    config.vault.keys = vault::generate("demo");
    config.http.listen = listen;
    config.http.api_token = SecretString::default();
    Ok(config)
}

async fn register(services: &Services, store: &DemoStore, shop: &mut Shop) -> anyhow::Result<()> {
    let tokens = store.tokens(shop)?;
    let (merchant_id, name) = (MerchantId(store.merchant_id), shop.name.clone());
    services.vault.register(&Registration::new(merchant_id, Some(name), tokens)?, &Actor::Local).await?;
    Ok(())
}

/// A merchant that was registered before its history, and whose last run was at an instant: all differences are drift.
async fn backdate(local: &DatabaseConnection, merchant_id: i64, last_run: DateTime<Utc>) -> anyhow::Result<()> {
    for (sql, at) in [
        ("UPDATE merchants SET created_at = $2 WHERE merchant_id = $1", Utc::now() - TimeDelta::days(40)),
        ("INSERT INTO watermarks (merchant_id, resource, watermark) VALUES ($1, 'orders', $2)", last_run),
    ] {
        let values: [sea_orm::Value; 2] = [merchant_id.into(), at.into()];
        local.execute_raw(Statement::from_sql_and_values(local.get_database_backend(), sql, values)).await?;
    }
    Ok(())
}

/// The result of a run for orders.
fn orders(run: &Run) -> Totals {
    let of_orders = run.resource_results.iter().find(|result| result.resource == Resource::Orders);
    of_orders.map(|result| result.totals).unwrap_or_default()
}

fn run_of<'a>(ended: &'a [Ended], store: &DemoStore) -> Option<&'a Run> {
    ended.iter().filter_map(Ended::run).find(|run| run.merchant_id.0 == store.merchant_id)
}

/// A table of the lost changes, and of the changes that the runs found.
fn found(ended: &[Ended], stores: &[DemoStore]) -> String {
    let head = [
        "merchant",
        "situation",
        "status",
        "missing",
        "created",
        "stale",
        "updated",
        "skipped",
        "unchanged",
        "requests",
    ];
    let row = |store: &DemoStore| {
        let run = run_of(ended, store)?;
        let (lost, totals) = (store.lost, orders(run));
        let numbers = [
            lost.creations,
            totals.created,
            lost.updates,
            totals.updated,
            totals.skipped,
            totals.unchanged,
            run.requests,
        ];
        let words = [run.merchant_id.to_string(), store.situation.text().to_owned(), run.status.to_string()];
        Some(words.into_iter().chain(numbers.map(|number| number.to_string())).collect())
    };
    table(&head, stores.iter().filter_map(row))
}

/// Some corrections, with the values before and after.
async fn examples(services: &Services, ended: &[Ended]) -> anyhow::Result<Vec<String>> {
    let mut runs: Vec<&Run> = ended.iter().filter_map(Ended::run).collect();
    runs.sort_by_key(|run| run.merchant_id);
    let mut examples = Vec::new();
    for run in runs {
        let found = RunHistory::discrepancies(&services.store, run.run_id, 0, 100).await?;
        let of_orders = found.into_iter().map(|found| found.discrepancy).filter(|one| one.resource == Resource::Orders);
        examples.extend(of_orders.filter_map(|one| example(run.merchant_id, &one)));
        if examples.len() >= MAX_CORRECTIONS_SHOWN {
            break;
        }
    }
    // Deletions are found last, and are rare.
    examples.sort_by_key(|example| !example.starts_with("Marked"));
    examples.truncate(MAX_CORRECTIONS_SHOWN);
    Ok(examples)
}

/// A correction of values, or a deletion.
fn example(merchant: MerchantId, one: &Discrepancy) -> Option<String> {
    let id = one.salla_id?;
    if one.fields == ["deleted_at"] {
        return Some(format!("Marked as deleted: order {id} of merchant {merchant}"));
    }
    let changes: Vec<String> = one.changes.iter().map(ToString::to_string).collect();
    (!changes.is_empty()).then(|| format!("Corrected: order {id} of merchant {merchant}, {}", changes.join(", ")))
}

/// Whether the run of each store found what was lost, and the run of a store that refuses the tokens failed.
fn is_as_expected(ended: &[Ended], stores: &[DemoStore]) -> bool {
    ended.len() == stores.len()
        && stores.iter().all(|store| {
            run_of(ended, store).is_some_and(|run| {
                if store.situation == Situation::Unauthorized {
                    return run.status == RunStatus::Failed;
                }
                let (lost, totals) = (store.lost, orders(run));
                totals.created == lost.creations && totals.updated == lost.updates && totals.skipped == lost.unreadable
            })
        })
}
