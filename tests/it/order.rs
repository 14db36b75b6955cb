//! The order of the queue: who goes first, and who makes way.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use salla_reconciler::{
    domain::Trigger,
    reconcile::ports::{Firing, Ledger},
    store::Store,
};

use crate::support::{Engine, Site, site::shop};

on_every_database!(the_least_recently_covered_go_first, what_lapsed_goes_before_what_waits);

const LONG: Duration = Duration::from_secs(60);
const SWEEP: Firing = Firing::Run { trigger: Trigger::Schedule, spread: Duration::ZERO };

async fn store(site: &Site) -> Store {
    Store::connect(&site.database.url.clone().into(), 4, LONG).await.unwrap()
}

/// As if a run had covered the merchant up to then.
async fn cover(site: &Site, merchant: i64, until: DateTime<Utc>) {
    let sql = "INSERT INTO watermarks (merchant_id, resource, watermark) VALUES ($1, 'orders', $2)";
    site.database.execute(sql, [merchant.into(), until.into()]).await;
}

/// The merchants of the next claims, one run a claim.
async fn claimed(store: &Store) -> Vec<i64> {
    let mut merchants = Vec::new();
    while let Some(claim) = store.claim(1).await.unwrap().pop() {
        merchants.push(claim.lease.merchant.0);
    }
    merchants
}

async fn the_least_recently_covered_go_first(engine: Engine) {
    let site = Site::new(engine, (1001..=1004).map(|merchant| shop(merchant, 0, 0))).await;
    let (store, now) = (store(&site).await, Utc::now());
    for (merchant, hours) in [(1001, 1), (1003, 3), (1004, 2)] {
        cover(&site, merchant, now - TimeDelta::hours(hours)).await;
    }
    assert_eq!(store.fire(now, "nightly", SWEEP).await.unwrap(), Some(4));
    assert_eq!(claimed(&store).await, [1002, 1003, 1004, 1001]);
}

async fn what_lapsed_goes_before_what_waits(engine: Engine) {
    let site = Site::new(engine, (1001..=1003).map(|merchant| shop(merchant, 0, 0))).await;
    let (store, now) = (store(&site).await, Utc::now());
    cover(&site, 1003, now - TimeDelta::hours(1)).await;
    store.fire(now, "nightly", SWEEP).await.unwrap();
    let sql = "UPDATE runs SET status = 'running', lease_until = $1 WHERE merchant_id = 1003";
    site.database.execute(sql, [(now - TimeDelta::minutes(1)).into()]).await;
    let claims = store.claim(2).await.unwrap();
    let merchants: Vec<i64> = claims.iter().map(|claim| claim.lease.merchant.0).collect();
    assert!(merchants.contains(&1003) && merchants.len() == 2, "{merchants:?}");
    assert_eq!(claimed(&store).await.len(), 1);
}
