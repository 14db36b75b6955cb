//! The daemon ends as by `kill -9` before and after each commit. Then another daemon takes over.
//! Nothing is lost, nothing is stored twice, and no refresh token is used again.
//!
//! `POINT=finish_after_commit tests/run --test it -- failpoints::` tries one.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use futures::{StreamExt, stream};
use nix::sys::signal::Signal;
use salla_reconciler::simulator::Fault;
use serde_json::json;

use crate::{
    onboarding::{SECRET, installation, signature},
    support::{
        Engine, Site,
        daemon::Daemon,
        site::{EVERYTHING, everything, shop},
    },
};

on_every_database!(a_kill_at_each_commit_loses_nothing, a_crashing_merchant_fails_alone);

/// So many points are tried at a time.
const AT_ONCE: usize = 4;

/// How a point is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Runs,
    GivingBack,
    Schedule,
    Request,
    Cancelling,
    Pausing,
    Retention,
    Refresh,
    Webhook,
    Import,
}

/// Each commit, how it is reached, and what of it the process survives: the second page, say.
const COMMITS: [(&str, Way, &str); 13] = [
    ("page", Way::Runs, "2*off->return"),
    ("finish", Way::Runs, "return"),
    ("claim", Way::Runs, "return"),
    ("release", Way::GivingBack, "return"),
    // The first only notes that the schedule began.
    ("sweep", Way::Schedule, "1*off->return"),
    ("enqueue", Way::Request, "return"),
    ("cancel", Way::Cancelling, "return"),
    ("pause", Way::Pausing, "return"),
    ("retention", Way::Retention, "return"),
    ("refresh_mark", Way::Refresh, "return(1001)"),
    ("refresh_save", Way::Refresh, "return(1001)"),
    ("webhook", Way::Webhook, "return"),
    ("import", Way::Import, "return"),
];

async fn a_kill_at_each_commit_loses_nothing(engine: Engine) {
    let only = std::env::var("POINT").ok();
    let points = COMMITS.iter().flat_map(|(commit, way, action)| {
        ["before", "after"].map(|side| (format!("{commit}_{side}_commit"), *way, *action))
    });
    // A claim is one statement: before it there is nothing.
    let points = points.filter(|(point, ..)| point != "claim_before_commit");
    let points: Vec<_> = points.filter(|(point, ..)| only.as_ref().is_none_or(|only| only == point)).collect();
    assert!(!points.is_empty(), "there is no such point: {only:?}");
    stream::iter(points)
        .for_each_concurrent(AT_ONCE, |(point, way, action)| async move {
            println!("{engine:?}: {point}");
            die_at(engine, &point, way, action).await;
            println!("{engine:?}: {point} is survived");
        })
        .await;
}

async fn die_at(engine: Engine, point: &str, way: Way, action: &str) {
    let mut site = Site::new(engine, [everything(1001, 8, 4), everything(1002, 8, 4)]).await;
    for (key, value) in EVERYTHING {
        site.set(key, value);
    }
    site.set("RECONCILE__PAGE_SIZE", "3");
    site.set("RECONCILE__LEASE", "2s");
    let before = site.salla.world().refreshes;
    let points = format!("{point}={action}");
    reach(&mut site, way, &points).await;
    site.assert_no_watermark_ahead().await;

    for merchant in [1001, 1002] {
        site.salla.world().always.remove(&merchant);
    }
    if way == Way::Refresh {
        // Two minutes are too long to wait for a process that is gone.
        let long_ago = Utc::now() - TimeDelta::minutes(3);
        let sql = "UPDATE credentials SET refresh_started_at = $1 WHERE refresh_started_at IS NOT NULL";
        site.database.execute(sql, [long_ago.into()]).await;
    }
    let mut daemon = site.serve().await;
    again(&site, &daemon, way, point).await;
    site.await_settled().await;
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().await, Some(0), "{point}");
    if way == Way::Refresh {
        let refreshed = site.salla.world().refreshes - before;
        assert!(refreshed <= 1 + 1, "{point}: {refreshed} refreshes of two stores");
    }
    site.assert_recovered(&[]).await;
}

