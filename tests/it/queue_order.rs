//! The order of the queue: who goes first, and who makes way.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use salla_reconciler::{
    domain::{MerchantId, Request, Trigger},
    reconcile::ports::{Actor, NewRun, RunQueue, ScheduleStore, SweepDecision},
    store::Store,
};

use crate::support::{
    Engine, SCHEMA, Site,
    site::{shop, totals},
};

on_every_database!(
    the_oldest_watermark_goes_first,
    expired_runs_go_before_queued_ones,
    a_large_merchant_is_requeued_behind_small_ones,
    a_run_without_waiting_merchants_continues,
);

const LONG: Duration = Duration::from_secs(60);
const SWEEP: SweepDecision = SweepDecision::Run { trigger: Trigger::Schedule, spread: Duration::ZERO };

async fn store(site: &Site) -> Store {
    Store::connect(&site.database.url.clone().into(), SCHEMA, 4, LONG).await.unwrap()
}

/// As if a run had covered the merchant up to then.
async fn cover(site: &Site, merchant: i64, until: DateTime<Utc>) {
    let sql = "INSERT INTO watermarks (merchant_id, resource, watermark) VALUES ($1, 'orders', $2)";
    site.database.execute(sql, [merchant.into(), until.into()]).await;
}

/// The merchants of the next claims, one run a claim.
async fn claimed(store: &Store) -> Vec<i64> {
    let mut merchants = Vec::new();
    while let Some(claim) = store.claim(1).await.unwrap().claims.pop() {
        merchants.push(claim.lease.merchant.0);
    }
    merchants
}

async fn the_oldest_watermark_goes_first(engine: Engine) {
    let site = Site::new(engine, (1001..=1004).map(|merchant| shop(merchant, 0, 0))).await;
    let (store, now) = (store(&site).await, Utc::now());
    for (merchant, hours) in [(1001, 1), (1003, 3), (1004, 2)] {
        cover(&site, merchant, now - TimeDelta::hours(hours)).await;
    }
    assert_eq!(store.record_sweep(now, "nightly", SWEEP).await.unwrap().unwrap().runs, 4);
    assert_eq!(claimed(&store).await, [1002, 1003, 1004, 1001]);
}

async fn expired_runs_go_before_queued_ones(engine: Engine) {
    let site = Site::new(engine, (1001..=1003).map(|merchant| shop(merchant, 0, 0))).await;
    let (store, now) = (store(&site).await, Utc::now());
    cover(&site, 1003, now - TimeDelta::hours(1)).await;
    store.record_sweep(now, "nightly", SWEEP).await.unwrap();
    let sql = "UPDATE runs SET status = 'running', lease_expires_at = $1 WHERE merchant_id = 1003";
    site.database.execute(sql, [(now - TimeDelta::minutes(1)).into()]).await;
    let claims = store.claim(2).await.unwrap().claims;
    let merchants: Vec<i64> = claims.iter().map(|claim| claim.lease.merchant.0).collect();
    assert!(merchants.contains(&1003) && merchants.len() == 2, "{merchants:?}");
    assert_eq!(claimed(&store).await.len(), 1);
}

/// One slot, and turns of a page.
fn take_turns(site: &mut Site) {
    for (key, value) in [("CONCURRENCY", "1"), ("PAGE_SIZE", "1"), ("TIME_SLICE", "0s")] {
        site.set(&format!("RECONCILE__{key}"), value);
    }
}

async fn by_hand(store: &Store, merchant: i64) {
    let request = Request { full: true, ..Request::default() };
    let merchant = MerchantId(merchant);
    store.enqueue(NewRun { merchant, trigger: Trigger::Http, request, by: Actor::Local, key: None }).await.unwrap();
}

/// Although it was asked for by hand, and began first.
async fn a_large_merchant_is_requeued_behind_small_ones(engine: Engine) {
    let small = 1001..=1004;
    let shops = small.clone().map(|merchant| shop(merchant, 0, 2)).chain([shop(2001, 40, 0)]);
    let mut site = Site::unregistered(engine, shops).await;
    take_turns(&mut site);
    for merchant in small {
        site.register(merchant).await;
    }
    let store = store(&site).await;
    store.record_sweep(Utc::now(), "nightly", SWEEP).await.unwrap();
    site.register(2001).await;
    by_hand(&store, 2001).await;

    let mut daemon = site.serve().await;
    let large = daemon.await_run("merchant_id=2001", |run| run["status"] == "succeeded").await;
    assert_eq!(totals(&large), [40, 40, 0, 0, 0, 0]);
    site.assert_equal(2001).await;
    let before = "SELECT count(*) FROM runs s JOIN runs l ON l.merchant_id = 2001 \
                  WHERE s.merchant_id < 2001 AND s.status = 'succeeded' AND s.finished_at < l.finished_at \
                  AND s.started_at > l.started_at";
    assert_eq!(site.database.number(before).await, 4, "{}", daemon.log_text());
    // It gave itself back more than once, and no attempt is counted for it.
    assert_eq!(site.database.number("SELECT count(*) FROM runs WHERE merchant_id = 2001 AND epoch > 2").await, 1);
    assert_eq!(site.database.number("SELECT max(attempt) FROM runs").await, 1);
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(daemon.wait().await, Some(0));
}

/// The other run that is due is of a store that is to be left alone.
async fn a_run_without_waiting_merchants_continues(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 2), shop(2001, 20, 0)]).await;
    take_turns(&mut site);
    let store = store(&site).await;
    let later = Utc::now() + TimeDelta::hours(1);
    site.database
        .execute("INSERT INTO rate_limit_backoffs (merchant_id, retry_at) VALUES (1001, $1)", [later.into()])
        .await;
    by_hand(&store, 1001).await;
    by_hand(&store, 2001).await;

    let mut daemon = site.serve().await;
    let run = daemon.await_run("merchant_id=2001", |run| run["status"] == "succeeded").await;
    assert_eq!(totals(&run), [20, 20, 0, 0, 0, 0]);
    assert_eq!(site.database.number("SELECT epoch FROM runs WHERE merchant_id = 2001").await, 1);
    assert_eq!(site.database.text("SELECT status FROM runs WHERE merchant_id = 1001").await, "queued");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(daemon.wait().await, Some(0));
}
