//! What Salla counts by the address that requests come from: customers, for all stores and all processes together.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use nix::sys::signal::Signal;
use salla_reconciler::simulator::{Customer, Fault};
use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    Engine, Site,
    site::{shop, totals},
    until,
};

on_every_database!(
    replicas_share_the_limit_of_an_address,
    a_429_for_customers_applies_to_all_merchants,
    foreground_runs_wait_for_the_address_limit
);

const STORES: [i64; 3] = [1001, 1002, 1003];
const ALLOWED: usize = 8;

/// Stores that have more pages of customers than may be asked for at once.
async fn site(engine: Engine) -> Site {
    let mut shops = vec![shop(1004, 0, 3)];
    shops.extend(STORES.map(|id| shop(id, 0, 2).visited(10, Utc::now())));
    let mut site = Site::new(engine, shops).await;
    site.set("RECONCILE__RESOURCES", "orders,customers");
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.set("SALLA__CUSTOMER_REQUESTS_PER_10_MINUTES", &ALLOWED.to_string());
    site.salla.world().customers_limit = Some(ALLOWED);
    site
}

fn asked_for_customers(site: &Site) -> usize {
    site.salla.world().seen.iter().filter(|seen| seen.list == "customers").count()
}

/// Ten minutes are over, here and at Salla.
async fn ten_minutes_later(site: &Site) {
    site.salla.world().seen.clear();
    site.database.execute("DELETE FROM ip_rate_limit", []).await;
    let long_ago = Utc::now() - TimeDelta::hours(2);
    site.database.execute("UPDATE runs SET scheduled_at = $1 WHERE status = 'queued'", [long_ago.into()]).await;
}

async fn replicas_share_the_limit_of_an_address(engine: Engine) {
    let site = site(engine).await;
    let mut daemons = [site.serve().await, site.serve().await];
    for id in STORES {
        assert_eq!(daemons[0].post("/runs", &format!(r#"{{"merchant_id":{id}}}"#)).await.0, 202);
    }
    until("all wait", async || {
        let waiting = "SELECT count(*) FROM runs WHERE status = 'queued' AND listing IS NOT NULL";
        asked_for_customers(&site) == ALLOWED && site.database.number(waiting).await == 3
    })
    .await;
    // Others go on, and no process forgets what was sent.
    daemons[0].signal(Signal::SIGKILL);
    daemons[0].wait().await;
    let restarted = site.serve().await;
    assert_eq!(restarted.post("/runs", r#"{"merchant_id":1004,"resources":["orders"]}"#).await.0, 202);
    restarted.await_run("merchant_id=1004", |run| run["status"] == "succeeded").await;
    let soon = Utc::now() - TimeDelta::seconds(1);
    site.database.execute("UPDATE runs SET scheduled_at = $1 WHERE status = 'queued'", [soon.into()]).await;
    let late = Utc::now() + TimeDelta::seconds(300);
    until("they have asked again", async || {
        let again = "SELECT count(*) FROM runs WHERE status = 'queued' AND scheduled_at > $1";
        site.database.number_of(again, [late.into()]).await == 3
    })
    .await;
    assert_eq!(asked_for_customers(&site), ALLOWED);
    let mut windows = 1;
    while site.database.number("SELECT count(*) FROM runs WHERE status <> 'succeeded'").await > 0 {
        windows += 1;
        assert!(windows < 30, "it never ends");
        ten_minutes_later(&site).await;
        until("used up again, or done", async || {
            let open = "SELECT count(*) FROM runs WHERE status = 'running' OR status = 'queued' AND scheduled_at < $1";
            site.database.number_of(open, [Utc::now().into()]).await == 0
        })
        .await;
        assert!(asked_for_customers(&site) <= ALLOWED);
    }
    assert!(windows > 2, "the limit was never reached");
    for id in STORES {
        site.assert_equal_of::<Customer>(id).await;
    }
    let world = site.salla.world();
    assert!(world.violations.is_empty(), "{:?}", world.violations);
}

async fn a_429_for_customers_applies_to_all_merchants(engine: Engine) {
    let site = site(engine).await;
    let daemon = site.serve().await;
    site.salla.world().script(1001, [Fault::too_many("3600")]);
    daemon.post("/runs", r#"{"merchant_id":1001,"resources":["customers"]}"#).await;
    let failed = daemon.await_run("merchant_id=1001", |run| run["status"] == "failed").await;
    assert_eq!(failed["error"]["kind"], "rate_limited", "{failed}");
    daemon.post("/runs", r#"{"merchant_id":1002,"resources":["customers"]}"#).await;
    // Salla counts the requests of ten minutes. One answer never stops the other merchants for longer.
    let [earliest, latest] = [500, 800].map(|seconds| Utc::now() + TimeDelta::seconds(seconds));
    until("the other waits", async || {
        let waits = "SELECT count(*) FROM runs \
                     WHERE merchant_id = 1002 AND status = 'queued' AND scheduled_at > $1 AND scheduled_at < $2";
        site.database.number_of(waits, [earliest.into(), latest.into()]).await == 1
    })
    .await;
    assert_eq!(site.salla.world().requests_for(1002), 0);
    // The limit for customers does not stop its orders.
    daemon.post("/runs", r#"{"merchant_id":1003,"resources":["orders"]}"#).await;
    daemon.await_run("merchant_id=1003", |run| run["status"] == "succeeded").await;
}

async fn foreground_runs_wait_for_the_address_limit(engine: Engine) {
    let site = site(engine).await;
    let opens_at = Utc::now().timestamp() + 15;
    let closed = json!({"sent": [], "closed_until": opens_at}).to_string();
    site.database.execute("INSERT INTO ip_rate_limit (id, usage) VALUES (1, $1)", [closed.into()]).await;
    let began = Instant::now();
    // One page of it fits.
    let full = ["--full", "--resource", "orders"];
    assert_eq!(totals(&site.reconcile(1001, &full).await), [2, 2, 0, 0, 0, 0]);
    let wait_is_shown = until("the wait is shown", async || {
        let waiting = "SELECT count(*) FROM runs WHERE merchant_id = 1004 AND waiting_reason = 'address_limit'";
        site.database.number(waiting).await == 1
    });
    let (run, ()) = tokio::join!(site.reconcile(1004, &["--resource", "customers"]), wait_is_shown);
    assert_eq!((&run["status"], totals(&run)), (&json!("succeeded"), [0; 6]), "{run}");
    assert!(began.elapsed() > Duration::from_secs(4), "{:?}", began.elapsed());
}
