//! Thirty nights of runs that the demo did not execute: the plots, the report and the pages have something to show.

use chrono::{DateTime, TimeDelta, Utc};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, Statement, TransactionTrait, Value, prelude::Uuid,
};
use serde_json::json;

use super::stores::DemoStore;
use crate::{
    domain::{Listing, MerchantId, Resource, ResourceRun, RunStatus, Totals, Window},
    schedule::Calendar,
};

/// How many nights there are, the last one included.
const NIGHTS: i64 = 30;

/// One run in so many found Salla unavailable.
const FAILS: u32 = 90;

/// A run of the history.
struct PastRun {
    merchant: MerchantId,
    id: Uuid,
    window: Window,
    started_at: DateTime<Utc>,
    duration: TimeDelta,
    totals: Totals,
    status: RunStatus,
}

/// The times of the last thirty sweeps, the oldest first.
pub fn nights(calendar: &Calendar) -> Vec<DateTime<Utc>> {
    let until = Utc::now();
    let first = calendar.next_after(until - TimeDelta::days(NIGHTS));
    std::iter::successors(first, |night| calendar.next_after(*night)).take_while(|night| *night <= until).collect()
}

/// Stores a sweep for each night, with its runs and what they found.
pub async fn write(
    local: &DatabaseConnection,
    (calendar, nights): (&Calendar, &[DateTime<Utc>]),
    stores: &[DemoStore],
    seed: u64,
) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let txn = local.begin().await?;
    for night in nights {
        let mut runs = Vec::new();
        for (number, store) in (0..).zip(stores) {
            let started_at = *night + TimeDelta::seconds(2 * number);
            runs.push(past_run(&mut rng, MerchantId(store.merchant_id), started_at));
        }
        for (run, store) in runs.iter().zip(stores) {
            write_run(&txn, run, *night).await?;
            write_discrepancies(&txn, &mut rng, run, store).await?;
        }
        write_sweep(&txn, &calendar.cron(), *night, &runs).await?;
    }
    txn.commit().await?;
    Ok(())
}

fn past_run(rng: &mut StdRng, merchant: MerchantId, started_at: DateTime<Utc>) -> PastRun {
    let status = if rng.random_ratio(1, FAILS) { RunStatus::Failed } else { RunStatus::Succeeded };
    let mut totals = Totals::default();
    if status == RunStatus::Succeeded {
        totals.created = rng.random_range(0..3);
        totals.updated = rng.random_range(0..4);
        totals.unchanged = rng.random_range(20..45);
        totals.fetched = totals.created + totals.updated + totals.unchanged;
    }
    let window = Window { since: started_at - TimeDelta::days(1), until: started_at };
    let millis = started_at.timestamp_millis().unsigned_abs();
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &rng.random()).into_uuid();
    let duration = TimeDelta::milliseconds(rng.random_range(1_500..6_000));
    PastRun { merchant, id, window, started_at, duration, totals, status }
}

async fn write_run(txn: &DatabaseTransaction, run: &PastRun, night: DateTime<Utc>) -> anyhow::Result<()> {
    let mut result = ResourceRun::waiting(Resource::Orders, Some(run.window));
    result.status = run.status;
    result.listing = Some(Listing::Filter);
    result.observed_at = Some(run.started_at);
    result.totals = run.totals;
    let failure = (run.status == RunStatus::Failed).then_some(("salla_unavailable", "Salla is unavailable: 503"));
    let requests: i64 = if failure.is_some() { 5 } else { 1 };
    let values: Vec<Value> = vec![
        run.id.into(),
        run.merchant.0.into(),
        run.status.as_str().into(),
        night.into(),
        run.window.since.into(),
        run.window.until.into(),
        serde_json::to_string(&[result])?.into(),
        i64::try_from(run.totals.fetched)?.into(),
        i64::try_from(run.totals.created)?.into(),
        i64::try_from(run.totals.updated)?.into(),
        i64::try_from(run.totals.unchanged)?.into(),
        requests.into(),
        failure.map(|(kind, _)| kind).into(),
        failure.map(|(_, message)| message).into(),
        run.started_at.into(),
        (run.started_at + run.duration).into(),
    ];
    let sql = "INSERT INTO runs (id, merchant_id, status, sweep_scheduled_for, window_since, window_until, resource_results, fetched, \
               created, updated, unchanged, requests, error_kind, error_message, started_at, finished_at, trigger, listing, queued_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, 'schedule', 'filter', $4)";
    execute(txn, sql, values).await
}

/// What the run found: orders that were missing, and orders with an old status.
async fn write_discrepancies(
    txn: &DatabaseTransaction,
    rng: &mut StdRng,
    run: &PastRun,
    store: &DemoStore,
) -> anyhow::Result<()> {
    let missing = (0..run.totals.created).map(|_| ("missing", json!([]), json!([])));
    let moves = [("under_review", "in_progress"), ("in_progress", "completed"), ("completed", "delivered")];
    let stale = (0..run.totals.updated).map(|number| {
        let (before, after) = moves[usize::try_from(number).unwrap_or(0) % moves.len()];
        ("stale", json!(["status", "payload"]), json!([{"field": "status", "before": before, "after": after}]))
    });
    for (kind, fields, changes) in missing.chain(stale) {
        let Some(order) = store.orders.get(rng.random_range(0..store.orders.len().max(1))) else { continue };
        let changed = run.started_at - TimeDelta::minutes(rng.random_range(20..1_400));
        let before = (kind == "stale").then(|| changed - TimeDelta::hours(rng.random_range(1..48)));
        let values: Vec<Value> = vec![
            run.id.into(),
            run.merchant.0.into(),
            order.id.into(),
            kind.into(),
            before.into(),
            changed.into(),
            fields.to_string().into(),
            changes.to_string().into(),
            (run.started_at + TimeDelta::seconds(1)).into(),
        ];
        let sql = "INSERT INTO discrepancies (run_id, merchant_id, resource, salla_id, kind, local_updated_at, remote_updated_at, fields, \
                   changes, found_at) VALUES ($1, $2, 'orders', $3, $4, $5, $6, $7, $8, $9)";
        execute(txn, sql, values).await?;
    }
    Ok(())
}

async fn write_sweep(
    txn: &DatabaseTransaction,
    cron: &str,
    night: DateTime<Utc>,
    runs: &[PastRun],
) -> anyhow::Result<()> {
    let mut counts: Vec<(RunStatus, u64, Totals)> = Vec::new();
    for status in [RunStatus::Succeeded, RunStatus::Failed] {
        let of_status = || runs.iter().filter(|run| run.status == status);
        let mut totals = Totals::default();
        of_status().for_each(|run| totals += run.totals);
        if of_status().count() > 0 {
            counts.push((status, of_status().count() as u64, totals));
        }
    }
    let ended_at = runs.last().map_or(night, |run| run.started_at + run.duration);
    let values: Vec<Value> = vec![
        night.into(),
        cron.into(),
        i64::try_from(runs.len())?.into(),
        serde_json::to_string(&counts)?.into(),
        ended_at.into(),
    ];
    let sql = "INSERT INTO sweeps (scheduled_for, cron, outcome, run_count, summary, started_at, ended_at) \
               VALUES ($1, $2, 'schedule', $3, $4, $1, $5)";
    execute(txn, sql, values).await
}

async fn execute(txn: &DatabaseTransaction, sql: &str, values: Vec<Value>) -> anyhow::Result<()> {
    txn.execute_raw(Statement::from_sql_and_values(txn.get_database_backend(), sql, values)).await?;
    Ok(())
}
