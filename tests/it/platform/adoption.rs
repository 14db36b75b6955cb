//! A target that is set after the program has run without one, and processes that die or sleep beside a target.

use std::time::Duration;

use chrono::Utc;
use nix::sys::signal::Signal;
use salla_reconciler::simulator::{Fault, ListOrder};
use serde_json::json;

use super::{MERCHANT, assert_equal, platform, tables::Framework};
use crate::support::{Engine, Site, site::totals};

on_every_postgres!(
    a_target_that_is_set_later_gets_a_first_run,
    a_run_that_goes_on_with_another_target_begins_again,
    a_kill_beside_a_commit_loses_nothing,
    a_sleeping_process_writes_nothing_after_its_lease,
    a_slice_of_a_sorted_list_compares_the_platform,
);

/// A platform without a target in the settings, whose merchant has `old` orders and ten of the last hours.
async fn without_target(engine: Engine, old: usize) -> Site {
    let mut site = platform(engine, Framework::Prisma, old).await;
    site.unset("TARGET__ORDERS__VIEW");
    site.unset("TARGET__ORDERS__FUNCTION");
    let mut world = site.salla.world();
    (0..10).for_each(|minutes| {
        world.shop(MERCHANT).place(Utc::now() - chrono::TimeDelta::minutes(minutes + 1));
    });
    drop(world);
    site
}

fn with_target(site: &mut Site) {
    site.set("TARGET__ORDERS__VIEW", "salla.platform_orders");
    site.set("TARGET__ORDERS__FUNCTION", "salla.write_platform_orders");
}

async fn a_target_that_is_set_later_gets_a_first_run(engine: Engine) {
    for (honours_filter, listed) in [(true, 10), (false, 50)] {
        let mut site = without_target(engine, 40).await;
        site.salla.world().honours_filter = honours_filter;
        site.reconcile(MERCHANT, &[]).await;
        let quiet = site.reconcile(MERCHANT, &[]).await;
        assert_eq!(quiet["totals"]["created"], 0, "{quiet}");

        with_target(&mut site);
        let merchant = site.run(&["merchants", "list", "--json"]).await.exits(0).object();
        assert_eq!(merchant["watermark"], json!(null), "a watermark of the own table does not count: {merchant}");
        let run = site.reconcile(MERCHANT, &[]).await;
        assert_eq!(totals(&run), [listed, listed, 0, 0, 0, 0], "{run}");
        assert_eq!(run["totals"]["backfilled"], json!({"created": listed, "updated": 0}), "{run}");

        site.database.execute("UPDATE public.\"Order\" SET \"status\" = 'CANCELED' WHERE \"sallaOrderId\" = (SELECT max(\"sallaOrderId\") FROM public.\"Order\")", []).await;
        let run = site.reconcile(MERCHANT, &[]).await;
        assert_eq!(totals(&run), [listed, 0, 1, listed - 1, 0, 0], "{run}");
        assert_eq!(run["totals"]["backfilled"], json!({"created": 0, "updated": 0}), "{run}");

        // Without the target again, the own table has kept its copies.
        site.unset("TARGET__ORDERS__VIEW");
        site.unset("TARGET__ORDERS__FUNCTION");
        let run = site.reconcile(MERCHANT, &[]).await;
        assert_eq!(totals(&run), [listed, 0, 0, listed, 0, 0], "{run}");
    }
}

/// Fails unless the platform and the own table have each order once, and each discrepancy was counted once.
async fn assert_whole(site: &Site, orders: i64) {
    assert_equal(site).await;
    for count in [
        "SELECT count(*) FROM public.\"Order\"",
        "SELECT count(*) FROM salla.orders",
        "SELECT count(DISTINCT salla_id) FROM salla.discrepancies",
        "SELECT count(*) FROM salla.discrepancies",
    ] {
        assert_eq!(site.database.number(count).await, orders, "{count}");
    }
}

