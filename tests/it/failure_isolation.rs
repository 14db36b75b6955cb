//! Records that Salla cannot show affect no other record, however many they are and wherever they are.

use salla_reconciler::simulator::Fault;
use serde_json::{Value, json};

use crate::support::{
    Engine, Site,
    site::{shop, totals},
};

on_every_database!(
    adjacent_failing_records_fail_alone,
    failing_records_do_not_open_the_circuit,
    a_merchant_without_readable_details_fails_its_run,
    listed_records_that_are_gone_fail_alone,
);

/// A store whose first `poison` orders answer so at their own addresses.
async fn poisoned(engine: Engine, orders: usize, poison: usize, fault: Fault) -> (Site, Vec<i64>) {
    let site = Site::new(engine, [shop(1001, 0, orders)]).await;
    let mut world = site.salla.world();
    let shop = world.shop(1001);
    let ids: Vec<i64> = shop.orders[..poison].iter().map(|order| order.id).collect();
    shop.broken.extend(ids.iter().map(|id| (*id, fault.clone())));
    drop(world);
    (site, ids)
}

/// Failing records stay so. Changes of other records are read all the same, night after night.
async fn assert_nights(site: &Site, poison: usize, more: &[&str]) {
    let all = site.salla.world().shop(1001).orders.len();
    for night in 0..3 {
        let changed = site.salla.world().shop(1001).orders[all - 2].id;
        site.salla.world().shop(1001).touch(changed, chrono::Utc::now());
        let run = site.reconcile(1001, more).await;
        assert_eq!(run["status"], "partial", "night {night}: {run}");
        assert_eq!(totals(&run)[4], u64::try_from(poison).unwrap(), "night {night}: {run}");
        let sql = format!("SELECT count(*) FROM orders WHERE salla_order_id = {changed}");
        assert_eq!(site.database.number(&sql).await, 1, "night {night}: order {changed} was not read");
        // Between two nights Salla's clock goes on.
        site.salla.world().clock_ahead += chrono::TimeDelta::seconds(2);
    }
    site.salla.world().shop(1001).broken.clear();
    assert_eq!(site.reconcile(1001, more).await["status"], "succeeded");
    site.assert_equal(1001).await;
}

/// More of them in a row than are taken for one order's trouble.
async fn adjacent_failing_records_fail_alone(engine: Engine) {
    for refused in [Fault::status(422), Fault::ok("text/html", "<p>maintenance</p>")] {
        let (mut site, _) = poisoned(engine, 40, 14, refused).await;
        site.set("SALLA__LISTING", "scan");
        site.salla.world().documented = true;
        site.set("RECONCILE__PAGE_SIZE", "20");
        assert_nights(&site, 14, &[]).await;
    }
    // Most of what the first page shows, and all of what the second does.
    let (mut site, _) = poisoned(engine, 40, 34, Fault::status(422)).await;
    site.set("SALLA__LISTING", "scan");
    site.salla.world().documented = true;
    site.set("RECONCILE__PAGE_SIZE", "20");
    assert_nights(&site, 34, &[]).await;
}

/// Three attempts at each of many, one after the other, and others of the store are read.
async fn failing_records_do_not_open_the_circuit(engine: Engine) {
    let (mut site, ids) = poisoned(engine, 12, 4, Fault::status(500)).await;
    site.set("SALLA__LISTING", "scan");
    site.salla.world().documented = true;
    let daemon = site.serve().await;
    for night in 0..2 {
        daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
        let run = daemon.await_run("", |run| run["status"] != "queued" && run["status"] != "running").await;
        assert_eq!((&run["status"], totals(&run)[4]), (&json!("partial"), 4), "night {night}: {run}");
        let held = site.database.number("SELECT max(attempt) FROM runs").await;
        assert_eq!(held, 1, "the store was never left alone");
        // The next one is to be found by what it is.
        let sql = "DELETE FROM runs WHERE id = $1";
        let id: sea_orm::prelude::Uuid = run["run_id"].as_str().unwrap().parse().unwrap();
        site.database.execute("DELETE FROM discrepancies WHERE run_id = $1", [id.into()]).await;
        site.database.execute(sql, [id.into()]).await;
    }
    assert_eq!(site.database.number("SELECT count(*) FROM failed_records").await, i64::try_from(ids.len()).unwrap());
}

/// Nothing tells its orders' trouble from its own.
async fn a_merchant_without_readable_details_fails_its_run(engine: Engine) {
    let (mut site, _) = poisoned(engine, 30, 30, Fault::status(422)).await;
    site.set("SALLA__LISTING", "scan");
    site.salla.world().documented = true;
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((&run["status"], &run["error"]["kind"]), (&json!("failed"), &json!("salla_request_rejected")), "{run}");
    assert_eq!(site.database.number("SELECT count(*) FROM watermarks").await, 0);
    let asked = site.salla.world().seen.iter().filter(|seen| seen.id.is_some()).count();
    assert!(asked <= 15, "it was asked {asked} times");
}

async fn listed_records_that_are_gone_fail_alone(engine: Engine) {
    let (mut site, _) = poisoned(engine, 20, 8, Fault::no_such_record()).await;
    site.set("SALLA__LISTING", "scan");
    site.salla.world().documented = true;
    assert_nights(&site, 8, &[]).await;
    let failed: Value = site.reconcile(1001, &[]).await;
    assert_eq!(totals(&failed)[4], 0, "{failed}");
}
