//! Several kinds of record in one run, and the guarantees of each kind.

use std::time::Duration;

use nix::sys::signal::Signal;
use salla_reconciler::simulator::{Fault, Item, OrderStatus, Product, Shop};
use serde_json::{Value, json};

use crate::support::{
    Engine, Site,
    kind::Kind,
    site::{everything, shop, totals},
};

on_every_database!(
    a_list_without_pages_must_be_complete,
    both_in_one_run,
    a_missing_scope_fails_one_resource,
    every_kind_drifts_and_is_corrected,
    a_crash_in_the_second_kind,
    what_is_asked_for_over_http,
    a_backoff_between_resources_is_waited_for,
    another_writer_of_every_kind,
    each_resource_has_its_watermark,
);

fn part<'a>(run: &'a Value, resource: &str) -> &'a Value {
    run["resource_results"]
        .as_array()
        .and_then(|parts| parts.iter().find(|part| part["resource"] == resource))
        .unwrap_or_else(|| panic!("no {resource} in {run}"))
}

/// The totals of a part, in their order.
fn of(run: &Value, resource: &str) -> [u64; 6] {
    totals(part(run, resource))
}

/// A store that has both.
fn both(merchant: i64, orders: usize, products: usize) -> Shop {
    shop(merchant, 0, orders).stocked(products, chrono::Utc::now())
}

async fn both_in_one_run(engine: Engine) {
    let mut site = Site::new(engine, [both(1001, 7, 130)]).await;
    // Orders only, unless somebody says otherwise.
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((totals(&run), run["resource_results"].as_array().unwrap().len()), ([7, 7, 0, 0, 0, 0], 1), "{run}");
    assert_eq!(site.database.number("SELECT count(*) FROM products").await, 0);

    site.set("RECONCILE__RESOURCES", "products, orders");
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    assert_eq!(totals(&run), [137, 130, 0, 7, 0, 0]);
    assert_eq!(of(&run, "orders"), [7, 0, 0, 7, 0, 0]);
    assert_eq!(of(&run, "products"), [130, 130, 0, 0, 0, 0]);
    // One after the other, in the order of the list, whatever was said.
    assert_eq!(run["resource_results"][0]["resource"], "orders");
    assert_eq!(
        (&part(&run, "orders")["listing"], &part(&run, "products")["listing"]),
        (&json!("filter"), &json!("scan"))
    );
    site.assert_equal(1001).await;
    site.assert_equal_of::<Product>(1001).await;
    let lists: Vec<_> = site.salla.world().seen.iter().map(|seen| seen.list).collect();
    assert!(lists.is_sorted(), "{lists:?}");

    let run = site.reconcile(1001, &["--resource", "products"]).await;
    assert_eq!((totals(&run), run["resource_results"].as_array().unwrap().len()), ([130, 0, 0, 130, 0, 0], 1), "{run}");
    let refused = site.run(&["run", "--resource", "ordres"]).await.exits(2);
    assert!(refused.stderr.contains("orders") && refused.stderr.contains("products"), "{}", refused.stderr);
    for (wrong, said) in [("orders,ordres", "must be some of orders, products"), (" , ", "names nothing")] {
        site.set("RECONCILE__RESOURCES", wrong);
        let refused = site.run(&["run"]).await.exits(78);
        assert!(refused.stderr.contains("reconcile.resources") && refused.stderr.contains(said), "{}", refused.stderr);
    }
}

