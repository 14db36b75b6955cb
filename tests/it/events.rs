//! Events of runs that ended well, and their delivery.

#[cfg(feature = "failpoints")]
use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::StatusCode;
use nix::sys::signal::Signal;
use salla_reconciler::simulator::Fault;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::{
    Engine, Site,
    daemon::Daemon,
    receiver::{Answer, Receiver, SECRET},
    site::shop,
    until, within,
};

on_every_database!(
    a_succeeded_run_sends_an_event,
    refused_events_are_repeated_in_order,
    a_receiver_of_every_kind,
    refused_events_delay_no_other_merchant,
    a_partial_run_sends_an_event,
    a_kill_during_a_delivery_loses_no_event,
    a_stalled_delivery_changes_nothing,
    without_a_receiver_no_event_is_stored,
);

pub fn told(site: &mut Site, receiver: &Receiver) {
    site.set("CDC__WEBHOOK_URL", &receiver.url());
    site.set("CDC__WEBHOOK_SECRET", SECRET);
}

pub async fn metric(daemon: &Daemon, name: &str) -> Option<f64> {
    let (_, text) = daemon.get("/metrics").await;
    let line = format!("salla_reconciler_{name} ");
    text.as_str().unwrap().lines().find_map(|shown| shown.strip_prefix(&line)?.parse().ok())
}

async fn pending(site: &Site) -> i64 {
    site.database.number("SELECT count(*) FROM outbox").await
}

/// As if the time until the next try had passed.
async fn hurry(site: &Site) {
    let sql = if site.database.is_postgres() {
        // In the order in which a deliverer locks them.
        "WITH turns AS (SELECT merchant_id FROM outbox_delivery_state ORDER BY merchant_id FOR UPDATE) \
         UPDATE outbox_delivery_state SET next_attempt_at = now() WHERE merchant_id IN (SELECT merchant_id FROM turns)"
    } else {
        "UPDATE outbox_delivery_state SET next_attempt_at = strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')"
    };
    site.database.execute(sql, []).await;
}

