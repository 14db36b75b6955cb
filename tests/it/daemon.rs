//! `serve`: the schedule, the HTTP surface, and an orderly end.

use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::Method;
use salla_reconciler::simulator::Fault;
use sea_orm::{ConnectionTrait, TransactionTrait};
use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    Engine, Site,
    site::{shop, totals},
    until,
};

on_every_database!(
    the_schedule_sweeps_every_active_merchant,
    a_missed_sweep_is_started_once,
    runs_on_demand,
    one_merchant_has_one_running_run,
    probes_and_metrics,
    sigterm_releases_runs,
    a_run_is_cancelled,
    runs_are_paged,
    two_daemons_share_the_work,
    salla_is_down,
    every_error_is_a_problem,
    a_request_that_waits_for_a_lock_of_others_is_answered_with_503,
);

async fn the_schedule_sweeps_every_active_merchant(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 3), shop(1002, 0, 3), shop(1003, 0, 3)]).await;
    site.run(&["merchants", "pause", "1003"]).await.exits(0);
    site.set("SCHEDULE__CRON", "*/3 * * * * *");
    site.set("RECONCILE__CONCURRENCY", "1");
    let mut daemon = site.serve().await;
    for merchant in [1001, 1002] {
        let run = daemon.await_run(&format!("merchant_id={merchant}"), |run| run["status"] == "succeeded").await;
        assert_eq!(run["trigger"], "schedule");
        site.assert_equal(merchant).await;
    }
    let sweep = daemon.await_line(|line| line["message"] == "sweep ended").await;
    assert_eq!(sweep["sweep.runs"], 2, "one line a sweep, whatever the concurrency: {sweep}");
    assert_eq!(daemon.get("/runs?merchant_id=1003").await.1["runs"], json!([]));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().await, Some(0));
}

async fn a_missed_sweep_is_started_once(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 3)]).await;
    // A firing an hour ago, of a schedule that last fired two hours ago.
    let hour = (chrono::Utc::now() - chrono::TimeDelta::hours(1)).format("%H").to_string();
    site.set("SCHEDULE__CRON", &format!("0 0 {hour} * * *"));
    site.set("SCHEDULE__TIMEZONE", "UTC");
    let pattern = format!("0 0 {hour} * * * UTC");
    let long_ago = chrono::Utc::now() - chrono::TimeDelta::days(2);
    site.database
        .execute(
            "INSERT INTO sweeps (scheduled_for, cron, outcome) VALUES ($1, $2, 'schedule')",
            [long_ago.into(), pattern.into()],
        )
        .await;
    let daemon = site.serve().await;
    let run = daemon.await_run("merchant_id=1001", |run| run["status"] == "succeeded").await;
    assert_eq!(run["trigger"], "catch_up");
    assert_eq!(site.database.number("SELECT count(*) FROM runs").await, 1);
    assert_eq!(site.database.number("SELECT count(*) FROM sweeps WHERE outcome = 'skipped'").await, 1);
}

