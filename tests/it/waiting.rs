//! A run that waits says for what, until when, and how often it has waited.

use chrono::{DateTime, TimeDelta, Utc};
use salla_reconciler::simulator::Fault;
use serde_json::Value;

use crate::support::{Engine, Site, site::shop};

on_every_database!(
    a_run_that_waits_for_its_store_says_so,
    a_run_that_waits_for_a_rate_limit_says_so,
    a_run_that_waits_for_salla_while_it_runs_says_so,
);

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
    assert!(daemon.log_text().contains("run waits at its cursor"), "{}", daemon.log_text());
    let (status, page) = daemon.get(&format!("/dashboard/runs/{}", run["run_id"].as_str().unwrap())).await;
    assert!(status == 200 && page.to_string().contains("salla_unavailable"), "{page}");
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
