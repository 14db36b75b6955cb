//! The data of customers that the program keeps: everything, the data that do not name them, or nothing. Also the
//! erasure of one customer.

use std::time::Duration;

use chrono::Utc;
use salla_reconciler::simulator::{Customer, Fault, Item, Order, Shop};
use serde_json::{Value, json};

use crate::support::{
    Engine, Site,
    site::{shop, totals},
};

on_every_database!(
    the_level_none_stores_no_personal_data,
    pseudonyms,
    one_person_is_erased,
    the_payload_of_an_erased_customer_can_come_back,
    a_person_is_erased_while_a_run_reads,
    what_another_writer_left
);

const KEY: &str = "a key of thirty-two characters!!";

/// What of a store's orders and customers names or reaches somebody, besides mobile numbers.
const PERSONAL: [&str; 6] = ["نورة", "العتيبي", "عبدالله", "@example.com", "شارع العليا", "198.51.100.7"];

fn peopled(merchant: i64) -> Shop {
    shop(merchant, 0, 12).visited(12, Utc::now())
}

async fn site(engine: Engine) -> Site {
    let mut site = Site::new(engine, [peopled(1001)]).await;
    site.set("RECONCILE__RESOURCES", "orders,customers");
    site
}

/// Everything that any table holds.
async fn held(site: &Site) -> String {
    site.database.dump().await.into_iter().map(|(_, text)| text).collect()
}

/// A number of nine digits that begins with 5, with or without the country's code before it. It has to stand alone: a
/// few digits of it are found in any content hash, and nine of them behind a second's point. The ids of orders' statuses
/// look like one.
fn is_mobile(word: &str) -> bool {
    let number = word.strip_prefix("966").filter(|number| number.len() == 9).unwrap_or(word);
    let status = number.starts_with("5661464");
    number.len() == 9 && number.starts_with('5') && !status && number.bytes().all(|digit| digit.is_ascii_digit())
}

fn personal(text: &str) -> Vec<&str> {
    let mobiles = text.split(|letter: char| !letter.is_alphanumeric() && letter != '.').filter(|word| is_mobile(word));
    PERSONAL.into_iter().filter(|secret| text.contains(secret)).chain(mobiles).collect()
}

