//! The customers of a large merchant. Salla lists them by day of signup and by nothing else. Each
//! night, the run reads new customers, and a slice of the others.

use chrono::Utc;
use salla_reconciler::simulator::{Customer, Item};
use serde_json::{Value, json};

use crate::support::{
    Engine, Site,
    site::{shop, totals},
};

on_every_database!(every_change_is_found_within_28_nights, full_and_first_runs_read_all_customers);

const CUSTOMERS: usize = 700;

async fn site(engine: Engine, customers: usize) -> Site {
    let mut site = Site::new(engine, [shop(1001, 0, 0).visited(customers, Utc::now())]).await;
    site.set("RECONCILE__RESOURCES", "customers");
    site.set("RECONCILE__LOOKBACK", "1h");
    site.set("SALLA__CUSTOMER_REQUESTS_PER_10_MINUTES", "1000000");
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((&run["status"], &run["listing"]), (&json!("succeeded"), &json!("scan")), "{run}");
    site.assert_equal_of::<Customer>(1001).await;
    site
}

async fn every_change_is_found_within_28_nights(engine: Engine) {
    let site = site(engine, CUSTOMERS).await;
    let gone = {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        let mut ids: Vec<_> = shop.customers.iter().map(|customer| (customer.created_at, customer.id)).collect();
        ids.sort_unstable();
        for nth in [0, 1, 99, 250, 251, 500, CUSTOMERS - 2, CUSTOMERS - 1] {
            Customer::change(shop, ids[nth].1, Utc::now());
        }
        Customer::remove(shop, ids[400].1);
        ids[400].1
    };
    let (mut changed, mut before) = (0, Value::Null);
    for night in 0..28 {
        // Somebody new each night, who is there in the morning.
        let new = Customer::add(site.salla.world().shop(1001), Utc::now());
        let run = site.reconcile(1001, &[]).await;
        let part = &run["resource_results"][0];
        assert_eq!(
            (&run["status"], &part["listing"]),
            (&json!("succeeded"), &json!("rotation")),
            "night {night}: {run}"
        );
        let found = format!("SELECT count(*) FROM customers WHERE salla_customer_id = {new}");
        assert_eq!(site.database.number(&found).await, 1, "night {night}");
        assert_eq!(part["slice"]["from"], before, "night {night}: the next part is due");
        before = part["slice"]["to"].clone();
        let [fetched, created, updated, ..] = totals(&run);
        // A twenty-seventh, the days at both ends of it, and those who are new.
        assert!(fetched < 180, "night {night}: {fetched} of {CUSTOMERS}");
        assert_eq!(created, 1, "night {night}: {run}");
        changed += updated;
    }
    assert_eq!(changed, 8, "each change was found once");
    site.assert_equal_of::<Customer>(1001).await;
    let marked = format!("SELECT count(*) FROM customers WHERE salla_customer_id = {gone} AND deleted_at IS NOT NULL");
    assert_eq!(site.database.number(&marked).await, 1);
}

async fn full_and_first_runs_read_all_customers(engine: Engine) {
    let small = site(engine, 40).await;
    let run = small.reconcile(1001, &[]).await;
    assert_eq!((&run["listing"], totals(&run)[0]), (&json!("scan"), 40), "few: {run}");

    let large = site(engine, CUSTOMERS).await;
    let run = large.reconcile(1001, &["--full"]).await;
    assert_eq!((&run["listing"], totals(&run)[0]), (&json!("scan"), 700), "asked for: {run}");
    assert_eq!(run["resource_results"][0].get("slice"), None, "{run}");
    // A run that fails, and a dry one, leave the part to the next.
    let dry = large.reconcile(1001, &["--dry-run"]).await;
    let run = large.reconcile(1001, &[]).await;
    let slice = |run: &Value| run["resource_results"][0]["slice"].clone();
    assert!(slice(&dry)["from"].is_null() && slice(&dry) == slice(&run), "{dry} {run}");
    // Of one it is not known when it signed up.
    large
        .database
        .execute("UPDATE customers SET salla_created_at = NULL WHERE id = (SELECT min(id) FROM customers)", [])
        .await;
    let run = large.reconcile(1001, &[]).await;
    assert_eq!((&run["listing"], totals(&run)[0]), (&json!("scan"), 700), "{run}");
    large.assert_equal_of::<Customer>(1001).await;
}
