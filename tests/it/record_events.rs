//! Events about single records (`cdc.events = "record"`), and runs without a difference (`cdc.skip_unchanged`).

use axum::http::StatusCode;
use chrono::{TimeDelta, Utc};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    events::told,
    support::{
        Engine, Site,
        receiver::{Answer, Event, Receiver},
        site::{everything, shop},
        until,
    },
};

on_every_database!(
    each_written_record_is_reported_before_its_run,
    a_record_that_changes_during_the_run_is_reported_again,
    refused_records_are_repeated_in_order,
    a_kill_repeats_events_and_loses_none,
    personal_data_is_in_no_event,
    runs_without_a_difference_are_silent,
    a_dry_run_sends_no_event,
);

/// A site with a receiver of events about records.
async fn site(engine: Engine, orders: usize) -> (Site, Receiver) {
    let mut site = Site::new(engine, [shop(1001, 0, orders)]).await;
    let receiver = Receiver::start().await;
    told(&mut site, &receiver);
    site.set("CDC__EVENTS", "record");
    (site, receiver)
}

fn kinds(events: &[Event]) -> Vec<String> {
    let kind = |event: &Event| event.body["type"].as_str().unwrap().trim_start_matches("salla-reconciler.").to_owned();
    events.iter().map(kind).collect()
}

async fn pending(site: &Site) -> i64 {
    site.database.number("SELECT count(*) FROM outbox").await
}

async fn each_written_record_is_reported_before_its_run(engine: Engine) {
    let (site, receiver) = site(engine, 3).await;
    let first = site.reconcile(1001, &[]).await;
    let daemon = site.serve().await;
    until("all arrive", async || pending(&site).await == 0).await;
    let events = receiver.taken();
    assert_eq!(kinds(&events), ["record.created", "record.created", "record.created", "run.succeeded"]);
    let order = site
        .salla
        .world()
        .shop(1001)
        .orders
        .iter()
        .find(|order| events[0].body["data"]["salla_id"] == order.id)
        .cloned()
        .unwrap();
    let data = &events[0].body["data"];
    assert_eq!((&data["run_id"], &data["backfill"], &data["fields"]), (&first["run_id"], &json!(true), &json!([])));
    let status = json!({"field": "status", "before": null, "after": order.slug()});
    assert!(data["changes"].as_array().unwrap().contains(&status), "{data}");
    drop(daemon);

    let (changed, deleted, placed) = {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        let (changed, deleted) = (shop.orders[0].clone(), shop.orders[1].id);
        shop.touch(changed.id, Utc::now());
        shop.delete(deleted);
        (changed, deleted, shop.place(Utc::now() - TimeDelta::seconds(1)))
    };
    let run = site.reconcile(1001, &[]).await;
    let _daemon = site.serve().await;
    until("all arrive", async || pending(&site).await == 0).await;
    let events = receiver.taken()[4..].to_vec();
    assert_eq!(kinds(&events).last().unwrap(), "run.succeeded", "{:?}", kinds(&events));
    assert_eq!(events.last().unwrap().body["id"], run["run_id"]);
    let of = |id: i64| events.iter().find(|event| event.body["data"]["salla_id"] == id).unwrap();
    let updated = of(changed.id);
    let now = site.salla.world().shop(1001).orders.iter().find(|order| order.id == changed.id).cloned().unwrap();
    assert_eq!(updated.body["type"], "salla-reconciler.record.updated");
    assert_eq!(updated.body["subject"], format!("merchants/1001/orders/{}", changed.id));
    assert_eq!(updated.body["partitionkey"], "1001");
    assert_eq!(updated.headers["webhook-id"], updated.body["id"].as_str().unwrap());
    let data = &updated.body["data"];
    assert_eq!(
        (&data["kind"], &data["resource"], &data["backfill"]),
        (&json!("updated"), &json!("orders"), &json!(false))
    );
    assert!(data["fields"].as_array().unwrap().contains(&json!("status")), "{data}");
    let status = json!({"field": "status", "before": changed.slug(), "after": now.slug()});
    assert!(data["changes"].as_array().unwrap().contains(&status), "{data}");
    let version = data["salla_updated_at"].as_str().unwrap().parse::<chrono::DateTime<Utc>>().unwrap();
    assert_eq!(version.timestamp(), now.updated_at.timestamp());
    assert_eq!(of(placed).body["data"]["kind"], "created");
    let gone = &of(deleted).body["data"];
    assert_eq!((&gone["kind"], &gone["salla_updated_at"]), (&json!("deleted"), &Value::Null), "{gone}");
    assert_eq!(events.len(), 4);
}

/// An order that changes while the list is read is written twice by the run, and is reported twice.
async fn a_record_that_changes_during_the_run_is_reported_again(engine: Engine) {
    let (mut site, _receiver) = site(engine, 60).await;
    site.set("RECONCILE__PAGE_SIZE", "20");
    let first =
        site.salla.world().shop(1001).orders.iter().min_by_key(|order| (order.updated_at, order.id)).unwrap().id;
    let mut answers = 0;
    site.salla.world().between_answers(move |shops, _| {
        answers += 1;
        if answers == 4 {
            shops.get_mut(&1001).unwrap().touch(first, Utc::now());
        }
    });
    site.reconcile(1001, &[]).await;
    let row = "SELECT status FROM orders WHERE salla_order_id = ";
    let stored = site.database.text(&format!("{row}{first}")).await;
    let events = site
        .database
        .rows(&format!("SELECT data FROM outbox WHERE subject = 'merchants/1001/orders/{first}' ORDER BY id"))
        .await;
    let last: Value = serde_json::from_str(&events.last().unwrap().try_get::<String>("", "data").unwrap()).unwrap();
    let status = last["changes"].as_array().unwrap().iter().find(|change| change["field"] == "status");
    assert_eq!(status.unwrap()["after"], stored.as_str(), "{last}");
}