async fn a_missing_scope_fails_one_resource(engine: Engine) {
    let mut site = Site::new(engine, [both(1001, 5, 9)]).await;
    site.set("RECONCILE__RESOURCES", "orders,products");
    site.salla.world().shop(1001).withheld.push("products.read");
    let output = site.run(&["run", "--json", "--merchant", "1001"]).await.exits(3);
    let run = output.object();
    assert_eq!(run["status"], "partial", "{run}");
    assert_eq!(of(&run, "orders"), [5, 5, 0, 0, 0, 0]);
    assert_eq!(part(&run, "orders")["status"], "succeeded");
    assert_eq!(part(&run, "products")["status"], "failed");
    for error in [&run["error"], &part(&run, "products")["error"]] {
        assert_eq!(error["kind"], "missing_scope", "{run}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("products.read") && message.contains("add the scope to the app"), "{message}");
    }
    assert!(run["error"]["message"].as_str().unwrap().starts_with("products: "), "{run}");
    let watermarks = site.database.text("SELECT max(resource) || count(*) FROM watermarks").await;
    assert_eq!(watermarks, "orders1", "only what was read is covered");
    site.assert_equal(1001).await;

    // Alone, it fails the run.
    let run = site.reconcile(1001, &["--resource", "products"]).await;
    assert_eq!((&run["status"], &run["error"]["kind"]), (&json!("failed"), &json!("missing_scope")), "{run}");
    assert_eq!(site.salla.world().refreshes, 0, "a missing scope burns no token");

    site.salla.world().shop(1001).withheld.clear();
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((&run["status"], &run["error"]), (&json!("succeeded"), &Value::Null), "{run}");
    site.assert_equal_of::<Product>(1001).await;
}

async fn every_kind_drifts_and_is_corrected(engine: Engine) {
    of_every_kind!(drifts_and_is_corrected(engine));
}

/// Changed, new and deleted records are corrected and recorded. A night without changes writes nothing.
async fn drifts_and_is_corrected<K: Kind>(engine: Engine) {
    let site = Site::new(engine, [everything(1001, 40, 40)]).await;
    let (kind, now) = (K::RESOURCE.as_str(), chrono::Utc::now());
    let full = ["--full", "--resource", kind];
    assert_eq!(totals(&site.reconcile(1001, &full).await), [40, 40, 0, 0, 0, 0]);
    let ids: Vec<i64> = K::all(site.salla.world().shop(1001)).iter().map(Item::id).collect();
    {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        K::change(shop, ids[3], now);
        K::remove(shop, ids[5]);
        K::add(shop, now);
    }
    // Of the same age, and not what Salla has.
    let sql = format!("UPDATE {} SET {} = 'odd' WHERE {} = $1", K::TABLE, K::WORD, K::ID);
    site.database.execute(&sql, [ids[7].into()]).await;
    let run = site.reconcile(1001, &full).await;
    assert_eq!((&run["status"], totals(&run)), (&json!("succeeded"), [40, 1, 2, 37, 0, 0]), "{run}");
    site.assert_equal_of::<K>(1001).await;

    let daemon = site.serve().await;
    let (_, found) = daemon.get(&format!("/runs/{}/discrepancies", run["run_id"].as_str().unwrap())).await;
    let found = found["discrepancies"].as_array().unwrap();
    let one =
        |id: i64| found.iter().find(|one| one["salla_id"] == json!(id)).unwrap_or_else(|| panic!("{id}: {found:?}"));
    assert!(found.iter().all(|one| one["resource"] == json!(kind)), "{found:?}");
    assert_eq!(one(ids[7])["fields"], json!([K::WORD]));
    assert_eq!((&one(ids[3])["kind"], &one(ids[5])["kind"]), (&json!("stale"), &json!("stale")));
    let gone = format!("SELECT count(*) FROM {} WHERE deleted_at IS NOT NULL AND {} = {}", K::TABLE, K::ID, ids[5]);
    assert_eq!(site.database.number(&gone).await, 1);

    let report = site.run(&["report", "--json"]).await.exits(0).object();
    assert_eq!(report["lost_webhooks"], json!({}), "full runs find no drift: {report}");

    let versions = format!("SELECT sum(revision) FROM {}", K::TABLE);
    let before = site.database.text(&format!("SELECT CAST(({versions}) AS text)")).await;
    assert_eq!(totals(&site.reconcile(1001, &full).await), [40, 0, 0, 40, 0, 0]);
    assert_eq!(site.database.text(&format!("SELECT CAST(({versions}) AS text)")).await, before);

    {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        K::change(shop, ids[4], chrono::Utc::now());
        K::add(shop, chrono::Utc::now());
    }
    assert_eq!(totals(&site.reconcile(1001, &["--resource", kind]).await)[1..3], [1, 1]);
    let report = site.run(&["report", "--json"]).await.exits(0).object();
    let lost: Vec<&String> = report["lost_webhooks"].as_object().unwrap().keys().collect();
    // As far as Salla sends any.
    assert!(lost.iter().all(|event| event.starts_with(K::RESOURCE.one())), "{report}");
    let expected = K::RESOURCE.webhook_events().iter().filter(|what| **what != "deleted").count();
    assert_eq!(lost.len(), expected, "{report}");
}

async fn a_crash_in_the_second_kind(engine: Engine) {
    let mut site = Site::new(engine, [both(1001, 4, 9)]).await;
    site.set("RECONCILE__RESOURCES", "orders,products");
    site.set("RECONCILE__PAGE_SIZE", "2");
    site.set("RECONCILE__LEASE", "2s");
    site.salla.world().always.insert(1001, Fault::Hang(Duration::from_millis(150)));
    let mut daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["totals"]["fetched"].as_u64() >= Some(8)).await;
    daemon.signal(Signal::SIGKILL);
    daemon.wait().await;
    let asked_before = orders_asked_for(&site);
    assert_eq!(site.database.number("SELECT count(*) FROM watermarks").await, 0, "the run has not ended");

    let daemon = site.serve().await;
    let run = daemon.await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!(totals(&run), [13, 13, 0, 0, 0, 0], "{run}");
    assert_eq!((of(&run, "orders")[0], of(&run, "products")[0]), (4, 9));
    assert_eq!(orders_asked_for(&site), asked_before, "the kind that was done was read again");
    assert_eq!(site.database.number("SELECT count(*) FROM watermarks").await, 2);
    assert_eq!(site.database.number("SELECT count(*) FROM run_seen_ids").await, 0);
    site.assert_equal(1001).await;
    site.assert_equal_of::<Product>(1001).await;
}

