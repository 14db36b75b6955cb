//! How many requests a night costs in each listing, counted by the simulated Salla. `docs/explanation/listings.md` has the
//! bounds.

use chrono::{TimeDelta, Utc};
use salla_reconciler::simulator::{ListOrder, Ties};
use serde_json::Value;

use crate::support::{Engine, Site, site::shop};

on_every_database!(
    a_filtered_list_costs_its_pages_and_two_more,
    a_filtered_list_of_new_orders_costs_its_pages_and_two_more,
    a_filtered_list_of_equal_stamps_costs_its_pages_twice,
    a_night_of_a_thousand_orders_with_ten_changes,
);

/// Pages of the filtered lists below.
const PAGES: usize = 15;

/// A site whose first night is over, and in which 150 of 300 old orders changed, ten to a page.
async fn changed_site(engine: Engine, stamp: impl Fn(i64) -> TimeDelta) -> Site {
    let mut site = Site::new(engine, [shop(1001, 300, 0)]).await;
    site.set("RECONCILE__PAGE_SIZE", "10");
    site.reconcile(1001, &["--full"]).await;
    {
        let mut world = site.salla.world();
        world.page_cap = 10;
        world.list_order = ListOrder::CreatedAscending;
        let now = Utc::now();
        let orders = world.shop(1001).orders.clone();
        for (number, order) in (0..).zip(orders.iter().step_by(2)) {
            world.shop(1001).touch(order.id, now - TimeDelta::minutes(200) + stamp(number));
        }
        world.seen.clear();
    }
    site
}

async fn night(site: &Site) -> (Value, usize) {
    site.salla.world().seen.clear();
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    site.assert_equal(1001).await;
    let requests = site.salla.world().seen.len();
    (run, requests)
}

async fn a_filtered_list_costs_its_pages_and_two_more(engine: Engine) {
    for sorts in [true, false] {
        let site = changed_site(engine, TimeDelta::seconds).await;
        site.salla.world().sorts_filtered = sorts;
        let (run, requests) = night(&site).await;
        assert_eq!(run["totals"]["updated"], 150, "{run}");
        let bound = if sorts { PAGES + 2 } else { 2 * PAGES + 2 };
        assert!(requests <= bound, "sorts: {sorts}: {requests} requests, {bound} are allowed");
        let query = site.salla.world().seen[0].query.clone();
        assert!(query.contains_key("updated_at_min") && query["sort_by"] == "updated_at-desc", "{query:?}");
    }
}

/// New orders stand in the same order by time of change, by creation and by id.
async fn a_filtered_list_of_new_orders_costs_its_pages_and_two_more(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 20, 0)]).await;
    site.set("RECONCILE__PAGE_SIZE", "10");
    site.reconcile(1001, &["--full"]).await;
    {
        let mut world = site.salla.world();
        (world.page_cap, world.sorts_filtered) = (10, true);
        for minute in 0..150 {
            world.shop(1001).place(Utc::now() - TimeDelta::minutes(200 - minute));
        }
    }
    let (run, requests) = night(&site).await;
    assert_eq!(run["totals"]["created"], 150, "{run}");
    assert!(requests <= PAGES + 2, "{requests} requests");
}

async fn a_filtered_list_of_equal_stamps_costs_its_pages_twice(engine: Engine) {
    // 25 orders have one stamp: they lie across page boundaries.
    let site = changed_site(engine, |number| TimeDelta::seconds(number.max(125))).await;
    {
        let mut world = site.salla.world();
        (world.sorts_filtered, world.ties) = (true, Ties::ById);
    }
    let (run, requests) = night(&site).await;
    assert_eq!(run["totals"]["updated"], 150, "{run}");
    assert!(requests <= 2 * PAGES + 2, "{requests} requests");
}

async fn a_night_of_a_thousand_orders_with_ten_changes(engine: Engine) {
    a_night_is_cheap(engine, (1_000, 10)).await;
}

/// `ORDERS=100000 CHANGES=500` tries another size.
#[tokio::test(flavor = "multi_thread")]
async fn a_night_of_ten_thousand_orders_with_a_hundred_changes() {
    let size = |name, usual| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    a_night_is_cheap(Engine::Sqlite, (size("ORDERS", 10_000), size("CHANGES", 100))).await;
}

async fn a_night_is_cheap(engine: Engine, (orders, changes): (usize, usize)) {
    let site = Site::new(engine, [shop(1001, orders, 0)]).await;
    {
        let mut world = site.salla.world();
        world.documented = true;
        let placed = world.shop(1001).orders.clone();
        for order in placed.iter().step_by(5) {
            world.shop(1001).touch(order.id, order.created_at + (Utc::now() - order.created_at) / 2);
        }
    }
    site.reconcile(1001, &[]).await;
    for (listing, sorts) in [("sort", true), ("scan", false)] {
        site.salla.world().honours_sort = sorts;
        if listing == "scan" {
            // The list is found not to be sorted, once.
            night(&site).await;
        }
        {
            let mut world = site.salla.world();
            let placed = world.shop(1001).orders.clone();
            for order in placed.iter().step_by(orders / changes) {
                world.shop(1001).touch(order.id, Utc::now());
            }
        }
        let (run, requests) = night(&site).await;
        assert_eq!(run["listing"], listing, "{run}");
        let samples = orders.div_ceil(28);
        let bound = match listing {
            "sort" => changes + orders / 420 + changes / 20 + 30 + samples + 1,
            _ => 4 * orders.div_ceil(60) + 3 + changes + samples + 10,
        };
        println!("{listing}: {requests} requests of at most {bound}");
        assert!(requests <= bound, "{listing}: {requests} requests, {bound} are allowed");
    }
}