async fn refused_records_are_repeated_in_order(engine: Engine) {
    let (site, receiver) = site(engine, 250).await;
    let mut refusals = 0;
    receiver.answer_by(move |event| {
        // Each hundredth event, twice.
        let refuse = event["data"]["salla_id"].as_i64().is_some_and(|id| id % 100 == 7) && refusals < 4;
        refusals += u32::from(refuse);
        Answer::Status(if refuse { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK })
    });
    site.reconcile(1001, &[]).await;
    let ids = site.database.rows("SELECT subject FROM outbox ORDER BY id").await;
    let stored: Vec<String> = ids.iter().map(|row| row.try_get("", "subject").unwrap()).collect();
    assert_eq!(stored.len(), 251);
    let daemons = [site.serve().await, site.serve().await];
    until("all arrive", async || pending(&site).await == 0).await;
    let subject = |event: &Event| event.body["subject"].as_str().unwrap().to_owned();
    assert_eq!(receiver.taken().iter().map(subject).collect::<Vec<_>>(), stored, "each once, in order");
    assert!(receiver.arrived().len() > stored.len(), "some were refused");
    assert_eq!(site.database.number("SELECT count(*) FROM outbox_delivery_state").await, 0);
    drop(daemons);
}

async fn a_kill_repeats_events_and_loses_none(engine: Engine) {
    let (mut site, receiver) = site(engine, 120).await;
    site.set("RECONCILE__PAGE_SIZE", "30");
    site.set("RECONCILE__LEASE", "2s");
    let mut killed = site.serve().await;
    killed.post("/runs", r#"{"merchant_id":1001}"#).await;
    until("some arrive", async || receiver.taken().len() >= 20).await;
    killed.signal(Signal::SIGKILL);
    killed.wait().await;
    // As if the minute of the dead process had passed.
    let due = if site.database.is_postgres() { "now()" } else { "strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')" };
    site.database.execute(&format!("UPDATE outbox_delivery_state SET next_attempt_at = {due}"), []).await;
    let daemon = site.serve().await;
    daemon.await_run("", |run| run["status"] == "succeeded").await;
    until("all arrive", async || pending(&site).await == 0).await;
    let mut first_arrivals: Vec<String> = Vec::new();
    for event in receiver.taken() {
        let id = event.body["id"].as_str().unwrap().to_owned();
        if !first_arrivals.contains(&id) {
            first_arrivals.push(id);
        }
    }
    assert_eq!(first_arrivals.len(), 121, "an id for each record and for the run");
    let mut records: Vec<i64> =
        receiver.taken().iter().filter_map(|event| event.body["data"]["salla_id"].as_i64()).collect();
    records.sort_unstable();
    records.dedup();
    assert_eq!(records.len(), 120);
    assert_eq!(kinds(&receiver.taken()).last().unwrap(), "run.succeeded");
}

async fn personal_data_is_in_no_event(engine: Engine) {
    let mut site = Site::new(engine, [everything(1001, 0, 2)]).await;
    let receiver = Receiver::start().await;
    told(&mut site, &receiver);
    site.set("CDC__EVENTS", "record");
    site.set("RECONCILE__RESOURCES", "customers");
    site.reconcile(1001, &["--full"]).await;
    site.database.execute("UPDATE customers SET first_name = 'x', content_hash = NULL", []).await;
    site.reconcile(1001, &["--full"]).await;
    let _daemon = site.serve().await;
    until("all arrive", async || pending(&site).await == 0).await;
    let mut names = 0;
    for event in receiver.taken().iter().filter(|event| event.body["data"]["salla_id"].is_i64()) {
        let data = &event.body["data"];
        names += usize::from(data["fields"].as_array().unwrap().contains(&json!("first_name")));
        let shown = data["changes"].as_array().unwrap();
        assert!(shown.iter().all(|change| change["field"] == "salla_created_at"), "{data}");
    }
    assert_eq!(names, 2, "the names of personal columns are shown, their values are not");
}

async fn runs_without_a_difference_are_silent(engine: Engine) {
    for scope in ["run", "record"] {
        let (mut site, receiver) = site(engine, 2).await;
        site.set("CDC__EVENTS", scope);
        site.set("CDC__SKIP_UNCHANGED", "true");
        site.reconcile(1001, &[]).await;
        let stored = pending(&site).await;
        assert_eq!(stored, if scope == "run" { 1 } else { 3 });
        site.reconcile(1001, &[]).await;
        assert_eq!(pending(&site).await, stored, "{scope}: the second run found no difference");
        // A deletion is counted by no total, and is a difference.
        let gone = site.salla.world().shop(1001).orders[0].id;
        site.salla.world().shop(1001).delete(gone);
        site.reconcile(1001, &[]).await;
        assert!(pending(&site).await > stored, "{scope}");
        drop(receiver);
    }
}

async fn a_dry_run_sends_no_event(engine: Engine) {
    let (site, _receiver) = site(engine, 60).await;
    let dry = site.reconcile(1001, &["--dry-run"]).await;
    assert_eq!((&dry["totals"]["created"], pending(&site).await), (&json!(60), 0));
}
