//! `demo`: the whole thing on one machine, offline. A simulated Salla with merchants whose webhooks were
//! lost, a local copy that has drifted accordingly, one sweep, and a look whether the copies now agree.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use chrono::{TimeDelta, Utc};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Statement, TransactionTrait};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;

use super::{Exit, run, signal, table::table};
use crate::{
    app::{self, Services},
    config::Config,
    domain::{Discrepancy, MerchantId, Request},
    reconcile::{
        Ended,
        ports::{Actor, MerchantRegistry, Registration, RunHistory, Tokens},
    },
    salla::OnOpenCircuit,
    simulator::{Order, Shop, Simulator, World},
    telemetry, vault,
};

/// What `demo` takes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n\x20 salla-reconciler demo\n\x20 salla-reconciler demo --once --merchants 20 --orders 2000\n\nEnvironment: none. The demo is the same everywhere."
)]
pub struct Args {
    /// Number of merchants.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    merchants: u16,
    /// Orders per merchant.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    orders: u32,
    /// Address of the dashboard after the sweep.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    listen: SocketAddr,
    /// Exit after the sweep.
    #[arg(long)]
    once: bool,
}

/// So many corrections are shown.
const EXAMPLES: usize = 3;

/// What a merchant lost, by design.
#[derive(Debug, Clone, Copy, Default)]
struct Lost {
    creations: u64,
    updates: u64,
}