async fn runs_on_demand(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 50, 3)]).await;
    site.set("HTTP__API_TOKEN", "operator-canary-0123");
    let guarded = site.serve().await;
    for path in ["/runs", "/merchants", "/runs/00000000-0000-7000-8000-000000000000"] {
        assert_eq!(guarded.get(path).await.0, 401, "{path}");
    }
    assert_eq!(guarded.post("/runs", r#"{"merchant_id":1001}"#).await.0, 401);
    assert_eq!(guarded.call_with_token("/runs", "operator-canary-0123").await, 200);
    assert_eq!(guarded.call_with_token("/runs", "operator").await, 401);
    drop(guarded);

    site.unset("HTTP__API_TOKEN");
    let daemon = site.serve().await;
    let (status, headers, body) = daemon.call(Method::POST, "/runs", Some(r#"{"merchant_id":1001,"full":true}"#)).await;
    assert_eq!(status, 202);
    let location = headers["location"].to_str().unwrap().to_owned();
    assert_eq!(location, format!("/runs/{}", body["run_id"].as_str().unwrap()));
    let run = daemon.await_run("merchant_id=1001", |run| run["status"] == "succeeded").await;
    assert_eq!(run["trigger"], "http");
    assert_eq!(totals(&run), [53, 53, 0, 0, 0, 0]);
    assert_eq!(daemon.get(&location).await.1, run);
    site.assert_equal(1001).await;

    for (body, status) in [
        (r#"{"merchant_id":4242}"#, 404),
        (r#"{"merchant_id":1001,"since":"2026-11-24T02:00:00Z","until":"2026-11-23T02:00:00Z"}"#, 422),
        (r#"{"merchant_id":1001,"since":"2126-11-24T02:00:00Z"}"#, 422),
        (r#"{"merchant_id":1001,"since":"2026-11-24T02:00:00Z","full":true}"#, 400),
        (r#"{"merchant_id":"x"}"#, 400),
        (r#"{"merchant_id":1001,"surprise":1}"#, 400),
        ("[1001,null,null,false,false,null]", 400),
        ("", 400),
    ] {
        let (got, headers, problem) = daemon.call(Method::POST, "/runs", Some(body)).await;
        assert_eq!(got, status, "{body}: {problem}");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(problem["status"], status);
    }
    for (method, path, status) in [
        (Method::GET, "/runs/00000000-0000-7000-8000-000000000000", 404),
        (Method::GET, "/runs/nonsense", 404),
        (Method::GET, "/runs/00000000-0000-7000-8000-000000000000/discrepancies", 404),
        (Method::GET, "/runs?status=unheard", 400),
        (Method::GET, "/runs?limit=0", 400),
        (Method::GET, "/runs?cursor=x", 400),
        (Method::DELETE, "/runs", 405),
        (Method::GET, "/nowhere", 404),
        (Method::GET, "/merchants/4242", 404),
    ] {
        let (got, headers, _) = daemon.call(method, path, None).await;
        assert_eq!(got, status, "{path}");
        assert_eq!(headers["content-type"], "application/problem+json", "{path}");
    }
    let page = daemon.get(&format!("{location}/discrepancies?limit=10")).await.1;
    assert_eq!(page["discrepancies"].as_array().unwrap().len(), 10);
    let next = page["next_cursor"].as_u64().unwrap();
    let rest = daemon.get(&format!("{location}/discrepancies?cursor={next}")).await.1;
    assert_eq!(rest["discrepancies"].as_array().unwrap().len(), 43);
    assert_eq!(rest["next_cursor"], json!(null));
    assert_eq!(daemon.get("/merchants/1001").await.1["merchant_id"], 1001);
}

async fn one_merchant_has_one_running_run(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.salla.world().script(1001, [Fault::Hang(Duration::from_millis(1500))]);
    let daemon = site.serve().await;
    let (status, first) = daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    assert_eq!(status, 202);
    let (status, problem) = daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    assert_eq!(status, 409);
    assert_eq!(problem["run_id"], first["run_id"]);
    daemon.await_run("", |run| run["status"] == "running").await;
    assert_eq!(daemon.post("/runs", r#"{"merchant_id":1001}"#).await.0, 409);
    daemon.await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!(daemon.post("/runs", r#"{"merchant_id":1001}"#).await.0, 202);
}

async fn probes_and_metrics(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!(daemon.get("/healthz").await.0, 200);
    assert_eq!(daemon.get("/readyz").await.0, 200);
    let (status, text) = daemon.get("/metrics").await;
    assert_eq!(status, 200);
    let text = text.as_str().unwrap();
    for line in [
        r#"salla_reconciler_runs_total{status="succeeded",trigger="http"} 1"#,
        r#"salla_reconciler_records_total{outcome="created",resource="orders"} 3"#,
        r#"salla_reconciler_salla_requests_total{code="200"} 1"#,
        r#"salla_reconciler_merchants{state="active"} 1"#,
        "salla_reconciler_runs_active 0",
        "salla_reconciler_runs_queued 0",
        "salla_reconciler_merchants_overdue 0",
        "salla_reconciler_run_duration_seconds_count 1",
        "salla_reconciler_salla_request_duration_seconds_count 1",
        "salla_reconciler_salla_throttled_seconds_total",
        "salla_reconciler_last_success_timestamp_seconds 1",
        "salla_reconciler_oldest_watermark_timestamp_seconds 1",
        "salla_reconciler_build_info{version=",
        r#"salla_reconciler_salla_circuit_state{state="closed"} 1"#,
        r#"salla_reconciler_salla_circuit_state{state="open"} 0"#,
        r#"salla_reconciler_token_refreshes_total{result="renewed"} 0"#,
        // A series is shown before its first event, so that the first event can be seen.
        r#"salla_reconciler_runs_total{status="failed",trigger="schedule"} 0"#,
        r#"salla_reconciler_run_failures_total{kind="salla_unavailable"} 0"#,
        r#"salla_reconciler_records_total{outcome="failed",resource="orders"} 0"#,
        "salla_reconciler_runs_due 0",
        "salla_reconciler_database_up 1",
        "salla_reconciler_last_sweep_timestamp_seconds ",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
    promtool_accepts(text);

    let mut healthcheck = site.command(&["healthcheck"]);
    let listen = daemon.url.strip_prefix("http://").unwrap();
    healthcheck.env("SALLA_RECONCILER__HTTP__LISTEN", listen);
    site.output(healthcheck, "").await.exits(0);

    site.database.execute("ALTER TABLE salla_reconciler_migrations RENAME TO away", []).await;
    assert_eq!(daemon.get("/readyz").await.0, 503);
    assert_eq!(daemon.get("/healthz").await.0, 200);

    // A value that the database does not provide is left out. Its old value is not shown.
    site.database.execute("ALTER TABLE sweeps RENAME TO sweeps_away", []).await;
    let (status, text) = daemon.get("/metrics").await;
    let text = text.as_str().unwrap();
    assert_eq!(status, 200);
    assert!(text.contains("salla_reconciler_database_up 0"), "{text}");
    assert!(text.contains(r#"salla_reconciler_runs_total{status="succeeded",trigger="http"} 1"#), "{text}");
    for gone in ["runs_queued", "merchants{", "last_success_timestamp_seconds"] {
        assert!(!text.contains(&format!("\nsalla_reconciler_{gone}")), "{gone} in\n{text}");
    }
    site.database.execute("ALTER TABLE away RENAME TO salla_reconciler_migrations", []).await;
    let (status, body) = daemon.get("/readyz").await;
    assert!(status == 503 && body["detail"].as_str().unwrap().contains("table sweeps"), "{body}");
    site.database.execute("ALTER TABLE sweeps_away RENAME TO sweeps", []).await;
    assert_eq!(daemon.get("/readyz").await.0, 200);
}

fn promtool_accepts(text: &str) {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is not on this machine: `tests/run` installs it");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.trim().is_empty(), "{said}");
}

async fn sigterm_releases_runs(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 5)]).await;
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.salla
        .world()
        .script(1001, [Fault::Hang(Duration::ZERO), Fault::Hang(Duration::ZERO), Fault::Hang(Duration::from_secs(60))]);
    site.set("SALLA__REQUEST_TIMEOUT", "90s");
    let mut daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    until("the request that hangs", async || site.salla.world().seen.len() == 3).await;
    daemon.await_run("", |run| run["totals"]["fetched"] == 2).await;
    let began = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(daemon.log_text().contains("run released"), "{}", daemon.log_text());
    assert_eq!(site.database.text("SELECT status || attempt FROM runs").await, "queued0");

    let daemon = site.serve().await;
    let run = daemon.await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!(totals(&run), [5, 5, 0, 0, 0, 0]);
    site.assert_equal(1001).await;
}

async fn a_run_is_cancelled(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 50)]).await;
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.salla.world().always.insert(1001, Fault::Hang(Duration::from_millis(100)));
    let daemon = site.serve().await;
    let (_, run) = daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    let path = format!("/runs/{}/cancel", run["run_id"].as_str().unwrap());
    daemon.await_run("", |run| run["totals"]["fetched"].as_u64() > Some(1)).await;
    assert_eq!(daemon.post(&path, "").await.0, 202);
    let run = daemon.await_run("", |run| run["status"] == "cancelled").await;
    assert!(totals(&run)[0] < 50);
    assert_eq!(daemon.post(&path, "").await.0, 409);
    assert!(site.database.rows("SELECT * FROM watermarks").await.is_empty());
}

async fn runs_are_paged(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 1), shop(1002, 0, 1)]).await;
    for _ in 0..3 {
        site.run(&["run"]).await.exits(0);
    }
    let daemon = site.serve().await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let (_, body) = daemon.get(&format!("/runs?limit=2{cursor}")).await;
        let runs = body["runs"].as_array().unwrap().clone();
        assert!(runs.len() <= 2);
        seen.extend(runs.iter().map(|run| run["run_id"].as_str().unwrap().to_owned()));
        let Some(next) = body["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.reverse();
    sorted.dedup();
    assert_eq!(seen, sorted);
    assert_eq!(seen.len(), 6);
    let (_, body) = daemon.get("/runs?merchant_id=1002&status=succeeded").await;
    assert_eq!(body["runs"].as_array().unwrap().len(), 3);
}

async fn two_daemons_share_the_work(engine: Engine) {
    let shops = (1001..1013).map(|merchant| shop(merchant, 0, 5));
    let mut site = Site::new(engine, shops).await;
    site.set("SCHEDULE__CRON", "*/5 * * * * *");
    site.set("RECONCILE__CONCURRENCY", "3");
    // Longer than a daemon that has nothing to do takes to look again.
    for merchant in 1001..1013 {
        site.salla.world().always.insert(merchant, Fault::Hang(Duration::from_millis(900)));
    }
    let (first, second) = tokio::join!(site.serve(), site.serve());
    first.await_run("merchant_id=1012", |run| run["status"] == "succeeded").await;
    for merchant in 1001..1013 {
        first.await_run(&format!("merchant_id={merchant}"), |run| run["status"] == "succeeded").await;
        site.assert_equal(merchant).await;
    }
    let first_did = first.log_text().matches("run ended").count();
    let second_did = second.log_text().matches("run ended").count();
    assert!(first_did > 0 && second_did > 0, "one did nothing: {first_did}, {second_did}");
    drop((first, second));
    let twice =
        "SELECT count(*) FROM (SELECT 1 FROM runs GROUP BY merchant_id, sweep_scheduled_for HAVING count(*) > 1) twice";
    assert_eq!(site.database.number(twice).await, 0);
    assert_eq!(site.database.number("SELECT count(*) FROM runs WHERE status = 'failed'").await, 0);
}

/// Failure modes, "Circuit breaking".
async fn salla_is_down(engine: Engine) {
    let merchants = 1001..1031;
    let site = Site::new(engine, merchants.clone().map(|merchant| shop(merchant, 0, 2))).await;
    for merchant in merchants.clone() {
        site.salla.world().always.insert(merchant, Fault::status(503));
    }
    let output = site.run(&["run", "--json"]).await.exits(1);
    assert!(output.objects().iter().all(|run| run["error"]["kind"] == "salla_unavailable"), "{output:?}");
    assert!(output.stdout.contains("the circuit is open"), "{output:?}");
    let asked = site.salla.world().seen.len();
    assert!(asked < 40, "a Salla that is down was asked {asked} times for 30 stores");

    let down = Instant::now();
    let daemon = site.serve().await;
    for merchant in merchants.clone() {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{merchant}}}"#)).await;
    }
    daemon.await_line(|line| line["circuit.state"] == "open").await;
    assert_eq!(daemon.get("/readyz").await.0, 200);
    assert!(daemon.get("/metrics").await.1.as_str().unwrap().contains(r#"circuit_state{state="closed"} 0"#));
    tokio::time::sleep(Duration::from_secs(8).saturating_sub(down.elapsed())).await;
    for merchant in merchants.clone() {
        site.salla.world().always.remove(&merchant);
    }
    for merchant in merchants.clone() {
        daemon.await_run(&format!("merchant_id={merchant}&status=succeeded"), |_| true).await;
    }
    assert_eq!(site.database.number("SELECT count(*) FROM runs WHERE status = 'failed' AND trigger <> 'cli'").await, 0);
}

async fn every_error_is_a_problem(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 1)]).await;
    let daemon = site.serve().await;
    let large = format!(r#"{{"merchant_id":1001,"x":"{}"}}"#, "x".repeat(70_000));
    let beyond = r#"{"merchant_id":1001,"until":"-262143-01-01T00:00:01Z"}"#;
    let nothing = r#"{"merchant_id":1001,"full":true,"until":"1960-01-01T00:00:00Z"}"#;
    for (method, path, body, status) in [
        (Method::GET, "/runs/%FF", None, 400),
        (Method::POST, "/runs", Some(beyond), 422),
        (Method::POST, "/runs", Some(nothing), 422),
        (Method::POST, "/runs", Some(r#"{"merchant_id":1001,"since":"-9999-01-01T00:00:00Z"}"#), 422),
        (Method::POST, "/runs", Some(large.as_str()), 413),
    ] {
        let (got, headers, problem) = daemon.call(method, path, body).await;
        assert_eq!(got, status, "{path} {problem}");
        assert_eq!(headers["content-type"], "application/problem+json", "{path}");
    }
}

/// A backup, or a person at a prompt, holds what a request needs.
async fn a_request_that_waits_for_a_lock_of_others_is_answered_with_503(engine: Engine) {
    let site = Site::new(engine, [1001, 1002, 1003].map(|merchant| shop(merchant, 0, 1))).await;
    let daemon = site.serve().await;
    let holder = site.database.db.begin().await.unwrap();
    let hold = if site.database.is_postgres() {
        "LOCK TABLE runs IN ACCESS EXCLUSIVE MODE"
    } else {
        // The transaction of a writer, which no other writer passes.
        "INSERT INTO salla_reconciler_migrations (version, applied_at) VALUES ('of somebody', 0)"
    };
    holder.execute_unprepared(hold).await.unwrap();
    let asked = Instant::now();
    // On SQLite they have one connection: none may keep it while it waits.
    let request = async |merchant: i64| daemon.post("/runs", &format!(r#"{{"merchant_id":{merchant}}}"#)).await;
    let (first, second, third) = tokio::join!(request(1001), request(1002), request(1003));
    for (status, problem) in [first, second, third] {
        assert_eq!(status, 503, "{problem}");
    }
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    if !site.database.is_postgres() {
        assert_eq!(daemon.get("/readyz").await.0, 200, "a lock of another process is not a failure");
    }
    holder.rollback().await.unwrap();
    let again = async || daemon.post("/runs", r#"{"merchant_id":1001}"#).await.0 == 202;
    until("the lock is gone", again).await;
    daemon.await_run("merchant_id=1001", |run| run["status"] == "succeeded").await;
}