async fn a_succeeded_run_sends_an_event(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 3), shop(1002, 0, 2)]).await;
    let receiver = Receiver::start().await;
    told(&mut site, &receiver);
    let dry = site.reconcile(1001, &["--dry-run"]).await;
    assert_eq!(dry["status"], "succeeded");
    site.salla.world().script(1002, [Fault::status(400)]);
    let failed = site.reconcile(1002, &[]).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert_eq!(pending(&site).await, 0, "neither a dry run nor one that failed changes what a warehouse would read");

    let run = site.reconcile(1001, &[]).await;
    assert_eq!(pending(&site).await, 1, "a command delivers nothing; it leaves that to the daemon");
    let daemon = site.serve().await;
    until("the event arrives", async || receiver.taken().len() == 1).await;
    let event = &receiver.taken()[0];
    let (_, shown) = daemon.get(&format!("/runs/{}", run["run_id"].as_str().unwrap())).await;
    assert_eq!(
        event.body,
        json!({
            "specversion": "1.0",
            "id": run["run_id"],
            "source": "/salla-reconciler",
            "type": "salla-reconciler.run.succeeded",
            "subject": "merchants/1001",
            "time": run["finished_at"],
            "datacontenttype": "application/json",
            "partitionkey": "1001",
            "data": shown,
        })
    );
    assert_eq!(event.headers["content-type"], "application/cloudevents+json; charset=utf-8");
    assert_eq!(event.headers["webhook-id"], run["run_id"].as_str().unwrap());
    until("it is done with", async || pending(&site).await == 0).await;
    assert_eq!(site.database.number("SELECT count(*) FROM outbox_delivery_state").await, 0);

    daemon.post("/runs", r#"{"merchant_id":1002}"#).await;
    until("the next one arrives", async || receiver.taken().len() == 2).await;
    until("it is counted", async || {
        metric(&daemon, r#"event_deliveries_total{result="delivered"}"#).await == Some(2.0)
    })
    .await;
    until("none is left", async || metric(&daemon, "events_pending").await == Some(0.0)).await;
    assert_eq!(metric(&daemon, "oldest_pending_event_timestamp_seconds").await, Some(0.0));
    assert_eq!(metric(&daemon, "replication_slot_lag_bytes").await, None, "no slot is asked for");
}

/// One store's events wait for each other and hold up no other store's; over kills, and over restarts.
async fn refused_events_are_repeated_in_order(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 3), shop(1002, 0, 2)]).await;
    let receiver = Receiver::start().await;
    told(&mut site, &receiver);
    receiver.answer_by(|event| {
        let refused = event["data"]["merchant_id"] == 1001;
        Answer::Status(if refused { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK })
    });
    let mut ended = Vec::new();
    for _ in 0..3 {
        ended.push(site.reconcile(1001, &[]).await["run_id"].as_str().unwrap().to_owned());
    }
    let mut daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1002}"#).await;
    until("the other store's arrives", async || receiver.taken().len() == 1).await;
    assert_eq!(receiver.taken()[0].merchant(), 1002);
    let warning = daemon.await_line(|line| line["attempts"] == 2).await;
    assert_eq!(warning["error"], "the receiver answered 500 Internal Server Error");
    assert_eq!(warning["run.id"], ended[0].as_str());
    until("three wait", async || metric(&daemon, "events_pending").await == Some(3.0)).await;
    assert!(metric(&daemon, "oldest_pending_event_timestamp_seconds").await > Some(1_700_000_000.0));
    assert!(metric(&daemon, r#"event_deliveries_total{result="rejected"}"#).await >= Some(2.0));
    let (_, page) = daemon.get("/").await;
    let page = page.as_str().unwrap();
    assert!(page.contains("<dt>pending events</dt><dd>3</dd>") && page.contains("oldest pending event"), "{page}");
    daemon.signal(Signal::SIGKILL);
    daemon.wait().await;
    assert!(
        site.database.number("SELECT CAST(attempts AS bigint) FROM outbox_delivery_state").await >= 2,
        "the pause goes on over a restart"
    );

    receiver.answer_by(|_| Answer::Status(StatusCode::ACCEPTED));
    let others = receiver.arrived().len();
    // Before anyone has taken one: its turn would be given away twice.
    hurry(&site).await;
    let daemons = [site.serve().await, site.serve().await];
    until("all arrive", async || pending(&site).await == 0).await;
    let arrived: Vec<String> = receiver.arrived()[others..].iter().map(|event| event.run_id()).collect();
    assert_eq!(arrived, ended, "each once, and in order, by any process");
    assert_eq!(site.database.number("SELECT count(*) FROM outbox_delivery_state").await, 0);
    drop(daemons);
}

async fn a_receiver_of_every_kind(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 1)]).await;
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    told(&mut site, &receiver);
    receiver.script([
        Answer::Redirect(elsewhere.url()),
        Answer::Busy("2"),
        Answer::Status(StatusCode::NOT_FOUND),
        Answer::Status(StatusCode::GONE),
        Answer::Endless,
    ]);
    let mut daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    for tried in 1..=5 {
        until("it is tried", async || receiver.arrived().len() == tried).await;
        if tried < 5 {
            until("it is put off", async || daemon.log().iter().any(|line| line["attempts"] == tried)).await;
            hurry(&site).await;
        }
    }
    until("it is done with", async || pending(&site).await == 0).await;
    assert!(elsewhere.arrived().is_empty(), "a redirection is not followed");

    // While one is on its way, the daemon ends within its grace, and the event comes again.
    receiver.script([Answer::Hang]);
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    until("the event hangs", async || receiver.arrived().len() == 6).await;
    let began = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(daemon.log_text().contains("the receiver gave no answer"), "{}", daemon.log_text());
    let daemon = site.serve().await;
    hurry(&site).await;
    until("it comes again", async || receiver.taken().len() == 2).await;
    drop(daemon);
}

/// Dead between the receiver's answer and the outbox: at least once.
async fn a_kill_during_a_delivery_loses_no_event(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 1)]).await;
    let receiver = Receiver::start().await;
    told(&mut site, &receiver);
    receiver.script([Answer::Hang]);
    let run = site.reconcile(1001, &[]).await;
    let mut daemon = site.serve().await;
    until("it is on its way", async || receiver.arrived().len() == 1).await;
    daemon.signal(Signal::SIGKILL);
    daemon.wait().await;
    let daemon = site.serve().await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(receiver.arrived().len(), 1, "it was another's turn, who might still be at it");
    hurry(&site).await;
    until("it comes again", async || receiver.taken().len() == 1).await;
    assert_eq!(receiver.taken()[0].run_id(), run["run_id"]);
    until("it is done with", async || pending(&site).await == 0).await;
    drop(daemon);
}

