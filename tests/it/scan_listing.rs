//! A server that is as Salla's public documentation has it: summaries without `updated_at`, details by request, no
//! filter by change.

use chrono::{TimeDelta, Utc};
use salla_reconciler::simulator::{DayBounds, Fault, ListOrder, Shop};

use crate::support::{
    Engine, Site,
    site::{shop, totals},
};

on_every_database!(
    a_missing_filter_is_detected,
    a_scan_of_summaries,
    changes_in_details_are_found_within_28_nights,
    stale_rows_drafts_and_a_capped_page,
    a_webhook_s_older_copy_is_not_believed,
    a_scan_resumes_after_a_crash,
    ignored_sorting_is_detected,
    a_single_order_is_read,
    a_bad_summary_fails_alone,
    wrong_details_are_refused,
);

async fn site(engine: Engine, shop: Shop) -> Site {
    let site = Site::new(engine, [shop]).await;
    site.salla.world().documented = true;
    site.salla.world().list_order = ListOrder::CreatedDescending;
    site
}

/// How many requests came for the list, and how many for single orders.
fn requests(site: &Site) -> (usize, usize) {
    let world = site.salla.world();
    let single = world.seen.iter().filter(|seen| seen.id.is_some()).count();
    (world.seen.len() - single, single)
}

async fn a_missing_filter_is_detected(engine: Engine) {
    let mut site = site(engine, shop(1001, 150, 10)).await;
    let output = site.run(&["run", "--json"]).await.exits(0);
    let run = output.object();
    assert_eq!(totals(&run), [160, 160, 0, 0, 0, 0]);
    assert_eq!(run["listing"], "scan");
    assert!(output.stderr.contains("carry no updated_at"), "{}", output.stderr);
    let line = output.stderr.lines().find(|line| line.contains("run ended")).unwrap();
    assert!(line.contains(r#""listing":"scan""#), "{line}");
    site.assert_equal(1001).await;
    // Listings: the filter once; page 1, the three pages from the last, the last again; each order once.
    assert_eq!(requests(&site), (1 + 1 + 3 + 1, 160));
    let seen = site.salla.world().seen[1].query.clone();
    assert_eq!((seen["sort_by"].as_str(), seen.get("updated_at_min")), ("created_at-asc", None));

    site.salla.world().seen.clear();
    site.set("SALLA__LISTING", "scan");
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [160, 0, 0, 160, 0, 0]);
    assert_eq!(requests(&site), (5, 0));
    site.set("SALLA__LISTING", "filter");
    assert_eq!(site.reconcile(1001, &[]).await["error"]["kind"], "listing_unsupported");
}

/// The same drift as in `reconciliation::a_sweep_corrects_missing_and_stale_orders`, of an old order and of a young one.
async fn a_scan_of_summaries(engine: Engine) {
    let site = site(engine, shop(1001, 70, 10)).await;
    site.run(&["migrate", "up"]).await.exits(0);
    let orders = site.salla.world().shop(1001).orders.clone();
    for order in orders.iter().filter(|order| ![orders[3].id, orders[75].id].contains(&order.id)) {
        site.consume(1001, order).await;
    }
    // The consumer wrote another payload than the details have, so the first run corrects it.
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [80, 2, 78, 0, 0, 0]);
    site.assert_equal(1001).await;
    {
        let mut world = site.salla.world();
        world.shop(1001).touch(orders[5].id, Utc::now());
        world.shop(1001).touch(orders[76].id, Utc::now());
        world.shop(1001).place(Utc::now());
        world.seen.clear();
    }
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [81, 1, 2, 78, 0, 0]);
    assert_eq!(requests(&site).1, 3);
    site.assert_equal(1001).await;
    let watermarks = "SELECT count(*) FROM watermarks";
    assert_eq!(site.database.number(watermarks).await, 1);
}

