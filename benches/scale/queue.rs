//! Sweeps through the queue: made, claimed by many at the same time, looked at, and forgotten.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::Utc;
use futures::future::join_all;
use salla_reconciler::{
    domain::{Listing, MerchantId, Resource, ResourceRun, RunStatus, Trigger, Window},
    reconcile::ports::{
        Claim, MerchantFilter, MerchantRegistry, RunFilter, RunHistory, RunOutcome, RunQueue, ScheduleStore,
        SweepDecision,
    },
    store::Store,
};
use tokio::time::Instant;

use crate::{database::Bench, table::Table};

/// That lie behind the later night.
pub const NIGHTS: u32 = 10;

const CLAIM: Duration = Duration::from_millis(50);
const FAN_OUT: Duration = Duration::from_secs(10);
/// Of what a person or a scrape waits for.
pub const READ: Duration = Duration::from_millis(500);
/// Of what happens now and then.
const CHORE: Duration = Duration::from_secs(5);

/// The first sweep of a platform: the tables were empty when the program started, and were not analyzed since.
pub async fn first_night(bench: &Bench, (claimers, claims): (usize, u64), table: &mut Table) {
    let stores = stores(bench, claimers).await;
    for _ in 0..10 {
        for store in &stores {
            assert!(store.claim(1).await.unwrap().claims.is_empty());
        }
    }
    fan_out(bench, "a sweep is made of every merchant", table).await;
    work(&stores, claims, "claims by {claimers} at the same time, no history", table).await;
    bench.cancel_queued().await;
}

/// A sweep like every other, with what the nights before it left, and with stores that are to be left alone.
pub async fn later_night(bench: &Bench, (claimers, claims): (usize, u64), table: &mut Table) {
    let stores = stores(bench, claimers).await;
    fan_out(bench, "the same behind ten nights", table).await;
    bench.pause().await;
    reads(bench, &stores[0], "a whole sweep queued", table).await;
    leases(&stores[0], table).await;
    work(&stores, claims, "claims by {claimers}, one store in 100 paused", table).await;
    bench.execute("DELETE FROM rate_limit_backoffs").await;
    work(&stores, claims, "claims by {claimers} of those that were paused", table).await;
    bench.cancel_queued().await;
    let took = times(1, || async { assert!(!stores[0].ended_sweeps().await.unwrap().is_empty()) }).await;
    table.times("sweeps that have ended are told", took, CHORE);
    reads(bench, &stores[0], "nothing queued", table).await;
    let prune = || async { assert!(stores[0].prune(Duration::from_secs(86400 * 5)).await.unwrap() > 0) };
    let took = times(3, prune).await;
    table.times("a batch of old runs is removed", took, CHORE);
}

async fn stores(bench: &Bench, claimers: usize) -> Vec<Store> {
    join_all((0..claimers).map(|_| bench.store())).await
}

/// Makes a sweep, whose runs are due at once.
pub async fn fan_out(bench: &Bench, what: &str, table: &mut Table) {
    let store = bench.store().await;
    let merchants = bench.number("SELECT count(*) FROM merchants").await;
    let firing = SweepDecision::Run { trigger: Trigger::Schedule, spread: Duration::ZERO };
    let began = Instant::now();
    assert_eq!(store.record_sweep(Utc::now(), what, firing).await.unwrap().map(|fired| fired.runs), Some(merchants));
    table.times(what, vec![began.elapsed()], FAN_OUT);
}

/// Everybody claims and ends runs until nothing is due, or enough is done.
async fn work(stores: &[Store], claims: u64, what: &str, table: &mut Table) {
    let left = Arc::new(AtomicU64::new(claims));
    let began = Instant::now();
    let worked = stores.iter().cloned().map(|store| tokio::spawn(work_alone(store, Arc::clone(&left))));
    let worked: Vec<_> = join_all(worked).await.into_iter().map(Result::unwrap).collect();
    let a_second = worked.iter().map(|(claims, _)| claims.len()).sum::<usize>() as f64 / began.elapsed().as_secs_f64();
    let what = what.replace("{claimers}", &stores.len().to_string());
    table.times(&what, worked.iter().flat_map(|(claims, _)| claims).copied().collect(), CLAIM);
    let ends = worked.iter().flat_map(|(_, ends)| ends).copied().collect();
    table.times(&format!("  and ends ({a_second:.0} runs a second)"), ends, READ);
}

