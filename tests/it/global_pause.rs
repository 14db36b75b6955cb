//! The pause of all stores: as though no daemon ran, until they go on.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use salla_reconciler::simulator::Fault;
use serde_json::{Value, json};

use crate::support::{
    Engine, Site,
    site::{shop, totals},
};

on_every_database!(
    a_run_that_the_foreground_has_lost_is_paused_too,
    running_runs_are_released_and_resume,
    a_sweep_waits_during_a_global_pause,
    the_api_pauses_all
);

async fn running_runs_are_released_and_resume(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 40), shop(1002, 0, 3)]).await;
    site.set("RECONCILE__LEASE", "4s");
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.salla.world().always.insert(1001, Fault::Hang(Duration::from_millis(150)));
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["totals"]["fetched"].as_u64() > Some(1)).await;
    assert_eq!(
        site.run(&["merchants", "pause", "--all"]).await.exits(0).stdout,
        "all merchants are paused until `merchants resume --all`\n"
    );
    assert_eq!(site.run(&["merchants", "pause", "--all"]).await.exits(0).stdout, "all merchants were paused already\n");
    let released = daemon.await_run("", |run| run["status"] == "queued").await;
    assert_eq!(released["error"], Value::Null, "{released}");
    daemon.post("/runs", r#"{"merchant_id":1002}"#).await;
    let shown = site.run(&["check"]).await.stdout;
    assert!(shown.contains("all merchants are paused since"), "{shown}");
    assert!(daemon.get("/metrics").await.1.as_str().unwrap().contains("salla_reconciler_global_pause 1"));
    // In the foreground somebody wants it all the same.
    assert_eq!(site.reconcile(1002, &[]).await["status"], "succeeded");
    let before = site.salla.world().requests_for(1001);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(
        site.database.number("SELECT count(*) FROM runs WHERE status = 'queued'").await,
        2,
        "no worker claims them"
    );
    assert_eq!(site.salla.world().requests_for(1001), before, "its worker learns that it must stop");
    site.salla.world().always.clear();
    assert_eq!(site.run(&["merchants", "resume", "--all"]).await.exits(0).stdout, "the global pause has ended\n");
    let run = daemon.await_run("merchant_id=1001", |run| run["status"] == "succeeded").await;
    assert_eq!(totals(&run), [40, 40, 0, 0, 0, 0]);
    assert_eq!(site.database.number("SELECT max(attempt) FROM runs").await, 1, "no attempt is spent");
    daemon.await_run("merchant_id=1002", |run| run["trigger"] == "http" && run["status"] == "succeeded").await;
    for merchant in [1001, 1002] {
        site.assert_equal(merchant).await;
    }
}

async fn a_sweep_waits_during_a_global_pause(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 3)]).await;
    let hour = (Utc::now() - TimeDelta::hours(1)).format("%H").to_string();
    site.set("SCHEDULE__CRON", &format!("0 0 {hour} * * *"));
    site.set("SCHEDULE__TIMEZONE", "UTC");
    let (pattern, long_ago) = (format!("0 0 {hour} * * * UTC"), Utc::now() - TimeDelta::days(2));
    let sql = "INSERT INTO sweeps (scheduled_for, cron, outcome) VALUES ($1, $2, 'schedule')";
    site.database.execute(sql, [long_ago.into(), pattern.into()]).await;
    site.run(&["merchants", "pause", "--all"]).await.exits(0);
    let daemons = [site.serve().await, site.serve().await];
    for daemon in &daemons {
        daemon.await_line(|line| line["message"].as_str().is_some_and(|text| text.contains("a sweep waits"))).await;
    }
    assert_eq!(site.database.number("SELECT count(*) FROM sweeps").await, 1, "it is not on record");
    site.run(&["merchants", "resume", "--all"]).await.exits(0);
    let run = daemons[0].await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!(run["trigger"], "catch_up");
    assert_eq!(site.database.number("SELECT count(*) FROM runs").await, 1, "made up for once");
}

async fn the_api_pauses_all(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    let daemon = site.serve().await;
    for (path, paused) in [("/merchants/pause", true), ("/merchants/pause", true), ("/merchants/resume", false)] {
        let (status, answer) = daemon.post(path, "").await;
        assert_eq!((status.as_u16(), answer), (200, json!({"paused": paused})));
        assert_eq!(site.database.number("SELECT count(*) FROM global_pause").await, i64::from(paused));
    }
    let (_, audit) = daemon.get("/audit").await;
    let actions: Vec<&str> =
        audit["entries"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        ["all.resume", "all.pause", "merchant.register"],
        "what changes nothing is not on record: {audit}"
    );
    // A merchant that is paused by name stays paused.
    site.run(&["merchants", "pause", "1001"]).await.exits(0);
    daemon.post("/merchants/pause", "").await;
    daemon.post("/merchants/resume", "").await;
    assert_eq!(daemon.get("/merchants/1001").await.1["state"], "paused");
    site.run(&["merchants", "pause"]).await.exits(2);
    site.run(&["merchants", "pause", "1001", "--all"]).await.exits(2);
}

/// A person waits for a foreground run, until a daemon has taken it over.
async fn a_run_that_the_foreground_has_lost_is_paused_too(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 60)]).await;
    site.set("RECONCILE__LEASE", "2s");
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.salla.world().always.insert(1001, Fault::Hang(Duration::from_millis(100)));
    let mut child = site.command(&["run"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    crate::support::until("a page is committed", async || {
        site.database.number("SELECT count(*) FROM run_seen_ids").await > 1
    })
    .await;
    child.kill().await.unwrap();
    let daemon = site.serve().await;
    crate::support::until("the daemon goes on with it", async || {
        site.database.number("SELECT max(epoch) FROM runs WHERE status = 'running'").await == 2
    })
    .await;
    site.run(&["merchants", "pause", "--all"]).await.exits(0);
    let released = daemon.await_run("", |run| run["status"] == "queued").await;
    assert_eq!(released["trigger"], "cli");
    let before = site.salla.world().requests_for(1001);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(site.salla.world().requests_for(1001), before);
}