async fn changes_in_details_are_found_within_28_nights(engine: Engine) {
    let site = site(engine, shop(1001, 30, 0)).await;
    site.reconcile(1001, &[]).await;
    let id = site.salla.world().shop(1001).orders[7].id;
    site.salla.world().shop(1001).whisper(id, Utc::now());
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [30, 0, 0, 30, 0, 0]);
    assert_eq!(totals(&site.reconcile(1001, &["--full"]).await), [30, 0, 1, 29, 0, 0]);
    site.assert_equal(1001).await;

    // Or when its night comes, 28 nights after the last at the latest.
    site.salla.world().shop(1001).whisper(id, Utc::now());
    let long_ago = Utc::now() - TimeDelta::days(28);
    site.database
        .execute(
            "UPDATE order_detail_checks SET details_read_at = $1 WHERE salla_order_id = $2",
            [long_ago.into(), id.into()],
        )
        .await;
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [30, 0, 1, 29, 0, 0]);
    site.assert_equal(1001).await;
    // A day later, one night's share of them is due, and only that.
    let yesterday = Utc::now() - TimeDelta::days(1);
    site.database.execute("UPDATE order_detail_checks SET details_read_at = $1", [yesterday.into()]).await;
    site.salla.world().seen.clear();
    site.reconcile(1001, &[]).await;
    let night = Utc::now().timestamp().div_euclid(86_400).rem_euclid(28);
    let due = site.salla.world().shop(1001).orders.iter().filter(|order| order.id.rem_euclid(28) == night).count();
    assert_eq!(requests(&site).1, due);
}

/// 10,000 rows can be read of a list and the store has more: its days are divided until they fit.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_longer_than_can_be_read() {
    for bounds in [DayBounds::Inclusive, DayBounds::HalfOpen, DayBounds::Exclusive] {
        let mut site = site(Engine::Sqlite, Shop::seeded(1001, 0, Utc::now())).await;
        {
            let mut world = site.salla.world();
            world.day_bounds = bounds;
            world.whole_rows = true;
            world.honours_filter = false;
            // An hour and a bit apart, so that all hours of all days are among them.
            let start = Utc::now() - TimeDelta::days(900);
            for number in 0..10_400 {
                world.shop(1001).place(start + TimeDelta::seconds(number * 7_201));
            }
        }
        site.set("SALLA__LISTING", "scan");
        site.set("RECONCILE__PAGE_SIZE", "500");
        // The simulator sorts ten thousand orders for each page.
        site.set("SALLA__REQUEST_TIMEOUT", "20s");
        site.salla.world().page_cap = 500;
        let run = site.reconcile(1001, &["--dry-run"]).await;
        assert_eq!(totals(&run)[0], 10_400, "{bounds:?}: {run}");
        assert_eq!(run["status"], "succeeded", "{bounds:?}: {run}");
    }
}

async fn stale_rows_drafts_and_a_capped_page(engine: Engine) {
    let mut site = site(engine, shop(1001, 40, 5)).await;
    site.set("RECONCILE__PAGE_SIZE", "60");
    {
        let mut world = site.salla.world();
        world.page_cap = 30;
        let shop = world.shop(1001);
        let old = shop.orders[4].clone();
        shop.touch(old.id, Utc::now());
        shop.stale.insert(old.id, old);
        shop.orders[5].draft = true;
    }
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [44, 44, 0, 0, 0, 0]);
    // The details are believed, not the row.
    site.assert_equal(1001).await;
    {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        shop.stale.clear();
        shop.orders[5].draft = false;
    }
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [45, 1, 0, 44, 0, 0]);
    site.assert_equal(1001).await;
    // One that becomes a draft again is in no list, and is not taken for deleted.
    site.salla.world().shop(1001).orders[5].draft = true;
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    assert_eq!(site.database.number("SELECT count(*) FROM orders WHERE deleted_at IS NOT NULL").await, 0);
}