/// A process that wakes after its lease has expired changes nothing and sends nothing.
async fn a_stalled_delivery_changes_nothing(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 1)]).await;
    let receiver = Receiver::start().await;
    told(&mut site, &receiver);
    receiver.script([Answer::Hang]);
    let mut ended = Vec::new();
    for _ in 0..2 {
        ended.push(site.reconcile(1001, &[]).await["run_id"].as_str().unwrap().to_owned());
    }
    let stalled = site.serve().await;
    until("it is on its way", async || receiver.arrived().len() == 1).await;
    stalled.signal(Signal::SIGSTOP);
    hurry(&site).await;
    let other = site.serve().await;
    until("the other goes on", async || pending(&site).await == 0).await;
    stalled.signal(Signal::SIGCONT);
    stalled.await_line(|line| line["error"].as_str().is_some_and(|error| error.contains("gave no answer"))).await;
    let arrived: Vec<String> = receiver.arrived().iter().map(|event| event.run_id()).collect();
    assert_eq!(arrived, [&ended[0], &ended[0], &ended[1]].map(Clone::clone));
    other.post("/runs", r#"{"merchant_id":1001}"#).await;
    until("the next one arrives", async || receiver.taken().len() == 3).await;
    until("it is done with", async || pending(&site).await == 0).await;
    assert_eq!(site.database.number("SELECT count(*) FROM outbox_delivery_state").await, 0);
}

async fn without_a_receiver_no_event_is_stored(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 1)]).await;
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!(pending(&site).await, 0);
    assert_eq!(metric(&daemon, "events_pending").await, None);
}

/// A process that dies at any commit: an event is sent for each succeeded run, and for no other.
#[cfg(feature = "failpoints")]
mod deaths {
    use super::*;
    use crate::support::receiver::Event;

    on_every_database!(the_end_of_a_run_and_its_event_are_one_transaction);

    async fn the_end_of_a_run_and_its_event_are_one_transaction(engine: Engine) {
        let mut site = Site::new(engine, [shop(1001, 0, 3)]).await;
        let receiver = Receiver::start().await;
        told(&mut site, &receiver);
        site.set("RECONCILE__LEASE", "1s");
        for commit in ["finish", "event_take", "event_delivered"] {
            for side in ["before", "after"] {
                let point = format!("{commit}_{side}_commit");
                let ended = site.database.number("SELECT count(*) FROM runs WHERE status = 'succeeded'").await;
                let mut daemon = site.serve_until(&format!("{point}=return")).await;
                daemon.try_post("/runs", r#"{"merchant_id":1001}"#, &[("content-type", "application/json")]).await;
                daemon.wait_for_death().await;
                let waits = i64::from(!["finish_before_commit", "event_delivered_after_commit"].contains(&&*point));
                assert_eq!(pending(&site).await, waits, "{point}");
                hurry(&site).await;
                let daemon = site.serve().await;
                until(&point, async || {
                    let now = site.database.number("SELECT count(*) FROM runs WHERE status = 'succeeded'").await;
                    now == ended + 1 && pending(&site).await == 0
                })
                .await;
                drop(daemon);
            }
        }
        let told: BTreeSet<String> = receiver.taken().iter().map(Event::run_id).collect();
        assert_eq!(told.len(), 6);
        let twice = receiver.taken().len() - told.len();
        assert_eq!(twice, 1, "only what was taken in before its death comes again");
        assert_eq!(site.database.number("SELECT count(*) FROM outbox_delivery_state").await, 0);
    }
}

/// A receiver that has something against the events of some stores.
async fn refused_events_delay_no_other_merchant(engine: Engine) {
    let mut site = Site::new(engine, (1001..=1015).map(|merchant| shop(merchant, 0, 1))).await;
    let receiver = Receiver::start().await;
    told(&mut site, &receiver);
    receiver.answer_by(|event| {
        let refused = event["data"]["merchant_id"].as_i64() < Some(1009);
        Answer::Status(if refused { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK })
    });
    site.set("RECONCILE__CONCURRENCY", "3");
    site.run(&["run"]).await.exits(0);
    assert_eq!(pending(&site).await, 15);
    let daemon = site.serve().await;
    // One after the other, each behind a rest that doubles, would be more than four minutes.
    within(Duration::from_secs(60), "the others arrive", async || receiver.taken().len() == 7).await;
    assert!(!daemon.log_text().contains("events rest"), "nothing is wrong with the receiver: {}", daemon.log_text());
    // And so it is the next night.
    hurry(&site).await;
    daemon.post("/runs", r#"{"merchant_id":1014}"#).await;
    until("the next one arrives", async || receiver.taken().len() == 8).await;
    until("it is taken out", async || pending(&site).await == 8).await;
}

async fn a_partial_run_sends_an_event(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 3)]).await;
    let receiver = Receiver::start().await;
    told(&mut site, &receiver);
    site.salla.world().shop(1001).raw_rows.push("[1]".to_owned());
    assert_eq!(site.reconcile(1001, &[]).await["status"], "partial");
    let _daemon = site.serve().await;
    until("the event arrives", async || receiver.taken().len() == 1).await;
    let event = &receiver.taken()[0].body;
    assert_eq!((&event["type"], &event["data"]["status"]), (&json!("salla-reconciler.run.partial"), &json!("partial")));
}