/// Makes a process reach the point, where it ends.
async fn reach(site: &mut Site, way: Way, points: &str) {
    match way {
        Way::Import => {
            let line = site.salla.registration(1001).unwrap();
            let file = site.folder.path().join("merchants.jsonl");
            std::fs::write(&file, line).unwrap();
            let mut command = site.command(&["merchants", "import", file.to_str().unwrap()]);
            command.env("FAILPOINTS", points);
            assert_eq!(site.output(command, "").await.code, -1);
            return;
        }
        Way::Schedule => site.set("SCHEDULE__CRON", "* * * * * *"),
        Way::Retention => {
            site.run(&["run"]).await.exits(0);
            let long_ago = Utc::now() - TimeDelta::days(100);
            site.database.execute("UPDATE runs SET finished_at = $1", [long_ago.into()]).await;
        }
        Way::Refresh => {
            let [begun, soon] = [TimeDelta::days(-13), TimeDelta::hours(1)].map(|span| Utc::now() + span);
            let sql = "UPDATE credentials SET issued_at = $1, expires_at = $2 WHERE merchant_id = 1001";
            site.database.execute(sql, [begun.into(), soon.into()]).await;
        }
        Way::GivingBack | Way::Cancelling => {
            for merchant in [1001, 1002] {
                site.salla.world().always.insert(merchant, Fault::Hang(Duration::from_millis(400)));
            }
        }
        Way::Runs | Way::Request | Way::Pausing | Way::Webhook => {}
    }
    let mut daemon = site.serve_until(points).await;
    match way {
        Way::Runs => {
            for merchant in [1001, 1002] {
                try_to(&daemon, "/runs", &json!({"merchant_id": merchant}).to_string(), &[]).await;
            }
        }
        Way::GivingBack => {
            post_all(&daemon).await;
            daemon.await_run("merchant_id=1001", |run| run["totals"]["fetched"].as_u64() > Some(0)).await;
            daemon.signal(Signal::SIGTERM);
        }
        Way::Cancelling => {
            post_all(&daemon).await;
            let run = daemon.await_run("merchant_id=1001", |run| run["status"] == "running").await;
            try_to(&daemon, &format!("/runs/{}/cancel", run["run_id"].as_str().unwrap()), "", &[]).await;
        }
        Way::Request => ask(&daemon).await,
        Way::Pausing => try_to(&daemon, "/merchants/1001/pause", "", &[]).await,
        Way::Webhook => install(site, &daemon).await,
        Way::Schedule | Way::Retention | Way::Refresh | Way::Import => {}
    }
    daemon.wait_for_death().await;
    site.unset("SCHEDULE__CRON");
}