/// A deploy sets the target while a run is under way: its pages went to the own table only.
async fn a_run_that_goes_on_with_another_target_begins_again(engine: Engine) {
    let mut site = without_target(engine, 90).await;
    site.set("RECONCILE__PAGE_SIZE", "20");
    site.salla.world().always.insert(MERCHANT, Fault::Hang(Duration::from_millis(200)));
    let mut daemon = site.serve().await;
    daemon.post("/runs", &format!(r#"{{"merchant_id":{MERCHANT},"full":true}}"#)).await;
    daemon.await_run("", |run| run["totals"]["created"].as_u64() >= Some(40)).await;
    daemon.signal(Signal::SIGTERM);
    daemon.wait().await;
    assert_eq!(site.database.text("SELECT status FROM salla.runs").await, "queued");

    with_target(&mut site);
    site.salla.world().always.clear();
    let daemon = site.serve().await;
    let run = daemon.await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!(totals(&run), [100, 100, 0, 0, 0, 0], "{run}");
    assert_whole(&site, 100).await;
}

async fn a_kill_beside_a_commit_loses_nothing(engine: Engine) {
    for point in ["page_before_commit", "page_after_commit"] {
        let mut site = platform(engine, Framework::Prisma, 100).await;
        site.set("RECONCILE__PAGE_SIZE", "20");
        site.set("RECONCILE__LEASE", "2s");
        let mut daemon = site.serve_until(&format!("{point}=2*off->return")).await;
        daemon.post("/runs", &format!(r#"{{"merchant_id":{MERCHANT},"full":true}}"#)).await;
        daemon.wait().await;
        let half = site.database.number("SELECT count(*) FROM public.\"Order\"").await;
        assert!((1..100).contains(&half), "{point}: {half}");

        let daemon = site.serve().await;
        let run = daemon.await_run("", |run| run["status"] == "succeeded").await;
        assert_eq!(totals(&run), [100, 100, 0, 0, 0, 0], "{point}: {run}");
        assert_whole(&site, 100).await;
    }
}

async fn a_sleeping_process_writes_nothing_after_its_lease(engine: Engine) {
    let mut site = platform(engine, Framework::Prisma, 60).await;
    site.set("RECONCILE__PAGE_SIZE", "5");
    site.set("RECONCILE__LEASE", "2s");
    site.salla.world().always.insert(MERCHANT, Fault::Hang(Duration::from_millis(100)));
    let asleep = site.serve().await;
    asleep.post("/runs", &format!(r#"{{"merchant_id":{MERCHANT},"full":true}}"#)).await;
    asleep.await_run("", |run| run["totals"]["created"].as_u64() >= Some(10)).await;
    asleep.signal(Signal::SIGSTOP);

    let other = site.serve().await;
    let run = other.await_run("", |run| run["status"] == "succeeded").await;
    asleep.signal(Signal::SIGCONT);
    assert_eq!(totals(&run), [60, 60, 0, 0, 0, 0], "{run}");
    asleep.await_line(|line| line["message"].as_str().is_some_and(|text| text.contains("took over the run"))).await;
    assert_whole(&site, 60).await;
}

async fn a_slice_of_a_sorted_list_compares_the_platform(engine: Engine) {
    let site = platform(engine, Framework::Prisma, 300).await;
    {
        let mut world = site.salla.world();
        world.documented = true;
        world.list_order = ListOrder::CreatedDescending;
        let shop = world.shop(MERCHANT);
        for order in shop.orders.clone().iter().step_by(5) {
            shop.touch(order.id, order.created_at + (Utc::now() - order.created_at) / 2);
        }
    }
    site.reconcile(MERCHANT, &[]).await;
    // A slice holds a seventh of the list. Nothing in Salla has changed, and the platform has lost the status of all.
    site.database.execute("UPDATE public.\"Order\" SET \"status\" = 'CANCELED'", []).await;
    let run = site.reconcile(MERCHANT, &[]).await;
    assert_eq!(run["listing"], "sort", "{run}");
    let updated = run["totals"]["updated"].as_u64().unwrap();
    assert!((30..300).contains(&updated), "{run}");
    site.reconcile(MERCHANT, &["--full"]).await;
    assert_equal(&site).await;
}
