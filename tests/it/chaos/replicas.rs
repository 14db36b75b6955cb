//! What takes several replicas.

use std::time::Duration;

use nix::sys::signal::Signal;
use salla_reconciler::simulator::Fault;
use tokio::time::{Instant, sleep_until};

use super::{KILLS, Storm, number};
use crate::support::{
    Engine, Site,
    site::{shop, totals},
};

on_every_database!(@ postgres: killing_replicas_every_two_seconds_loses_nothing, a_stopped_process_that_wakes_up_writes_nothing);

async fn killing_replicas_every_two_seconds_loses_nothing(engine: Engine) {
    let mut storm = Storm::new(engine, 3, "2s").await;
    let mut next = Instant::now();
    for _ in 0..number("CHAOS_KILLS").unwrap_or(KILLS) / 2 {
        next += Duration::from_secs(2);
        storm.ask_for_runs().await;
        sleep_until(next).await;
        storm.kill_one().await;
    }
    storm.end().await;
}

/// It sleeps for longer than two leases, midway through a page, and its run is another's by then.
async fn a_stopped_process_that_wakes_up_writes_nothing(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 12)]).await;
    site.set("RECONCILE__PAGE_SIZE", "2");
    site.set("RECONCILE__LEASE", "2s");
    // The fourth answer is on its way when the process is stopped, and is there when it wakes up.
    let pauses = [0, 0, 0, 1000].map(|millis| Fault::Hang(Duration::from_millis(millis)));
    site.salla.world().script(1001, pauses);
    let stopped = site.serve().await;
    stopped.post("/runs", r#"{"merchant_id":1001}"#).await;
    while site.salla.world().requests_for(1001) < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stopped.signal(Signal::SIGSTOP);
    let slept = Instant::now();

    let other = site.serve().await;
    let run = other.await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!(totals(&run), [12, 12, 0, 0, 0, 0]);
    assert_eq!(site.database.number("SELECT epoch FROM runs").await, 2);
    sleep_until(slept + Duration::from_secs(5)).await;
    let before = site.database.dump().await;

    stopped.signal(Signal::SIGCONT);
    stopped.await_line(|line| line["message"].as_str().is_some_and(|text| text.contains("took over the run"))).await;
    let (_, metrics) = stopped.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("salla_reconciler_leases_lost_total 1"), "{metrics}");
    assert_eq!(site.database.dump().await, before, "it wrote after its lease was lost");
    site.assert_equal(1001).await;
    site.assert_no_watermark_ahead().await;

    // It is of use again.
    let first = &run["run_id"];
    drop(other);
    assert_eq!(stopped.post("/runs", r#"{"merchant_id":1001}"#).await.0, 202);
    stopped.await_run("", |run| run["status"] == "succeeded" && &run["run_id"] != first).await;
}