async fn the_level_none_stores_no_personal_data(engine: Engine) {
    let mut site = site(engine).await;
    site.reconcile(1001, &["--full"]).await;
    let everything = held(&site).await;
    let found = personal(&everything);
    assert!(found.len() > 4 && found.iter().any(|word| is_mobile(word)), "the test could not fail: {found:?}");
    // No run sees these again.
    let gone = {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        let ids = (shop.orders[0].id, shop.customers[0].id);
        Order::remove(shop, ids.0);
        Customer::remove(shop, ids.1);
        ids
    };
    site.reconcile(1001, &["--full"]).await;

    site.set("PRIVACY__CUSTOMER_FIELDS", "none");
    let nameless = [r#"{"secret":1}"#, r#"{"secret":2}"#].map(str::to_owned);
    site.salla.world().shop(1001).raw_rows.extend(nameless);
    let run = site.reconcile(1001, &["--full", "--dry-run"]).await;
    assert_eq!((&run["status"], &totals(&run)[4]), (&json!("partial"), &2), "nothing is kept of either: {run}");
    site.salla.world().shop(1001).raw_rows.clear();
    let run = site.reconcile(1001, &["--full"]).await;
    assert_eq!((&run["status"], totals(&run)), (&json!("succeeded"), [22, 0, 22, 0, 0, 0]), "{run}");
    let left = held(&site).await;
    assert!(!personal(&left).is_empty(), "what is gone was listed");
    let redacted = site.run(&["customers", "redact"]).await.exits(0);
    assert!(redacted.stdout.contains("1 orders and 1 customers rewritten"), "{}", redacted.stdout);
    let left = held(&site).await;
    assert!(personal(&left).is_empty(), "{:?}", personal(&left));
    let deleted = format!(
        "SELECT (SELECT count(*) FROM orders WHERE salla_order_id = {} AND deleted_at IS NOT NULL) + \
         (SELECT count(*) FROM customers WHERE salla_customer_id = {} AND deleted_at IS NOT NULL)",
        gone.0, gone.1
    );
    assert_eq!(site.database.number(&deleted).await, 2, "redaction is no deletion, and no restoration");
    let run = site.reconcile(1001, &["--full"]).await;
    assert_eq!(totals(&run), [22, 0, 0, 22, 0, 0], "a quiet night: {run}");
    let redacted = site.run(&["customers", "redact"]).await.exits(0);
    assert!(redacted.stdout.contains("0 orders and 0 customers rewritten"), "{}", redacted.stdout);
    let noted = "SELECT count(*) FROM audit WHERE action = 'customers.redact'";
    assert_eq!(site.database.number(noted).await, 4, "two at its beginning, and two at its end");
    let analyst =
        "SELECT count(*) FROM orders WHERE total_amount IS NOT NULL AND status IS NOT NULL AND payload IS NOT NULL";
    assert_eq!(site.database.number(analyst).await, 12);
}

async fn pseudonyms(engine: Engine) {
    let mut site = site(engine).await;
    site.set("PRIVACY__CUSTOMER_FIELDS", "pseudonymous");
    let refused = site.run(&["run"]).await.exits(78);
    assert!(
        refused.stderr.contains("privacy.pseudonym_key") && refused.stderr.contains("openssl"),
        "{}",
        refused.stderr
    );
    site.set("PRIVACY__PSEUDONYM_KEY", KEY);
    // One of the customers has placed an order.
    {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        shop.customers[0].id = shop.orders.iter().find(|order| order.id % 7 != 0).unwrap().customer_id();
    }
    let run = site.reconcile(1001, &["--full"]).await;
    assert_eq!(totals(&run), [24, 24, 0, 0, 0, 0], "{run}");
    let everything = held(&site).await;
    assert!(personal(&everything).is_empty(), "{:?}", personal(&everything));
    assert!(!everything.contains(KEY));
    let found = "SELECT count(*) FROM customers WHERE email LIKE 'p\\_%' ESCAPE '\\' AND mobile LIKE 'p\\_%' ESCAPE '\\' \
                 AND first_name IS NULL AND last_name IS NULL AND birthday IS NULL AND city IS NOT NULL";
    assert_eq!(site.database.number(found).await, 12);
    assert_eq!(site.database.number("SELECT count(DISTINCT email) FROM customers").await, 12);
    let customer = site.salla.world().shop(1001).customers[0].id;
    let pseudonym =
        site.database.text(&format!("SELECT email FROM customers WHERE salla_customer_id = {customer}")).await;
    let orders = site.database.rows("SELECT CAST(payload AS text) AS payload FROM orders").await;
    let payloads: Vec<Value> = orders
        .iter()
        .map(|row| serde_json::from_str(&row.try_get::<String>("", "payload").unwrap()).unwrap())
        .collect();
    assert!(payloads.iter().any(|order| order["customer"]["email"] == json!(pseudonym)), "{pseudonym}");
    let run = site.reconcile(1001, &["--full"]).await;
    assert_eq!(totals(&run), [24, 0, 0, 24, 0, 0], "{run}");
}

/// A customer who has placed an order, and the addresses by which all that is held of it is found.
fn somebody(site: &Site) -> (i64, String) {
    let mut world = site.salla.world();
    let shop = world.shop(1001);
    let order = shop.orders.iter().find(|order| order.id % 7 != 0).unwrap();
    let id = order.customer_id();
    shop.customers[0].id = id;
    (id, format!("customer-{id}@example.com"))
}

async fn one_person_is_erased(engine: Engine) {
    let site = site(engine).await;
    let (id, address) = somebody(&site);
    site.reconcile(1001, &["--full"]).await;
    let others = |text: &str| text.matches("@example.com").count() - text.matches(&address).count();
    let before = held(&site).await;
    assert!(before.matches(&address).count() >= 3, "columns and payloads");
    site.run(&["customers", "erase", "1001", "0"]).await.exits(2);
    let erased = site.run(&["customers", "erase", "1001", &id.to_string()]).await.exits(0);
    assert!(erased.stdout.contains("1 customers rewritten"), "{}", erased.stdout);
    let after = held(&site).await;
    assert!(!after.contains(&address), "something is left");
    assert_eq!(others(&after), others(&before), "others are as they were");
    let bare = format!(
        "SELECT count(*) FROM customers WHERE salla_customer_id = {id} AND first_name IS NULL AND email IS NULL \
         AND mobile IS NULL AND city IS NULL AND gender IS NULL AND country_code IS NULL"
    );
    assert_eq!(site.database.number(&bare).await, 1);

    // An order without a customer id may belong to an erased customer.
    site.reconcile(1001, &["--full"]).await;
    let nameless = site.database.rows("SELECT CAST(payload AS text) AS payload FROM orders").await;
    let mut found = 0;
    for row in nameless {
        let text: String = row.try_get("", "payload").unwrap();
        let order: Value = serde_json::from_str(&text).unwrap();
        if order["customer"]["id"].is_null() {
            found += 1;
            assert!(personal(&text).is_empty(), "{text}");
        }
    }
    assert!(found > 0, "the test could not fail");
    // It does not come back, whatever changes, and no night is restless for it.
    let run = site.reconcile(1001, &["--full"]).await;
    assert_eq!((&run["status"], totals(&run)), (&json!("succeeded"), [24, 0, 0, 24, 0, 0]), "{run}");
    {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        Customer::change(shop, id, Utc::now());
        let orders: Vec<i64> =
            shop.orders.iter().filter(|order| order.customer_id() == id).map(|order| order.id).collect();
        orders.into_iter().for_each(|order| shop.touch(order, Utc::now()));
    }
    let run = site.reconcile(1001, &[]).await;
    assert!(totals(&run)[2] >= 2, "{run}");
    let after = held(&site).await;
    assert!(!after.contains(&address));
    // Again, of somebody who is not held, and of a store that is not registered.
    for (merchant, id) in [("1001", id), ("1001", 5), ("77", 5)] {
        let erased = site.run(&["customers", "erase", merchant, &id.to_string()]).await.exits(0);
        assert_eq!(erased.stdout.contains("No merchant 77 is registered"), merchant == "77", "{erased:?}");
    }
    let mistyped = site.run(&["customers", "erase", "abc", "5"]).await.exits(2);
    assert!(mistyped.stderr.contains("a merchant id is a whole number"), "{mistyped:?}");
    let daemon = site.serve().await;
    let (_, audit) = daemon.get("/audit").await;
    let entries: Vec<&Value> =
        audit["entries"].as_array().unwrap().iter().filter(|entry| entry["action"] == "customer.erase").collect();
    assert!(entries.len() >= 3 && entries.iter().any(|entry| entry["detail"]["customer_id"] == json!(id)), "{audit}");
}

/// The erasure replaces the payload, and so the hash of the payload that Salla sent.
async fn the_payload_of_an_erased_customer_can_come_back(engine: Engine) {
    let site = site(engine).await;
    let (id, address) = somebody(&site);
    site.reconcile(1001, &["--full"]).await;
    let before = held(&site).await.matches(&address).count();
    site.run(&["customers", "erase", "1001", &id.to_string()]).await.exits(0);
    assert!(!held(&site).await.contains(&address));
    site.database.execute("DELETE FROM erased_customers", []).await;
    let run = site.reconcile(1001, &["--full"]).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    assert_eq!(held(&site).await.matches(&address).count(), before, "{run}");
}

/// Data that the run has read before the erasure is not written after it.
async fn a_person_is_erased_while_a_run_reads(engine: Engine) {
    let mut site = site(engine).await;
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.set("RECONCILE__LEASE", "3s");
    let (id, address) = somebody(&site);
    site.salla.world().always.insert(1001, Fault::Hang(Duration::from_millis(80)));
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001,"full":true}"#).await;
    daemon.await_run("", |run| run["totals"]["fetched"].as_u64() >= Some(5)).await;
    site.run(&["customers", "erase", "1001", &id.to_string()]).await.exits(0);
    for _ in 0..20 {
        assert!(!held(&site).await.contains(&address), "written after it was erased");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    site.salla.world().always.clear();
    let run = daemon.await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!(totals(&run)[0], 24, "{run}");
    assert!(!held(&site).await.contains(&address));
    assert!(!daemon.log_text().contains(&address) && personal(&daemon.log_text()).is_empty());
}

/// Rows without a payload, and with one that is nothing of Salla's.
async fn what_another_writer_left(engine: Engine) {
    let mut site = site(engine).await;
    let rows = "INSERT INTO customers (merchant_id, salla_customer_id, first_name, email, payload) VALUES \
                (1001, 1, 'نورة', 'a@example.com', NULL), (1001, 2, 'نورة', 'b@example.com', '{\"name\": \"نورة\"}')";
    site.database.execute(rows, []).await;
    let orders = "INSERT INTO orders (merchant_id, salla_order_id, status, payload) VALUES \
                  (1001, 1, 'completed', '[\"نورة\"]'), \
                  (1001, 2, 'completed', '{\"customer\": {\"id\": \"9\", \"first_name\": \"نورة\"}}')";
    site.database.execute(orders, []).await;
    // Where all is kept, nothing is lost because it cannot be read.
    let redacted = site.run(&["customers", "redact"]).await.exits(0);
    assert!(redacted.stdout.contains("0 orders and 0 customers"), "{}", redacted.stdout);
    assert!(redacted.stdout.contains("run --full"), "{}", redacted.stdout);
    site.run(&["customers", "erase", "1001", "9"]).await.exits(0);
    assert_eq!(site.database.number("SELECT count(*) FROM orders WHERE payload IS NULL").await, 1);
    assert_eq!(site.database.number("SELECT count(*) FROM orders WHERE status = 'completed'").await, 2);
    site.set("PRIVACY__CUSTOMER_FIELDS", "none");
    site.run(&["customers", "redact"]).await.exits(0);
    let left = held(&site).await;
    assert!(personal(&left).is_empty(), "{:?}", personal(&left));
    assert_eq!(site.database.number("SELECT count(*) FROM orders WHERE status = 'completed'").await, 2);
    // Rows that tell nothing any more are left alone, payload or not.
    let redacted = site.run(&["customers", "redact"]).await.exits(0);
    assert!(redacted.stdout.contains("0 orders and 0 customers"), "{}", redacted.stdout);
}
