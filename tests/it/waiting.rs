//! A run that waits says for what, until when, and how often it has waited.

use chrono::{DateTime, TimeDelta, Utc};
use salla_reconciler::simulator::Fault;
use sea_orm::{ConnectionTrait, TransactionTrait};
use serde_json::Value;

use crate::support::{Engine, Site, site::shop};

on_every_database!(
    a_run_that_waits_for_its_store_says_so,
    a_run_that_waits_for_a_rate_limit_says_so,
    a_run_that_waits_for_salla_while_it_runs_says_so,
);

mod what_postgres_has {
    use super::{a_locked_row_delays_only_its_merchant, a_run_whose_end_cannot_be_stored_says_so};

    on_every_postgres!(a_locked_row_delays_only_its_merchant, a_run_whose_end_cannot_be_stored_says_so);
}

/// Another session has the rows of one store, and the daemon has one worker.
async fn a_locked_row_delays_only_its_merchant(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 2), shop(1002, 0, 2)]).await;
    site.run(&["run"]).await.exits(0);
    site.set("RECONCILE__CONCURRENCY", "1");
    for store in [1001, 1002] {
        let mut world = site.salla.world();
        let id = world.shop(store).orders[0].id;
        world.shop(store).touch(id, Utc::now());
    }
    let lock = site.database.db.begin().await.unwrap();
    lock.execute_unprepared("UPDATE orders SET status = status WHERE merchant_id = 1001").await.unwrap();
    let daemon = site.serve().await;
    for store in [1001, 1002] {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{store}}}"#)).await;
    }
    daemon.await_run("merchant_id=1002&limit=1", |run| run["status"] == "succeeded" && run["trigger"] == "http").await;
    let run = daemon.await_run("merchant_id=1001&limit=1", |run| run["waiting"].is_object()).await;
    assert_eq!(run["waiting"]["reason"], "database", "{run}");
    lock.rollback().await.unwrap();
    daemon.await_run("merchant_id=1001&limit=1", |run| run["status"] == "succeeded" && run["trigger"] == "http").await;
}

/// Another session has the watermark, which the end of the run moves.
async fn a_run_whose_end_cannot_be_stored_says_so(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    site.run(&["run"]).await.exits(0);
    let lock = site.database.db.begin().await.unwrap();
    lock.execute_unprepared("SELECT 1 FROM watermarks WHERE merchant_id = 1001 FOR UPDATE").await.unwrap();
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    let run = daemon.await_run("merchant_id=1001&limit=1", |run| run["waiting"].is_object()).await;
    assert_eq!(run["waiting"]["reason"], "database", "{run}");
    lock.rollback().await.unwrap();
    daemon.await_run("merchant_id=1001&limit=1", |run| run["status"] == "succeeded" && run["trigger"] == "http").await;
}

fn until(waiting: &Value) -> DateTime<Utc> {
    waiting["until"].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{waiting}"))
}

async fn a_run_that_waits_for_its_store_says_so(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2), shop(1002, 0, 2)]).await;
    site.salla.world().always.insert(1001, Fault::status(503));
    let daemon = site.serve().await;
    for id in [1001, 1002] {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{id}}}"#)).await;
    }
    let waits = |run: &Value| run["status"] == "queued" && run["waiting"].is_object();
    let run = daemon.await_run("merchant_id=1001", waits).await;
    let waiting = &run["waiting"];
    assert_eq!(waiting["reason"], "salla_unavailable", "{run}");
    assert!(waiting["message"].as_str().unwrap().contains("503"), "{run}");
    assert!(waiting["attempts"].as_u64() >= Some(1) && until(waiting) > Utc::now() - TimeDelta::minutes(1), "{run}");
    let released = "run released for a backoff; will resume from its cursor";
    daemon.await_line(|line| line["message"].as_str().is_some_and(|text| text.contains(released))).await;
    let page_of_run = format!("/dashboard/runs/{}", run["run_id"].as_str().unwrap());
    for path in [page_of_run.as_str(), "/", "/dashboard/merchants/1001"] {
        let (status, page) = daemon.get(path).await;
        assert!(status == 200 && page.to_string().contains("salla_unavailable"), "{path}: {page}");
    }
    site.salla.world().always.clear();
    let run = daemon.await_run("merchant_id=1001", |run| run["status"] == "succeeded").await;
    assert_eq!(run["waiting"], Value::Null);
}

/// After a 429 that is too long to be waited for, another run takes up the rest.
async fn a_run_that_waits_for_a_rate_limit_says_so(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    site.salla.world().script(1001, [Fault::too_many("3600")]);
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    let waits = |run: &Value| run["status"] == "queued" && run["waiting"].is_object();
    let run = daemon.await_run("merchant_id=1001&limit=1", waits).await;
    assert_eq!(run["waiting"]["reason"], "rate_limited", "{run}");
    assert!(until(&run["waiting"]) > Utc::now() + TimeDelta::minutes(50), "{run}");
    // One that finds the store to be left alone says so as well.
    site.database.execute("UPDATE runs SET waiting_until = NULL, waiting_reason = NULL", []).await;
    let run = daemon.await_run("merchant_id=1001&limit=1", waits).await;
    assert_eq!(run["waiting"]["reason"], "rate_limited", "{run}");
}

async fn a_run_that_waits_for_salla_while_it_runs_says_so(engine: Engine) {
    let site = Site::new(engine, (1001..=1012).map(|id| shop(id, 0, 2))).await;
    for id in 1001..=1012 {
        site.salla.world().always.insert(id, Fault::status(503));
    }
    let daemon = site.serve().await;
    for id in 1001..=1012 {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{id}}}"#)).await;
    }
    let waits = |run: &Value| run["status"] == "running" && run["waiting"]["reason"] == "salla_unavailable";
    daemon.await_run("", waits).await;
    site.salla.world().always.clear();
    for id in 1001..=1012 {
        let query = format!("merchant_id={id}");
        let run = daemon.await_run(&query, |run| run["status"] == "succeeded").await;
        assert_eq!(run["waiting"], Value::Null);
    }
}