/// Shows it all.
pub async fn demo(args: Args) -> anyhow::Result<Exit> {
    let mut stop = Box::pin(signal::termination()?);
    let folder = tempfile::tempdir()?;
    let mut simulator = Simulator::start(World::new([])).await?;
    let config = config(&simulator, folder.path(), args.listen)?;
    // A newcomer needs only the table. The log lines are for operators.
    let telemetry = telemetry::init(&config.telemetry, telemetry::WARNINGS)?;
    // Before the work, so that a taken port is known at once.
    let listener = if args.once { None } else { Some(app::bind(&config).await?) };
    let services = Services::build(&config, OnOpenCircuit::Wait).await?;

    say!(
        "A simulated Salla with {} merchant(s) of {} orders each. Some webhooks were lost.",
        args.merchants,
        args.orders
    );
    let local = Database::connect(config.database.url.expose_secret()).await?;
    let lost = tokio::select! {
        lost = drift(&services, &local, &simulator, &args) => lost?,
        () = &mut stop => anyhow::bail!("stopped"),
    };
    let mut merchants: Vec<MerchantId> = lost.keys().copied().map(MerchantId).collect();
    merchants.sort_unstable();
    let halt = CancellationToken::new();
    let ended = tokio::select! {
        ended = run::sweep(&config, &services, (&merchants, Request::default()), &halt, |_| {}) => ended,
        () = &mut stop => anyhow::bail!("stopped"),
    };
    say!("{}", found(&ended, &lost));
    for example in examples(&services, &ended).await? {
        say!("{example}");
    }
    let as_expected = corrected(&ended, &lost) && equal(&local, &simulator).await?;
    local.close().await?;
    if !as_expected {
        anyhow::bail!("the database differs from the simulated Salla: this is a defect");
    }
    say!("Checked: every order of every merchant is now the same as in Salla.");
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

/// Makes the merchants and their drifted copies, and registers them.
async fn drift(
    services: &Services,
    local: &DatabaseConnection,
    simulator: &Simulator,
    args: &Args,
) -> anyhow::Result<HashMap<i64, Lost>> {
    let mut lost = HashMap::new();
    for merchant_id in (1001..).take(usize::from(args.merchants)) {
        let (shop, what) = drifted(local, merchant_id, args.orders as usize).await?;
        register(services, &shop).await?;
        backdate_registration_and_watermark(local, merchant_id).await?;
        simulator.world().shops.insert(merchant_id, shop);
        lost.insert(merchant_id, what);
    }
    Ok(lost)
}

/// The defaults, pointed at the simulator and at a file in `folder`; nothing of the environment counts.
fn config(simulator: &Simulator, folder: &std::path::Path, listen: SocketAddr) -> anyhow::Result<Config> {
    let mut config = Config::defaults()?;
    config.database.url = format!("sqlite://{}?mode=rwc", folder.join("demo.db").display()).into();
    config.salla.api_url = simulator.api_url().parse()?;
    config.salla.token_url = simulator.token_url().parse()?;
    config.salla.requests_per_minute = 6_000;
    config.salla.max_requests_per_minute = 600_000;
    config.salla.customer_requests_per_10_minutes = 600_000;
    config.vault.keys = vault::generate("demo");
    config.http.listen = listen;
    config.http.api_token = SecretString::default();
    Ok(config)
}

async fn register(services: &Services, shop: &Shop) -> anyhow::Result<()> {
    let (access, refresh) = shop.tokens();
    let merchant_id = MerchantId(shop.merchant_id);
    let ends = Some(Utc::now() + TimeDelta::days(14));
    let tokens = Tokens::new(access.into(), Some(refresh.into()), ends)?;
    services.vault.register(&Registration::new(merchant_id, Some(shop.name.clone()), tokens)?, &Actor::Local).await?;
    Ok(())
}

/// A merchant that was registered a month ago, and whose last run was a day ago: all differences are drift.
async fn backdate_registration_and_watermark(local: &DatabaseConnection, merchant_id: i64) -> anyhow::Result<()> {
    let now = Utc::now();
    for (sql, at) in [
        ("UPDATE merchants SET created_at = $2 WHERE merchant_id = $1", now - TimeDelta::days(30)),
        (
            "INSERT INTO watermarks (merchant_id, resource, watermark) VALUES ($1, 'orders', $2)",
            now - TimeDelta::days(1),
        ),
    ] {
        let values: [sea_orm::Value; 2] = [merchant_id.into(), at.into()];
        local.execute_raw(Statement::from_sql_and_values(local.get_database_backend(), sql, values)).await?;
    }
    Ok(())
}

/// A merchant, and the local copy of it as a webhook consumer that missed some events left it: one change
/// in the last day in four was lost.
async fn drifted(local: &DatabaseConnection, merchant_id: i64, orders: usize) -> anyhow::Result<(Shop, Lost)> {
    let now = Utc::now();
    let mut shop = Shop::seeded(merchant_id, orders, now);
    let mut copy = shop.orders.clone();
    let mut lost = Lost::default();
    for number in 0..=orders / 10 {
        let at = now - TimeDelta::minutes(i64::try_from(number).unwrap_or(0) % 1300 + 1);
        let new = number % 3 == 0;
        let id = if new { shop.place(at) } else { shop.orders[number].id };
        if !new {
            shop.touch(id, at);
        }
        let missed = number % 4 == 0;
        match (new, missed) {
            (true, true) => lost.creations += 1,
            (false, true) => lost.updates += 1,
            (_, false) => {
                copy.retain(|order| order.id != id);
                copy.extend(shop.orders.iter().find(|order| order.id == id).cloned());
            }
        }
    }
    let txn = local.begin().await?;
    for order in &copy {
        consume(&txn, merchant_id, order).await?;
    }
    txn.commit().await?;
    Ok((shop, lost))
}

/// What a webhook consumer writes: the contract's columns and no others.
async fn consume(db: &impl ConnectionTrait, merchant_id: i64, order: &Order) -> anyhow::Result<()> {
    let sql = "INSERT INTO orders (merchant_id, salla_order_id, reference_id, status, currency, total_amount, \
               salla_created_at, salla_updated_at, payload) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let total = format!("{}.{:02}", order.total / 100, order.total % 100);
    let values: [sea_orm::Value; 9] = [
        merchant_id.into(),
        order.id.into(),
        order.reference_id.into(),
        order.slug().into(),
        order.currency.into(),
        total.into(),
        order.created_at.into(),
        order.updated_at.into(),
        order.json().to_string().into(),
    ];
    db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    Ok(())
}

/// What was lost, and what was found.
fn found(ended: &[Ended], lost: &HashMap<i64, Lost>) -> String {
    let head = ["merchant", "status", "missing", "created", "stale", "updated", "unchanged", "requests"];
    let mut rows: Vec<Vec<String>> = ended
        .iter()
        .filter_map(Ended::run)
        .map(|run| {
            let lost = lost.get(&run.merchant_id.0).copied().unwrap_or_default();
            let numbers = [
                lost.creations,
                run.totals.created,
                lost.updates,
                run.totals.updated,
                run.totals.unchanged,
                run.requests,
            ];
            let mut row = vec![run.merchant_id.to_string(), run.status.to_string()];
            row.extend(numbers.map(|number| number.to_string()));
            row
        })
        .collect();
    rows.sort();
    table(&head, rows)
}

/// Some corrections of the first run, with the values before and after.
async fn examples(services: &Services, ended: &[Ended]) -> anyhow::Result<Vec<String>> {
    let Some(run) = ended.iter().find_map(Ended::run) else {
        return Ok(Vec::new());
    };
    let found = RunHistory::discrepancies(&services.store, run.run_id, 0, 100).await?;
    let corrected = found.into_iter().map(|found| found.discrepancy).filter(|one| !one.changes.is_empty());
    let example = |one: Discrepancy| {
        let id = one.salla_id.unwrap_or_default();
        let changes: Vec<String> = one.changes.iter().map(ToString::to_string).collect();
        format!("Corrected: order {id} of merchant {}, {}", run.merchant_id, changes.join(", "))
    };
    Ok(corrected.take(EXAMPLES).map(example).collect())
}

fn corrected(ended: &[Ended], lost: &HashMap<i64, Lost>) -> bool {
    ended.len() == lost.len()
        && ended.iter().all(|ended| {
            ended.run().is_some_and(|run| {
                let lost = lost.get(&run.merchant_id.0).copied().unwrap_or_default();
                run.totals.created == lost.creations && run.totals.updated == lost.updates
            })
        })
}

/// Compares every order's every column, and its payload.
async fn equal(local: &DatabaseConnection, simulator: &Simulator) -> anyhow::Result<bool> {
    let sql = "SELECT merchant_id, salla_order_id, status, total_amount, salla_updated_at, payload FROM orders";
    let rows = local.query_all_raw(Statement::from_string(local.get_database_backend(), sql)).await?;
    let world = simulator.world();
    let theirs: HashMap<(i64, i64), &Order> = world
        .shops
        .values()
        .flat_map(|shop| shop.orders.iter().map(|order| ((shop.merchant_id, order.id), order)))
        .collect();
    if rows.len() != theirs.len() {
        return Ok(false);
    }
    for row in rows {
        let key = (row.try_get("", "merchant_id")?, row.try_get("", "salla_order_id")?);
        let Some(order) = theirs.get(&key) else { return Ok(false) };
        let status: String = row.try_get("", "status")?;
        let total: String = row.try_get("", "total_amount")?;
        let updated_at: chrono::DateTime<Utc> = row.try_get("", "salla_updated_at")?;
        let payload: String = row.try_get("", "payload")?;
        let same = status == order.slug()
            && total == format!("{}.{:02}", order.total / 100, order.total % 100)
            && updated_at == order.updated_at
            && serde_json::from_str::<serde_json::Value>(&payload)? == order.json();
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}