/// The summary is as it was; our copy is not.
async fn a_webhook_s_older_copy_is_not_believed(engine: Engine) {
    let site = site(engine, shop(1001, 0, 12)).await;
    site.reconcile(1001, &[]).await;
    site.database
        .execute(
            "UPDATE orders SET status = 'lost' WHERE salla_order_id = (SELECT min(salla_order_id) FROM orders)",
            [],
        )
        .await;
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [12, 0, 1, 11, 0, 0]);
    site.assert_equal(1001).await;
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [12, 0, 0, 12, 0, 0]);
}

async fn a_scan_resumes_after_a_crash(engine: Engine) {
    let mut site = site(engine, shop(1001, 0, 30)).await;
    site.set("SALLA__LISTING", "scan");
    site.set("RECONCILE__PAGE_SIZE", "5");
    site.set("RECONCILE__LEASE", "2s");
    site.salla.world().always.insert(1001, Fault::Hang(std::time::Duration::from_millis(40)));
    let mut daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["totals"]["fetched"].as_u64() >= Some(10)).await;
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.wait().await;
    let daemon = site.serve().await;
    let run = daemon.await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!(totals(&run), [30, 30, 0, 0, 0, 0]);
    assert_eq!(run["listing"], "scan");
    site.assert_equal(1001).await;
    // At most one page of details was read again.
    assert!(requests(&site).1 <= 35, "{:?}", requests(&site));
}

async fn ignored_sorting_is_detected(engine: Engine) {
    for order in [ListOrder::CreatedDescending, ListOrder::Id, ListOrder::Scattered, ListOrder::UpdatedDescending] {
        let mut site = site(engine, shop(1001, 90, 10)).await;
        site.salla.world().honours_sort = false;
        site.salla.world().list_order = order;
        site.set("RECONCILE__PAGE_SIZE", "25");
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["status"], "succeeded", "{order:?}: {run}");
        assert_eq!(totals(&run), [100, 100, 0, 0, 0, 0], "{order:?}");
        site.assert_equal(1001).await;
    }
}

async fn a_single_order_is_read(engine: Engine) {
    let site = site(engine, shop(1001, 0, 1)).await;
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [1, 1, 0, 0, 0, 0]);
    site.assert_equal(1001).await;
}

async fn wrong_details_are_refused(engine: Engine) {
    let site = site(engine, shop(1001, 0, 3)).await;
    site.reconcile(1001, &[]).await;
    let id = site.salla.world().shop(1001).orders[0].id;
    site.salla.world().shop(1001).touch(id, Utc::now());
    // Filter, list, and then the one order that changed: another's details, none at all, and gone although listed.
    let other = site.salla.world().shop(1001).orders[1].detail(Utc::now());
    let answers = [
        Fault::ok("application/json", &format!(r#"{{"success":true,"data":{other}}}"#)),
        Fault::ok("application/json", r#"{"success":true,"data":{"id":1}}"#),
        Fault::no_such_record(),
    ];
    for answer in answers {
        let right = Fault::Hang(std::time::Duration::ZERO);
        site.salla.world().script(1001, [right.clone(), right, answer]);
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(totals(&run), [3, 0, 0, 2, 1, 0], "{run}");
        assert_eq!(run["status"], "partial");
    }
    assert_eq!(site.database.number("SELECT count(*) FROM orders WHERE deleted_at IS NOT NULL").await, 0);
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [3, 0, 1, 2, 0, 0]);
    site.assert_equal(1001).await;
}

/// One row of the first page is nothing that can be read; the filter is found out all the same.
async fn a_bad_summary_fails_alone(engine: Engine) {
    let site = site(engine, shop(1001, 0, 9)).await;
    site.salla.world().shop(1001).raw_rows.push("[1]".to_owned());
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((run["listing"].as_str(), totals(&run)), (Some("scan"), [10, 9, 0, 0, 1, 0]), "{run}");
    site.assert_equal(1001).await;
}
