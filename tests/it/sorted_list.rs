//! A server without a filter by change that sorts by time of change: every change is found the same night, with few
//! requests. A server that does not sort is not believed.

use chrono::{TimeDelta, Utc};
use salla_reconciler::simulator::{Fault, ListOrder, Shop, Ties};
use serde_json::{Value, json};

use crate::support::{
    Engine, Site,
    site::{shop, totals},
};

on_every_database!(
    a_change_that_only_details_show_is_found_the_same_night,
    a_server_that_does_not_sort_is_not_believed,
    a_contradiction_counts_although_the_scan_fails,
    a_missed_change_leads_to_a_scan,
    a_missed_change_is_found_on_a_later_page_without_totals,
    detail_checks_can_be_turned_off,
    few_orders_are_scanned,
    a_deletion_is_found_within_seven_nights,
    a_bulk_action_costs_one_night,
    no_change_of_a_bulk_action_is_lost_among_equal_time_stamps,
    changed_orders_that_cannot_be_read_do_not_end_the_sorted_list,
);

/// So many orders, a fifth of which changed some time after their creation.
fn changed_shop(orders: usize) -> Shop {
    let mut shop = shop(1001, orders, 0);
    let placed = shop.orders.clone();
    for order in placed.iter().step_by(5) {
        shop.touch(order.id, order.created_at + (Utc::now() - order.created_at) / 2);
    }
    shop
}

/// A site whose first night is over.
async fn site(engine: Engine, orders: usize) -> Site {
    let site = Site::new(engine, [changed_shop(orders)]).await;
    {
        let mut world = site.salla.world();
        world.documented = true;
        world.list_order = ListOrder::CreatedDescending;
    }
    assert_eq!(site.reconcile(1001, &[]).await["listing"], "scan");
    site
}

/// The next night: the run, and how many requests it sent.
async fn night(site: &Site) -> (Value, usize) {
    site.salla.world().seen.clear();
    let run = site.reconcile(1001, &[]).await;
    let requests = site.salla.world().seen.len();
    (run, requests)
}

fn sorted_list(run: &Value) -> &Value {
    &run["resource_results"][0]["sorted_list"]
}

async fn a_change_that_only_details_show_is_found_the_same_night(engine: Engine) {
    let site = site(engine, 300).await;
    let orders = site.salla.world().shop(1001).orders.clone();
    {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        for order in orders.iter().take(8) {
            shop.whisper(order.id, Utc::now());
        }
        shop.touch(orders[100].id, Utc::now());
        shop.place(Utc::now());
    }
    let (run, requests) = night(&site).await;
    assert_eq!((&run["status"], &run["listing"]), (&json!("succeeded"), &json!("sort")), "{run}");
    assert_eq!((&run["totals"]["created"], &run["totals"]["updated"]), (&json!(1), &json!(9)), "{run}");
    site.assert_equal(1001).await;
    // C + N/420 + C/20 + 30, N/28 samples, and the request that finds no filter.
    let bound = 10 + 1 + 1 + 30 + 300_usize.div_ceil(28) + 1;
    assert!(requests <= bound, "{requests} requests, {bound} are allowed");

    // Changes from shortly before the start of the last night are read again.
    let (run, requests) = night(&site).await;
    assert_eq!((&run["listing"], &run["totals"]["updated"]), (&json!("sort"), &json!(0)), "{run}");
    assert!(requests <= bound && sorted_list(&run)["watermark"].is_string(), "{requests}: {run}");

    let text = site.run(&["run", "--merchant", "1001", "--dry-run"]).await.exits(0).stdout;
    assert!(text.contains("merchant 1001: listing sort, about ") && text.contains(" minutes at "), "{text}");
}

async fn a_server_that_does_not_sort_is_not_believed(engine: Engine) {
    let site = site(engine, 300).await;
    let id = site.salla.world().shop(1001).orders[7].id;
    {
        let mut world = site.salla.world();
        world.honours_sort = false;
        world.shop(1001).touch(id, Utc::now());
    }
    let (run, _) = night(&site).await;
    assert_eq!((&run["status"], &run["listing"]), (&json!("succeeded"), &json!("scan")), "{run}");
    assert_eq!(totals(&run), [300, 0, 1, 299, 0, 0]);
    assert_eq!(sorted_list(&run)["violation"], "not_sorted", "{run}");
    assert_eq!((&sorted_list(&run)["scan_nights"], &sorted_list(&run)["next_penalty"]), (&json!(1), &json!(2)));
    site.assert_equal(1001).await;
    // The next night does not try; the night after it does.
    site.salla.world().honours_sort = true;
    let (run, _) = night(&site).await;
    assert_eq!((&run["listing"], &sorted_list(&run)["scan_nights"]), (&json!("scan"), &json!(0)), "{run}");
    assert_eq!(night(&site).await.0["listing"], "sort");
}

