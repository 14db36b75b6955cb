//! A process that dies at any moment. Its commits stay, and the rest is done again.

use std::{process::Stdio, time::Duration};

use nix::sys::signal::Signal;
use salla_reconciler::simulator::Fault;

use crate::support::{
    Engine, Site,
    site::{shop, totals},
};

on_every_database!(a_crash_of_the_daemon, a_crash_in_the_foreground, a_run_that_keeps_crashing_fails);

/// Failure modes, "Crash recovery".
async fn a_crash_of_the_daemon(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 9)]).await;
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.set("RECONCILE__LEASE", "2s");
    site.salla.world().always.insert(1001, Fault::Hang(Duration::from_millis(150)));
    let mut daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["totals"]["fetched"].as_u64() >= Some(3)).await;
    daemon.signal(Signal::SIGKILL);
    daemon.wait().await;
    assert_eq!(site.database.text("SELECT status FROM runs").await, "running");

    let daemon = site.serve().await;
    let run = daemon.await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!(totals(&run), [9, 9, 0, 0, 0, 0]);
    assert_eq!(site.database.text("SELECT status || attempt FROM runs").await, "succeeded2");
    assert_eq!(site.database.number("SELECT count(*) FROM run_seen_ids").await, 0);
    // Pages of one row do not show their order: they are read twice over, and one of them again.
    assert!(run["requests"].as_u64() <= Some(19), "the pages before the crash were read again: {run}");
    site.assert_equal(1001).await;
}

async fn a_crash_in_the_foreground(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 6)]).await;
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.set("RECONCILE__LEASE", "2s");
    site.salla.world().always.insert(1001, Fault::Hang(Duration::from_millis(300)));
    let mut child = site.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while site.salla.world().requests_for(1001) < 3 && child.try_wait().unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    child.kill().await.unwrap();
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    assert_eq!(totals(&run)[0], 6);
    site.assert_equal(1001).await;
    assert_eq!(
        site.database.number("SELECT count(*) FROM runs WHERE status = 'failed' AND error_kind = 'abandoned'").await,
        1
    );
}

async fn a_run_that_keeps_crashing_fails(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 1)]).await;
    site.set("RECONCILE__LEASE", "1s");
    site.salla.world().always.insert(1001, Fault::Hang(Duration::from_secs(60)));
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["status"] == "running").await;
    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    site.database.execute("UPDATE runs SET failed_attempts = 4", []).await;
    let daemon = site.serve().await;
    let run = daemon.await_run("", |run| run["status"] == "failed").await;
    assert_eq!(run["error"]["kind"], "worker_crash_loop");
}
