//! Replicas come and go while there is work.

use std::time::Duration;

use nix::sys::signal::Signal;
use salla_reconciler::simulator::{Fault, Gate};
use tokio::time::Instant;

use crate::support::{Engine, Site, daemon::Daemon, site::shop, until};

on_every_database!(a_deploy, readiness_ends_before_the_process);

const STORES: i64 = 6;

/// Sends SIGTERM, and returns how long the process takes to end well.
async fn end(mut daemon: Daemon) -> Duration {
    let began = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().await, Some(0), "{}", daemon.log_text());
    began.elapsed()
}

/// Each replica is replaced by another during the sweep.
async fn a_deploy(engine: Engine) {
    let mut site = Site::new(engine, (1..=STORES).map(|store| shop(store, 0, 30))).await;
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.set("RECONCILE__CONCURRENCY", "2");
    for store in 1..=STORES {
        site.salla.world().always.insert(store, Fault::Hang(Duration::from_millis(40)));
    }
    let mut replicas = vec![site.serve().await, site.serve().await];
    for store in 1..=STORES {
        replicas[0].post("/runs", &format!(r#"{{"merchant_id":{store}}}"#)).await;
    }
    for _ in 0..4 {
        let fetched = async || site.database.number("SELECT CAST(sum(fetched) AS bigint) FROM runs").await;
        let before = fetched().await;
        until("the sweep gets on", async || fetched().await >= before + 10).await;
        replicas.push(site.serve().await);
        let took = end(replicas.remove(0)).await;
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    let done = "SELECT count(*) FROM runs WHERE status = 'succeeded'";
    until("all runs end", async || site.database.number(done).await == STORES).await;
    let spent = "SELECT count(*) FROM runs WHERE attempt <> 1 OR failed_attempts <> 0 OR fetched <> 30";
    assert_eq!(site.database.number(spent).await, 0, "no attempt is spent, and no page read twice");
    assert!(site.database.number("SELECT max(epoch) FROM runs").await > 1, "no run changed hands");
    for store in 1..=STORES {
        site.assert_equal(store).await;
    }
}

/// No request is sent to a process that is on its way out. It finishes the work that it has begun.
async fn readiness_ends_before_the_process(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.salla.world().script(1001, [Fault::TokenEnded]);
    let answer = Gate::default();
    site.salla.world().token_faults.push_back(Fault::Hold(answer.clone()));
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    let begun = "SELECT count(*) FROM credentials WHERE refresh_started_at IS NOT NULL";
    until("a refresh is under way", async || site.database.number(begun).await == 1).await;
    daemon.signal(Signal::SIGTERM);
    until("it is not ready any more", async || daemon.get("/readyz").await.0 == 503).await;
    assert_eq!(daemon.get("/healthz").await.0, 200);
    answer.open();
    end(daemon).await;
    assert_eq!(site.database.number(begun).await, 0);
    assert_eq!(site.salla.world().refreshes, 1);
    assert_eq!(site.database.text("SELECT status || attempt FROM runs").await, "queued0");
    // The next process goes on with the new token.
    let next = site.serve().await;
    next.await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!(site.salla.world().refreshes, 1);
    site.assert_equal(1001).await;
}