/// The scan after the contradiction would mark too many orders as deleted, so the run fails.
async fn a_contradiction_counts_although_the_scan_fails(engine: Engine) {
    let mut site = site(engine, 400).await;
    let orders = site.salla.world().shop(1001).orders.clone();
    {
        let mut world = site.salla.world();
        world.honours_sort = false;
        world.shop(1001).touch(orders[7].id, Utc::now());
        for order in orders.iter().skip(200).take(150) {
            world.shop(1001).delete(order.id);
        }
    }
    let (run, _) = night(&site).await;
    assert_eq!((&run["status"], &sorted_list(&run)["violation"]), (&json!("failed"), &json!("not_sorted")), "{run}");
    site.salla.world().honours_sort = true;
    site.set("RECONCILE__MAX_DELETION_RATIO", "1");
    let (run, _) = night(&site).await;
    assert_eq!((&run["status"], &run["listing"]), (&json!("succeeded"), &json!("scan")), "{run}");
    assert_eq!(sorted_list(&run)["scan_nights"], 0, "{run}");
    assert_eq!(night(&site).await.0["listing"], "sort");
}

async fn a_missed_change_leads_to_a_scan(engine: Engine) {
    let site = site(engine, 300).await;
    for (nights, missed) in [(0, 1), (28, 2)] {
        let id = {
            let mut world = site.salla.world();
            let mut orders = world.shop(1001).orders.clone();
            orders.sort_by_key(|order| std::cmp::Reverse(order.updated_at));
            // A change of long ago that no night has seen, far behind the rows that the prefix shows.
            let order = &orders[150 + missed];
            world.shop(1001).whisper(order.id, order.updated_at + TimeDelta::seconds(1));
            order.id
        };
        // The order is a sample: its details are the oldest.
        let sql = "UPDATE order_detail_checks SET details_read_at = $1 WHERE salla_order_id = $2";
        let earlier = Utc::now() - TimeDelta::hours(20);
        site.database.execute(sql, [earlier.into(), id.into()]).await;
        let (run, _) = night(&site).await;
        assert_eq!((&run["status"], &run["listing"]), (&json!("succeeded"), &json!("scan")), "{missed}: {run}");
        let list = sorted_list(&run);
        assert_eq!((&list["violation"], &list["scan_nights"]), (&json!("missed_change"), &json!(nights)), "{run}");
        site.assert_equal(1001).await;
    }
}

/// The order stands at the end of its day of creation, and the server does not say how many pages that day has.
async fn a_missed_change_is_found_on_a_later_page_without_totals(engine: Engine) {
    let site = site(engine, 300).await;
    let id = {
        let mut world = site.salla.world();
        (world.page_cap, world.hides_totals) = (5, true);
        let mut orders = world.shop(1001).orders.clone();
        orders.sort_by_key(|order| std::cmp::Reverse(order.updated_at));
        let order = orders[150].clone();
        world.shop(1001).whisper(order.id, order.updated_at + TimeDelta::seconds(1));
        let day = order.created_at;
        for (later, second) in orders.iter().take(20).zip(1..) {
            let listed = world.shop(1001).orders.iter_mut().find(|one| one.id == later.id).unwrap();
            listed.created_at = day + TimeDelta::seconds(second);
        }
        order.id
    };
    let sql = "UPDATE order_detail_checks SET details_read_at = $1 WHERE salla_order_id = $2";
    site.database.execute(sql, [(Utc::now() - TimeDelta::hours(20)).into(), id.into()]).await;
    let (run, _) = night(&site).await;
    assert_eq!(sorted_list(&run)["violation"], "missed_change", "{run}");
    assert_eq!((&run["status"], &run["listing"]), (&json!("succeeded"), &json!("scan")), "{run}");
}

async fn detail_checks_can_be_turned_off(engine: Engine) {
    let mut site = site(engine, 30).await;
    let long_ago = Utc::now() - TimeDelta::days(400);
    site.database.execute("UPDATE order_detail_checks SET details_read_at = $1", [long_ago.into()]).await;
    site.set("RECONCILE__DETAIL_CHECK_NIGHTS", "0");
    let details = |site: &Site| site.salla.world().seen.iter().filter(|seen| seen.id.is_some()).count();
    night(&site).await;
    assert_eq!(details(&site), 0);
    site.set("RECONCILE__DETAIL_CHECK_NIGHTS", "500");
    night(&site).await;
    let due = site.salla.world().shop(1001).orders.iter().filter(|order| is_due(order.id, 500)).count();
    assert_eq!(details(&site), due);
    site.set("RECONCILE__DETAIL_CHECK_NIGHTS", "auto");
    night(&site).await;
    assert_eq!(details(&site), 30 - due);
}

