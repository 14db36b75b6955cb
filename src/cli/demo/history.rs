//! Thirty nights of runs that the demo did not execute: the plots, the report and the pages have something to show.

use chrono::{DateTime, TimeDelta, Utc};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, Statement, TransactionTrait, Value, prelude::Uuid,
};
use serde_json::json;

use super::stores::DemoStore;
use crate::{
    domain::{Resource, ResourceRun, RunStatus, Totals, Window},
    schedule::Calendar,
};

/// How many nights there are, the last one included.
const NIGHTS: i64 = 30;

/// A run of the history.
struct PastRun<'a> {
    store: &'a DemoStore,
    id: Uuid,
    window: Window,
    duration: TimeDelta,
    found: Vec<PastDiscrepancy>,
    totals: Totals,
}

/// An order that was missing, or that had an old status.
struct PastDiscrepancy {
    order: i64,
    changed_at: DateTime<Utc>,
    /// The stored version, and the status before and after; `None`: the order was missing.
    stale: Option<(DateTime<Utc>, [&'static str; 2])>,
}

/// The statuses of an order, one after the other.
const STATUSES: [&str; 4] = ["under_review", "in_progress", "completed", "delivered"];

/// The times of the last thirty sweeps, the oldest first.
pub fn nights(calendar: &Calendar) -> Vec<DateTime<Utc>> {
    let until = Utc::now();
    let first = calendar.next_after(until - TimeDelta::days(NIGHTS));
    std::iter::successors(first, |night| calendar.next_after(*night)).take_while(|night| *night <= until).collect()
}

/// Stores a sweep for each night, with its runs and what they found.
pub async fn write(
    local: &DatabaseConnection,
    calendar: &Calendar,
    nights: &[DateTime<Utc>],
    stores: &[DemoStore],
    seed: u64,
) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let txn = local.begin().await?;
    let between = TimeDelta::minutes(1) / i32::try_from(stores.len().max(1))?;
    for night in nights {
        let mut runs = Vec::new();
        let mut started_at = *night;
        for store in stores {
            let run = PastRun::new(&mut rng, store, started_at);
            run.write(&txn, *night).await?;
            runs.push(run);
            started_at += between;
        }
        write_sweep(&txn, &calendar.cron(), *night, &runs).await?;
    }
    txn.commit().await?;
    Ok(())
}

impl<'a> PastRun<'a> {
    fn new(rng: &mut StdRng, store: &'a DemoStore, started_at: DateTime<Utc>) -> Self {
        let window = Window { since: started_at - TimeDelta::days(1), until: started_at };
        let in_window = |at: DateTime<Utc>| window.since <= at && at < window.until;
        let new = store.orders.iter().filter(|order| in_window(order.created_at)).take(rng.random_range(0..3));
        let mut found: Vec<_> =
            new.map(|order| PastDiscrepancy { order: order.id, changed_at: order.created_at, stale: None }).collect();
        let created = found.len() as u64;
        let old: Vec<_> = store.orders.iter().filter(|order| order.created_at < window.since).collect();
        for _ in 0..rng.random_range(0..4_usize).min(old.len()) {
            let order = old[rng.random_range(0..old.len())];
            let changed_at = window.since + TimeDelta::minutes(rng.random_range(1..1_400));
            let step = rng.random_range(1..STATUSES.len());
            let stale = Some((order.created_at, [STATUSES[step - 1], STATUSES[step]]));
            found.push(PastDiscrepancy { order: order.id, changed_at, stale });
        }
        let (updated, unchanged) = (found.len() as u64 - created, rng.random_range(20..45));
        let totals =
            Totals { fetched: created + updated + unchanged, created, updated, unchanged, ..Totals::default() };
        let millis = started_at.timestamp_millis().unsigned_abs();
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &rng.random()).into_uuid();
        let duration = TimeDelta::milliseconds(rng.random_range(1_500..6_000));
        Self { store, id, window, duration, found, totals }
    }

    fn ended_at(&self) -> DateTime<Utc> {
        self.window.until + self.duration
    }

    async fn write(&self, txn: &DatabaseTransaction, night: DateTime<Utc>) -> anyhow::Result<()> {
        let mut result = ResourceRun::waiting(Resource::Orders, Some(self.window));
        result.status = RunStatus::Succeeded;
        result.listing = Some(self.store.listing);
        result.observed_at = Some(self.window.until);
        result.totals = self.totals;
        let values: Vec<Value> = vec![
            self.id.into(),
            self.store.merchant_id.into(),
            night.into(),
            self.window.since.into(),
            self.window.until.into(),
            serde_json::to_string(&[result])?.into(),
            i64::try_from(self.totals.fetched)?.into(),
            i64::try_from(self.totals.created)?.into(),
            i64::try_from(self.totals.updated)?.into(),
            i64::try_from(self.totals.unchanged)?.into(),
            self.store.listing.as_str().into(),
            self.ended_at().into(),
        ];
        let sql = "INSERT INTO runs (id, merchant_id, sweep_scheduled_for, window_since, window_until, resource_results, fetched, created, \
                   updated, unchanged, listing, finished_at, started_at, queued_at, requests, status, trigger) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $5, $3, 1, 'succeeded', 'schedule')";
        execute(txn, sql, values).await?;
        for one in &self.found {
            self.write_discrepancy(txn, one).await?;
        }
        Ok(())
    }

    async fn write_discrepancy(&self, txn: &DatabaseTransaction, one: &PastDiscrepancy) -> anyhow::Result<()> {
        let (kind, fields, changes) = match one.stale {
            None => ("missing", json!([]), json!([])),
            Some((_, [before, after])) => {
                let change = json!([{"field": "status", "before": before, "after": after}]);
                ("stale", json!(["status", "payload"]), change)
            }
        };
        let values: Vec<Value> = vec![
            self.id.into(),
            self.store.merchant_id.into(),
            one.order.into(),
            kind.into(),
            one.stale.map(|(stored_at, _)| stored_at).into(),
            one.changed_at.into(),
            fields.to_string().into(),
            changes.to_string().into(),
            self.ended_at().into(),
        ];
        let sql = "INSERT INTO discrepancies (run_id, merchant_id, resource, salla_id, kind, local_updated_at, remote_updated_at, fields, \
                   changes, found_at) VALUES ($1, $2, 'orders', $3, $4, $5, $6, $7, $8, $9)";
        execute(txn, sql, values).await
    }
}

async fn write_sweep(
    txn: &DatabaseTransaction,
    cron: &str,
    night: DateTime<Utc>,
    runs: &[PastRun<'_>],
) -> anyhow::Result<()> {
    let mut totals = Totals::default();
    runs.iter().for_each(|run| totals += run.totals);
    let values: Vec<Value> = vec![
        night.into(),
        cron.into(),
        i64::try_from(runs.len())?.into(),
        serde_json::to_string(&[(RunStatus::Succeeded, runs.len(), totals)])?.into(),
        runs.iter().map(PastRun::ended_at).max().unwrap_or(night).into(),
    ];
    let sql = "INSERT INTO sweeps (scheduled_for, cron, outcome, run_count, summary, started_at, ended_at) \
               VALUES ($1, $2, 'schedule', $3, $4, $1, $5)";
    execute(txn, sql, values).await
}

async fn execute(txn: &DatabaseTransaction, sql: &str, values: Vec<Value>) -> anyhow::Result<()> {
    txn.execute_raw(Statement::from_sql_and_values(txn.get_database_backend(), sql, values)).await?;
    Ok(())
}