async fn work_alone(store: Store, left: Arc<AtomicU64>) -> (Vec<Duration>, Vec<Duration>) {
    let (mut claims, mut ends) = (Vec::new(), Vec::new());
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let began = Instant::now();
        let claim = store.claim(1).await.unwrap().claims.pop();
        let took = began.elapsed();
        let Some(claim) = claim else { break };
        claims.push(took);
        let began = Instant::now();
        store.finish(&claim.lease, ending_of(&claim)).await.unwrap();
        ends.push(began.elapsed());
    }
    (claims, ends)
}

/// A success.
pub fn ending_of(claim: &Claim) -> RunOutcome {
    let window = Window { since: claim.now - chrono::TimeDelta::days(1), until: claim.now };
    let orders = ResourceRun {
        status: RunStatus::Succeeded,
        listing: Some(Listing::Filter),
        observed_at: Some(claim.now),
        ..ResourceRun::waiting(Resource::Orders, Some(window))
    };
    RunOutcome {
        status: RunStatus::Succeeded,
        failure: None,
        resource_runs: vec![orders],
        requests: 1,
        watermarks: vec![(Resource::Orders, claim.now)],
        again: None,
    }
}

/// What people and scrapes ask.
pub async fn reads(bench: &Bench, store: &Store, when: &str, table: &mut Table) {
    let took = times(20, || async { drop(store.gauges().await.unwrap()) }).await;
    table.times(&format!("the gauges, {when}"), took, READ);
    let middle = bench.number("SELECT max(merchant_id) / 2 FROM merchants").await;
    let merchant = Some(MerchantId(i64::try_from(middle).unwrap()));
    let page = RunFilter { limit: 100, ..RunFilter::default() };
    let newest = store.runs(page).await.unwrap();
    let filters = [
        ("the newest", page),
        ("older ones", RunFilter { before: newest.last().map(|run| run.run_id), ..page }),
        ("a merchant's", RunFilter { merchant, ..page }),
        ("a merchant's that failed", RunFilter { merchant, status: Some(RunStatus::Failed), ..page }),
        ("failed", RunFilter { status: Some(RunStatus::Failed), ..page }),
        ("cancelled, of which there are none", RunFilter { status: Some(RunStatus::Cancelled), ..page }),
        ("queued", RunFilter { status: Some(RunStatus::Queued), ..page }),
        ("running", RunFilter { status: Some(RunStatus::Running), ..page }),
    ];
    for (which, filter) in filters {
        let took = times(20, || async { drop(store.runs(filter).await.unwrap()) }).await;
        table.times(&format!("a page of runs: {which}"), took, READ);
    }
    let filter = MerchantFilter { state: None, after: merchant, limit: 100 };
    let took = times(20, || async { drop(store.list(filter).await.unwrap()) }).await;
    table.times("a page of merchants", took, READ);
}

/// A process with many slots renews what it holds.
async fn leases(store: &Store, table: &mut Table) {
    let claims = store.claim(200).await.unwrap().claims;
    let held: Vec<_> = claims.iter().map(|claim| claim.lease).collect();
    let renew = || async { assert_eq!(store.renew_leases(&held).await.unwrap().len(), held.len()) };
    let took = times(20, renew).await;
    table.times(&format!("{} leases are renewed", held.len()), took, CHORE);
    for claim in claims {
        store.finish(&claim.lease, ending_of(&claim)).await.unwrap();
    }
}

/// How long each of so many calls takes.
pub async fn times<F: Future<Output = ()>>(calls: usize, call: impl Fn() -> F) -> Vec<Duration> {
    let mut took = Vec::with_capacity(calls);
    for _ in 0..calls {
        let began = Instant::now();
        call().await;
        took.push(began.elapsed());
    }
    took
}