fn is_due(id: i64, nights: i64) -> bool {
    Utc::now().timestamp().div_euclid(86_400).rem_euclid(nights) == id.rem_euclid(nights)
}

async fn few_orders_are_scanned(engine: Engine) {
    let mut site = site(engine, 119).await;
    assert_eq!(night(&site).await.0["listing"], "scan");
    site.salla.world().shop(1001).place(Utc::now());
    assert_eq!(night(&site).await.0["listing"], "scan", "the 120th order is not stored yet");
    assert_eq!(night(&site).await.0["listing"], "sort");
    site.set("SALLA__LISTING", "scan");
    assert_eq!(night(&site).await.0["listing"], "scan");
    site.set("SALLA__LISTING", "sort");
    assert_eq!(night(&site).await.0["listing"], "sort");
    let seen = site.salla.world().seen[0].query.clone();
    assert_eq!(seen["sort_by"], "updated_at-desc");
}

async fn a_deletion_is_found_within_seven_nights(engine: Engine) {
    let site = site(engine, 300).await;
    let id = site.salla.world().shop(1001).orders[7].id;
    site.salla.world().shop(1001).delete(id);
    let deleted = format!("SELECT count(*) FROM orders WHERE salla_order_id = {id} AND deleted_at IS NOT NULL");
    let mut nights = 0;
    while site.database.number(&deleted).await == 0 {
        nights += 1;
        assert!(nights <= 7, "not found within seven nights");
        assert_eq!(night(&site).await.0["listing"], "sort");
    }
    site.assert_equal(1001).await;
}

/// More than half of the orders changed: all details are read once, and the next night is sorted again.
async fn a_bulk_action_costs_one_night(engine: Engine) {
    let site = site(engine, 300).await;
    let orders = site.salla.world().shop(1001).orders.clone();
    for order in orders.iter().take(240) {
        site.salla.world().shop(1001).whisper(order.id, Utc::now() - TimeDelta::minutes(20));
    }
    // The first night ended before the bulk action.
    let yesterday = Utc::now() - TimeDelta::days(1);
    for sql in ["UPDATE order_detail_checks SET details_read_at = $1", "UPDATE watermarks SET watermark = $1"] {
        site.database.execute(sql, [yesterday.into()]).await;
    }
    let (run, _) = night(&site).await;
    assert_eq!((&run["listing"], &run["totals"]["updated"]), (&json!("scan"), &json!(240)), "{run}");
    site.assert_equal(1001).await;
    let (run, requests) = night(&site).await;
    assert!(run["listing"] == "sort" && requests < 100, "{requests}: {run}");
}

/// The details of one order cannot be read, and one is listed although its own address answers that it is gone.
/// Each page orders the rows with one time stamp in its own way, so that some are on no page of the sorted list.
async fn no_change_of_a_bulk_action_is_lost_among_equal_time_stamps(engine: Engine) {
    let site = site(engine, 300).await;
    {
        let mut world = site.salla.world();
        world.ties = Ties::EachPageNumber;
        let now = Utc::now();
        let shop = world.shop(1001);
        for id in shop.orders.iter().step_by(2).take(110).map(|order| order.id).collect::<Vec<_>>() {
            shop.whisper(id, now);
        }
    }
    let (run, _) = night(&site).await;
    assert_eq!((&run["status"], &run["totals"]["updated"]), (&json!("succeeded"), &json!(110)), "{run}");
    site.assert_equal(1001).await;
    // The list is not penalized for it.
    site.salla.world().ties = Ties::ById;
    assert_eq!(night(&site).await.0["listing"], "sort");
}

async fn changed_orders_that_cannot_be_read_do_not_end_the_sorted_list(engine: Engine) {
    let site = site(engine, 300).await;
    let orders = site.salla.world().shop(1001).orders.clone();
    {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        for order in orders.iter().take(12) {
            shop.whisper(order.id, Utc::now());
        }
        let body = json!({"status": 200, "success": true, "data": {"id": orders[3].id, "amounts": 7}}).to_string();
        shop.broken.insert(orders[3].id, Fault::ok("application/json", &body));
        shop.broken.insert(orders[5].id, Fault::no_such_record());
    }
    for number in 0..2 {
        let (run, requests) = night(&site).await;
        assert_eq!((&run["status"], &run["listing"]), (&json!("partial"), &json!("sort")), "night {number}: {run}");
        assert_eq!(run["totals"]["skipped"], 2, "night {number}: {run}");
        assert!(requests < 120, "night {number}: {requests} requests");
    }
    site.salla.world().shop(1001).broken.clear();
    let (run, _) = night(&site).await;
    assert_eq!((&run["status"], &run["listing"]), (&json!("succeeded"), &json!("sort")), "{run}");
    site.assert_equal(1001).await;
}