fn orders_asked_for(site: &Site) -> usize {
    site.salla.world().seen.iter().filter(|seen| seen.list == "orders").count()
}

async fn what_is_asked_for_over_http(engine: Engine) {
    let site = Site::new(engine, [both(1001, 3, 6)]).await;
    let daemon = site.serve().await;
    let (status, refused) = daemon.post("/runs", r#"{"merchant_id":1001,"resources":["ordres"]}"#).await;
    assert_eq!(status, 400, "{refused}");
    let (status, refused) = daemon.post("/runs", r#"{"merchant_id":1001,"resources":[]}"#).await;
    assert_eq!(status, 400, "{refused}");
    let (status, run) = daemon.post("/runs", r#"{"merchant_id":1001,"resources":["products"]}"#).await;
    assert_eq!(status, 202, "{run}");
    assert_eq!(run["resource_results"][0]["resource"], "products", "what was asked for is shown at once: {run}");
    let run = daemon.await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!((totals(&run), of(&run, "products")), ([6, 6, 0, 0, 0, 0], [6, 6, 0, 0, 0, 0]));
    assert_eq!(site.database.number("SELECT count(*) FROM orders").await, 0);
    let (status, run) =
        daemon.post("/runs", r#"{"merchant_id":1001,"resources":["products","orders","products"]}"#).await;
    assert_eq!(status, 202, "{run}");
    let run = daemon.await_run("", |run| run["status"] == "succeeded" && run["totals"]["fetched"] == 9).await;
    assert_eq!((of(&run, "orders"), of(&run, "products")), ([3, 3, 0, 0, 0, 0], [6, 0, 0, 6, 0, 0]));
    let (_, metrics) = daemon.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    for line in [
        r#"salla_reconciler_records_total{outcome="created",resource="products"} 6"#,
        r#"salla_reconciler_records_total{outcome="unchanged",resource="products"} 6"#,
        r#"salla_reconciler_records_total{outcome="created",resource="orders"} 3"#,
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let (_, merchant) = daemon.get("/merchants/1001").await;
    // Of what is configured: orders.
    assert_eq!(merchant["watermarks"].as_object().unwrap().keys().collect::<Vec<_>>(), ["orders"], "{merchant}");
    assert_eq!(merchant["watermarks"]["orders"], merchant["watermark"]);
}

/// Salla asks for a backoff while the second kind of record is read. Another run takes up the rest.
/// The coverage of the first kind is not lost.
async fn a_backoff_between_resources_is_waited_for(engine: Engine) {
    let mut site = Site::new(engine, [both(1001, 3, 6)]).await;
    site.set("RECONCILE__RESOURCES", "orders,products");
    site.set("SALLA__MAX_RETRY_AFTER", "1s");
    let daemon = site.serve().await;
    // The orders take a page, and one to see that nothing came.
    let orders = usize::try_from(
        site.reconcile(1001, &["--resource", "orders", "--dry-run"]).await["requests"].as_u64().unwrap(),
    );
    let faults = (0..orders.unwrap()).map(|_| Fault::Hang(Duration::ZERO)).chain([Fault::too_many("300")]);
    site.salla.world().script(1001, faults);
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    let run = daemon.await_run("", |run| run["status"] == "failed").await;
    assert_eq!(run["error"]["kind"], "rate_limited", "{run}");
    assert_eq!((of(&run, "orders")[1], &part(&run, "orders")["status"]), (3, &json!("succeeded")), "{run}");
    assert_eq!(part(&run, "products")["status"], "failed", "{run}");
    assert_eq!(site.database.number("SELECT count(*) FROM watermarks").await, 0);

    let asked_before = orders_asked_for(&site);
    // As if five minutes had gone by.
    site.database.execute("DELETE FROM rate_limit_backoffs", []).await;
    let soon = chrono::Utc::now() - chrono::TimeDelta::seconds(1);
    site.database.execute("UPDATE runs SET scheduled_at = $1 WHERE status = 'queued'", [soon.into()]).await;
    drop(daemon);
    let daemon = site.serve().await;
    let run = daemon.await_run("", |run| run["status"] == "succeeded" && run["dry_run"] == false).await;
    assert_eq!((of(&run, "orders"), of(&run, "products")), ([0; 6], [6, 6, 0, 0, 0, 0]), "{run}");
    assert_eq!(orders_asked_for(&site), asked_before, "the orders were read again");
    assert_eq!(site.database.number("SELECT count(*) FROM watermarks").await, 2);
    site.assert_equal(1001).await;
    site.assert_equal_of::<Product>(1001).await;
}

/// A list that comes in one piece proves nothing about who is not on it, if it may have been on it.
async fn a_list_without_pages_must_be_complete(engine: Engine) {
    let mut site = Site::new(engine, [everything(1001, 1, 5)]).await;
    site.set("RECONCILE__RESOURCES", "order_statuses");
    site.reconcile(1001, &["--full"]).await;
    let whole: Vec<Value> =
        OrderStatus::all(site.salla.world().shop(1001)).iter().map(|status| status.shown(false)).collect();
    let answer = |rows: &[Value], pagination: Value| {
        let body = json!({"status": 200, "success": true, "data": rows, "pagination": pagination});
        Fault::ok("application/json", &body.to_string())
    };
    let mut nameless = whole.clone();
    nameless[2]["id"] = Value::Null;
    let more = json!({"count": 4, "total": 5, "perPage": 4, "currentPage": 1, "totalPages": 2, "links": []});
    for (what, fault, status) in [
        ("a row without an id", answer(&nameless, Value::Null), "partial"),
        ("another page", answer(&whole[..4], more), "failed"),
    ] {
        site.salla.world().always.insert(1001, fault);
        let run = site.reconcile(1001, &["--full"]).await;
        assert_eq!(run["status"], status, "{what}: {run}");
        let gone = "SELECT count(*) FROM order_statuses WHERE deleted_at IS NOT NULL";
        assert_eq!(site.database.number(gone).await, 0, "{what}");
    }
    site.salla.world().always.clear();
    assert_eq!(site.reconcile(1001, &["--full"]).await["status"], "succeeded");
}

async fn another_writer_of_every_kind(engine: Engine) {
    of_every_kind!(another_writer(engine));
}

/// A webhook consumer writes the same table, and does not know our columns. Its newer row stays, if
/// the kind of record has a time of change. A row that it wrote as Salla has it is left alone.
async fn another_writer<K: Kind>(engine: Engine) {
    let site = Site::new(engine, [everything(1001, 12, 12)]).await;
    let items: Vec<K> = K::all(site.salla.world().shop(1001)).to_vec();
    for item in &items[..6] {
        site.consume(1001, item).await;
    }
    let run = site.reconcile(1001, &["--full", "--resource", K::RESOURCE.as_str()]).await;
    assert_eq!(totals(&run), [12, 6, 0, 6, 0, 0], "{}: {run}", K::RESOURCE);
    site.assert_equal_of::<K>(1001).await;
    // Later than what Salla lists.
    let sql = format!("UPDATE {} SET salla_updated_at = $1, {} = 'ahead' WHERE {} = $2", K::TABLE, K::WORD, K::ID);
    let later = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    site.database.execute(&sql, [later.into(), items[0].id().into()]).await;
    let run = site.reconcile(1001, &["--full", "--resource", K::RESOURCE.as_str()]).await;
    if !K::DATED {
        // Nothing shows that the stored version is later, so the version of Salla counts.
        assert_eq!(totals(&run), [12, 0, 1, 11, 0, 0], "{}: {run}", K::RESOURCE);
        return;
    }
    assert_eq!(totals(&run), [12, 0, 0, 12, 0, 0], "{}: {run}", K::RESOURCE);
    let word = format!("SELECT {} FROM {} WHERE {} = {}", K::WORD, K::TABLE, K::ID, items[0].id());
    assert_eq!(site.database.text(&word).await, "ahead");
}

/// A kind that is added later begins at its own beginning, and one that is given up holds nothing back.
async fn each_resource_has_its_watermark(engine: Engine) {
    let mut site = Site::new(engine, [both(1001, 3, 6)]).await;
    site.reconcile(1001, &[]).await;
    let ago = chrono::Utc::now() - chrono::TimeDelta::days(3);
    site.database.execute("UPDATE watermarks SET watermark = $1", [ago.into()]).await;
    site.set("RECONCILE__RESOURCES", "orders,products");
    let run = site.reconcile(1001, &[]).await;
    let since = |resource: &str| part(&run, resource)["window"]["since"].as_str().unwrap().to_owned();
    assert!(since("orders") < since("products"), "three days and the overlap, and the lookback: {run}");
    assert_eq!(run["window"]["since"].as_str(), Some(since("orders").as_str()), "the run covers both");

    site.database.execute("UPDATE watermarks SET watermark = $1 WHERE resource = 'products'", [ago.into()]).await;
    let overdue = async |site: &Site| {
        let daemon = site.serve().await;
        let (_, metrics) = daemon.get("/metrics").await;
        metrics.as_str().unwrap().contains("salla_reconciler_merchants_overdue 1")
    };
    assert!(overdue(&site).await, "its products are three days old");
    site.set("RECONCILE__RESOURCES", "orders");
    assert!(!overdue(&site).await, "its products are not reconciled");
}