/// Repeats the action as a caller without an answer does, and checks the result.
async fn again(site: &Site, daemon: &Daemon, way: Way, point: &str) {
    match way {
        Way::Request => {
            ask(daemon).await;
            assert_eq!(site.database.number("SELECT count(*) FROM runs").await, 1, "{point}");
            assert_eq!(audited(site, "run.trigger").await, 1, "{point}");
        }
        Way::Pausing => {
            try_to(daemon, "/merchants/1001/pause", "", &[]).await;
            assert_eq!(daemon.get("/merchants/1001").await.1["state"], "paused", "{point}");
            try_to(daemon, "/merchants/1001/resume", "", &[]).await;
            assert_eq!(daemon.get("/merchants/1001").await.1["state"], "active", "{point}");
        }
        Way::Webhook => {
            install(site, daemon).await;
            assert_eq!(site.database.number("SELECT count(*) FROM webhook_events").await, 1, "{point}");
            assert_eq!(audited(site, "webhook.apply").await, 1, "{point}");
        }
        Way::Import => site.register(1001).await,
        Way::Retention => {
            // All that was there is over, as if it had never been.
            while site.database.number("SELECT count(*) FROM runs").await > 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Way::Refresh => after_refresh(site, daemon, point).await,
        Way::Runs | Way::GivingBack | Way::Schedule | Way::Cancelling => {}
    }
}

/// A refresh token that may have been used is not used again, and who installs the app again goes on.
async fn after_refresh(site: &Site, daemon: &Daemon, point: &str) {
    let state = "SELECT state FROM merchants WHERE merchant_id = 1001";
    if ["refresh_mark_after_commit", "refresh_save_before_commit"].contains(&point) {
        daemon.await_line(|line| line["merchant.id"] == 1001 && line["level"] == "ERROR").await;
        assert_eq!(site.database.text(state).await, "needs_reauthorization", "{point}");
        site.register(1001).await;
    }
    // Marked or not, the new token is there in the end.
    let present = "SELECT count(*) FROM credentials WHERE expires_at > $";
    let later = (Utc::now() + TimeDelta::days(2)).to_rfc3339();
    let present = present.replace('$', &format!("'{later}'"));
    while site.database.number(&present).await < 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(site.database.text(state).await, "active", "{point}");
}

async fn audited(site: &Site, action: &str) -> i64 {
    site.database.number(&format!("SELECT count(*) FROM audit WHERE action = '{action}'")).await
}

async fn post_all(daemon: &Daemon) {
    for merchant in [1001, 1002] {
        assert_eq!(daemon.post("/runs", &json!({"merchant_id": merchant}).to_string()).await.0, 202);
    }
}

async fn ask(daemon: &Daemon) {
    try_to(daemon, "/runs", r#"{"merchant_id":1001}"#, &[("idempotency-key", "once")]).await;
}

async fn install(site: &Site, daemon: &Daemon) {
    // The same delivery each time.
    let at = chrono::DateTime::from_timestamp(Utc::now().timestamp() / 3600 * 3600, 0).unwrap();
    let body = installation(site, 1001, at);
    try_to(daemon, "/webhooks/salla", &body, &[("x-salla-signature", &signature(SECRET, &body))]).await;
}

/// A missing answer is also accepted.
async fn try_to(daemon: &Daemon, path: &str, body: &str, headers: &[(&str, &str)]) {
    let status = daemon.try_post(path, body, headers).await;
    assert!(status.is_none_or(|status| status.is_success()), "{path}: {status:?}");
}

/// Failure modes, "Crash recovery": nine stores in one process, one of which ends it each time that a page of it comes.
async fn a_crashing_merchant_fails_alone(engine: Engine) {
    let mut site = Site::new(engine, (1001..=1009).map(|merchant| shop(merchant, 0, 9))).await;
    site.set("RECONCILE__PAGE_SIZE", "3");
    // A lease that lapses while its process lives would also count as a death.
    site.set("RECONCILE__LEASE", "5s");
    // The others are at work when it happens.
    for merchant in 1002..=1009 {
        site.salla.world().always.insert(merchant, Fault::Hang(Duration::from_millis(300)));
    }
    let mut deaths = 0;
    let daemon = loop {
        let mut daemon = site.serve_until("page_before_commit=return(1001)").await;
        if deaths == 0 {
            for merchant in (1002..=1009).chain([1001]) {
                try_to(&daemon, "/runs", &json!({"merchant_id": merchant}).to_string(), &[]).await;
            }
        }
        if ends_otherwise(&site, &mut daemon).await {
            break daemon;
        }
        deaths += 1;
        assert!(deaths <= 5, "it is not parked");
        site.assert_no_watermark_ahead().await;
    };
    assert_eq!(deaths, 5);
    let run = daemon.await_run("merchant_id=1001", |run| run["status"] == "failed").await;
    assert_eq!(run["error"]["kind"], "worker_crash_loop");
    assert!(run["error"]["message"].as_str().unwrap().contains("5 times in a row"), "{run}");
    let told = daemon.await_line(|line| line["merchant.id"] == 1001 && line["level"] == "ERROR").await;
    assert_eq!((&told["message"], &told["error.kind"]), (&json!("run ended"), &json!("worker_crash_loop")), "{told}");
    let (_, metrics) = daemon.get("/metrics").await;
    let counted = r#"salla_reconciler_run_failures_total{kind="worker_crash_loop"} 1"#;
    assert!(metrics.as_str().unwrap().contains(counted), "no {counted} in\n{metrics}");
    for merchant in 1002..=1009 {
        daemon.await_run(&format!("merchant_id={merchant}"), |run| run["status"] == "succeeded").await;
        site.assert_equal(merchant).await;
    }
    assert_eq!(site.database.number("SELECT count(*) FROM runs").await, 9);
    drop(daemon);
    site.assert_recovered(&[]).await;
}

/// Whether no run is open any more while the daemon still lives; else it has died.
async fn ends_otherwise(site: &Site, daemon: &mut Daemon) -> bool {
    tokio::select! {
        () = daemon.wait_for_death() => false,
        () = site.await_settled() => true,
    }
}
