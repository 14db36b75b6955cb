//! A good citizen: pauses are kept whatever happens to the process, and a store that does not answer is left alone.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use nix::sys::signal::Signal;
use reqwest::Method;
use salla_reconciler::simulator::{Fault, Limit};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    Engine, Site,
    kind::Kind,
    site::{everything, shop, totals},
    until,
};

on_every_database!(
    a_429,
    a_backoff_survives_a_restart,
    an_unannounced_limit_survives_a_deploy,
    an_operator_ends_a_backoff,
    a_retry_after_that_holds_an_instant,
    a_429_without_retry_after_backs_off,
    an_unavailable_merchant_opens_its_circuit,
    an_unavailable_merchant_delays_no_other,
    a_thousand_stores_while_salla_is_down,
    a_cancelled_run_is_not_continued,
    a_broken_token_answer_affects_one_merchant,
    a_backoff_applies_to_every_resource,
    every_resource_waits_for_an_unavailable_merchant,
    a_limit_applies_to_every_resource,
);

/// Everything that waits for a pause is due now.
async fn the_pause_is_over(site: &Site) {
    site.database.execute("DELETE FROM rate_limit_backoffs", []).await;
    // One such answer also closes the requests that Salla counts by address, for all merchants.
    site.database.execute("DELETE FROM ip_rate_limit", []).await;
    let long_ago = Utc::now() - TimeDelta::hours(2);
    site.database.execute("UPDATE runs SET scheduled_at = $1 WHERE status = 'queued'", [long_ago.into()]).await;
}

/// Failure modes, "Retries and rate limits".
async fn a_429(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 5), shop(1002, 0, 1)]).await;
    site.set("RECONCILE__PAGE_SIZE", "1");
    let nothing = || Fault::Hang(Duration::ZERO);
    // A short one is waited for, a long one is not.
    site.salla.world().script(1001, [nothing(), Fault::too_many("2"), nothing(), Fault::too_many("3600")]);
    let mut daemon = site.serve().await;
    let began = Instant::now();
    let (_, first) = daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    let failed = daemon.await_run("merchant_id=1001", |run| run["status"] == "failed").await;
    assert!(began.elapsed() > Duration::from_millis(1900), "{:?}", began.elapsed());
    assert_eq!(failed["error"]["kind"], "rate_limited", "{failed}");
    assert!(failed["error"]["message"].as_str().unwrap().contains("1h"), "{failed}");
    assert_eq!(failed["run_id"], first["run_id"]);
    let asked = site.salla.world().requests_for(1001);
    let read = totals(&failed)[0];
    assert!(read > 0, "{failed}");

    // The rest waits in the queue. Meanwhile no request is sent for the merchant: not by hand, not after a crash.
    let waits = daemon.await_run("merchant_id=1001&status=queued", |_| true).await;
    assert_eq!(waits["trigger"], "http");
    assert_eq!(daemon.post("/runs", r#"{"merchant_id":1001}"#).await.0, 409);
    daemon.signal(Signal::SIGKILL);
    daemon.wait().await;
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1002}"#).await;
    daemon.await_run("merchant_id=1002", |run| run["status"] == "succeeded").await;
    assert_eq!(site.salla.world().requests_for(1001), asked);

    // Then it goes on at the page where it stopped, and counts only what it read itself.
    the_pause_is_over(&site).await;
    let rest = daemon.await_run("merchant_id=1001&status=succeeded", |_| true).await;
    assert_eq!(rest["run_id"], waits["run_id"]);
    assert_eq!(rest["window"], failed["window"]);
    assert_eq!(totals(&rest)[0] + read, 5, "{rest}");
    site.assert_equal(1001).await;
    assert_eq!(site.database.number("SELECT count(*) FROM run_seen_ids").await, 0);
}

async fn a_backoff_applies_to_every_resource(engine: Engine) {
    of_every_kind!(a_pause_is_kept(engine));
}

/// A short one is waited for; a long one ends the run, and later runs obey it until it is over.
async fn a_pause_is_kept<K: Kind>(engine: Engine) {
    let mut site = Site::new(engine, [everything(1001, 9, 9)]).await;
    site.set("RECONCILE__RESOURCES", K::RESOURCE.as_str());
    site.set("RECONCILE__PAGE_SIZE", "4");
    let mut daemon = site.serve().await;
    let (began, asked) = (Instant::now(), r#"{"merchant_id":1001,"full":true}"#);
    site.salla.world().script(1001, [Fault::too_many("2")]);
    daemon.post("/runs", asked).await;
    let run = daemon.await_run("status=succeeded", |_| true).await;
    assert_eq!(totals(&run), [9, 9, 0, 0, 0, 0], "{run}");
    assert!(began.elapsed() > Duration::from_millis(1900), "{}: {:?}", K::RESOURCE, began.elapsed());

    site.salla.world().script(1001, [Fault::too_many("3600")]);
    daemon.post("/runs", asked).await;
    let failed = daemon.await_run("status=failed", |_| true).await;
    assert_eq!(failed["error"]["kind"], "rate_limited", "{failed}");
    let waits = daemon.await_run("status=queued", |_| true).await;
    let sent = site.salla.world().requests_for(1001);
    daemon.signal(Signal::SIGKILL);
    daemon.wait().await;
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((&run["error"]["kind"], &run["requests"]), (&json!("rate_limited"), &json!(0)), "{run}");
    let daemon = site.serve().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(site.salla.world().requests_for(1001), sent, "{}", K::RESOURCE);
    the_pause_is_over(&site).await;
    let ended = daemon.await_run("status=succeeded", |run| run["run_id"] == waits["run_id"]).await;
    assert_eq!(totals(&ended), [9, 0, 0, 9, 0, 0], "{ended}");
    site.assert_equal_of::<K>(1001).await;
}

async fn every_resource_waits_for_an_unavailable_merchant(engine: Engine) {
    of_every_kind!(waits_for_a_store_that_does_not_answer(engine));
}

/// Three attempts, a probe now and then, and the same run ends well when it answers again.
async fn waits_for_a_store_that_does_not_answer<K: Kind>(engine: Engine) {
    let mut site = Site::new(engine, [everything(1001, 2, 2), everything(1002, 2, 2)]).await;
    site.set("RECONCILE__RESOURCES", K::RESOURCE.as_str());
    site.salla.world().always.insert(1001, Fault::status(503));
    let daemon = site.serve().await;
    for merchant in [1001, 1002] {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{merchant},"full":true}}"#)).await;
    }
    let waits = |line: &Value| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("run released for a backoff; will resume from its cursor"))
    };
    daemon.await_line(waits).await;
    daemon.await_run("merchant_id=1002", |run| run["status"] == "succeeded").await;
    let seen = site.salla.world().requests_for(1001);
    assert!((3..=6).contains(&seen), "{}: {seen}", K::RESOURCE);
    site.salla.world().always.clear();
    let run = daemon.await_run("merchant_id=1001", |run| run["status"] == "succeeded").await;
    assert_eq!(totals(&run), [2, 2, 0, 0, 0, 0], "{run}");
    assert_eq!(site.database.number("SELECT attempt FROM runs WHERE merchant_id = 1001").await, 1);
    site.assert_equal_of::<K>(1001).await;
}

async fn a_limit_applies_to_every_resource(engine: Engine) {
    of_every_kind!(a_limit_is_kept(engine));
}

/// Whether it takes one run of many requests, or many runs of one.
async fn a_limit_is_kept<K: Kind>(engine: Engine) {
    const LIMIT: usize = 30;
    let mut site = Site::new(engine, [everything(1001, 60, 60)]).await;
    site.salla.world().limit = Some(Limit::a_minute(30));
    site.set("RECONCILE__RESOURCES", K::RESOURCE.as_str());
    site.set("RECONCILE__PAGE_SIZE", "1");
    let daemon = site.serve().await;
    let began = Instant::now();
    let mut enough_since = None;
    while enough_since.is_none_or(|since: Instant| since.elapsed() < Duration::from_secs(2)) {
        assert!(began.elapsed() < Duration::from_secs(50), "{}: the limit is not used", K::RESOURCE);
        // Refused while the one before is under way.
        daemon.post("/runs", r#"{"merchant_id":1001,"full":true}"#).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        if site.salla.world().requests_for(1001) >= LIMIT * 8 / 10 {
            enough_since.get_or_insert_with(Instant::now);
        }
    }
    let world = site.salla.world();
    assert_eq!(world.violations, [""; 0], "{}", K::RESOURCE);
    assert!(world.requests_for(1001) <= LIMIT, "{}: {}", K::RESOURCE, world.requests_for(1001));
}

async fn a_backoff_survives_a_restart(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 2)]).await;
    site.salla.world().script(1001, [Fault::too_many("3600")]);
    assert_eq!(site.reconcile(1001, &[]).await["error"]["kind"], "rate_limited");
    let again = site.reconcile(1001, &[]).await;
    assert_eq!(again["error"]["kind"], "rate_limited", "{again}");
    assert_eq!(again["requests"], 0);
    assert_eq!(site.salla.world().requests_for(1001), 1);
    // In the foreground there may be no daemon that would take it up.
    assert_eq!(site.database.number("SELECT count(*) FROM runs WHERE status = 'queued'").await, 0);

    // Each run waits for one that is short enough.
    the_pause_is_over(&site).await;
    site.set("SALLA__MAX_ATTEMPTS", "1");
    site.salla.world().script(1001, [Fault::too_many("3")]);
    assert_eq!(site.reconcile(1001, &[]).await["error"]["kind"], "rate_limited");
    let began = Instant::now();
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    assert!(began.elapsed() > Duration::from_millis(1500), "{:?}", began.elapsed());
}

/// `merchants resume`, `POST /merchants/ID/resume`, an import and a PUT.
async fn an_operator_ends_a_backoff(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    let daemon = site.serve().await;
    for way in ["resume", "POST", "import", "PUT"] {
        site.salla.world().script(1001, [Fault::too_many("3600")]);
        assert_eq!(site.reconcile(1001, &[]).await["error"]["kind"], "rate_limited", "{way}");
        assert_eq!(site.reconcile(1001, &[]).await["requests"], 0, "{way}");
        match way {
            "resume" => drop(site.run(&["merchants", "resume", "1001"]).await.exits(0)),
            "POST" => assert_eq!(daemon.post("/merchants/1001/resume", "").await.0, 200),
            "import" => site.register(1001).await,
            _ => {
                let mut body: Value = serde_json::from_str(&site.salla.registration(1001).unwrap()).unwrap();
                body.as_object_mut().unwrap().remove("merchant_id");
                assert_eq!(daemon.call(Method::PUT, "/merchants/1001", Some(&body.to_string())).await.0, 200);
            }
        }
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["status"], "succeeded", "{way}: {run}");
    }
}

/// An instant in `Retry-After`, in any unit, is read as one or ignored: no store waits for more than an hour.
async fn a_retry_after_that_holds_an_instant(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 1)]).await;
    site.set("SALLA__MAX_ATTEMPTS", "1");
    let soon = Utc::now().timestamp() + 300;
    for (status, value) in [
        (429, soon.to_string()),
        (429, (soon * 1_000).to_string()),
        (429, (soon * 1_000_000).to_string()),
        (429, "253402300799".to_owned()),
        (429, "Fri, 31 Dec 9999 23:59:59 GMT".to_owned()),
        (429, "9999-12-31T23:59:59Z".to_owned()),
        (429, u64::MAX.to_string()),
        (503, "253402300799".to_owned()),
        (503, "Fri, 31 Dec 9999 23:59:59 GMT".to_owned()),
        (503, (soon * 1_000).to_string()),
    ] {
        let body = match Fault::too_many("1") {
            Fault::Answer { body, .. } => body,
            _ => String::new(),
        };
        site.salla
            .world()
            .script(1001, [Fault::Answer { status, headers: vec![("retry-after", value.clone())], body }]);
        site.reconcile(1001, &[]).await;
        let longest = Utc::now() + TimeDelta::minutes(61);
        let column = if site.database.is_postgres() { "retry_at" } else { "julianday(retry_at)" };
        let longest = if site.database.is_postgres() {
            format!("'{}'", longest.to_rfc3339())
        } else {
            format!("julianday('{}')", longest.format("%Y-%m-%dT%H:%M:%SZ"))
        };
        let far =
            site.database.number(&format!("SELECT count(*) FROM rate_limit_backoffs WHERE {column} > {longest}")).await;
        assert_eq!(far, 0, "{status} {value}");
        site.run(&["merchants", "resume", "1001"]).await.exits(0);
        assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded", "{status} {value}");
    }
}

async fn a_429_without_retry_after_backs_off(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 2)]).await;
    site.set("SALLA__MAX_ATTEMPTS", "1");
    let silent = match Fault::too_many("") {
        Fault::Answer { status, body, .. } => Fault::Answer { status, headers: Vec::new(), body },
        other => other,
    };
    site.salla.world().script(1001, [silent]);
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["status"] == "failed" && run["error"]["kind"] == "rate_limited").await;
    daemon.await_run("status=queued", |_| true).await;
    the_pause_is_over(&site).await;
    daemon.await_run("", |run| run["status"] == "succeeded").await;
}

async fn an_unavailable_merchant_opens_its_circuit(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 2), shop(1002, 0, 2), shop(1003, 0, 2)]).await;
    site.set("RECONCILE__CONCURRENCY", "1");
    site.salla.world().always.insert(1001, Fault::status(503));
    let daemon = site.serve().await;
    for merchant in [1001, 1002, 1003] {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{merchant}}}"#)).await;
    }
    daemon
        .await_line(|line| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.contains("run released for a backoff; will resume from its cursor"))
        })
        .await;
    // It makes room for the others, and costs no attempt.
    for merchant in [1002, 1003] {
        daemon.await_run(&format!("merchant_id={merchant}"), |run| run["status"] == "succeeded").await;
    }
    let metrics = daemon.get("/metrics").await.1;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("salla_reconciler_merchant_circuits_open 1"), "{metrics}");
    assert!(metrics.contains(r#"salla_circuit_state{state="closed"} 1"#), "{metrics}");
    assert_eq!(daemon.get("/readyz").await.0, 200);
    // Three attempts, and then a probe after 5 s, 10 s, ...
    let seen = site.salla.world().requests_for(1001);
    assert!((3..=5).contains(&seen), "{seen}");
    site.salla.world().always.clear();
    let run = daemon.await_run("merchant_id=1001", |run| run["status"] == "succeeded").await;
    assert_eq!(totals(&run), [2, 2, 0, 0, 0, 0]);
    assert_eq!(site.database.number("SELECT attempt FROM runs WHERE merchant_id = 1001").await, 1);
    assert!(daemon.get("/metrics").await.1.as_str().unwrap().contains("merchant_circuits_open 0"));
}

/// With as many of them as there are places for runs.
async fn an_unavailable_merchant_delays_no_other(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 2), shop(1002, 0, 2), shop(1003, 0, 2)]).await;
    site.set("RECONCILE__CONCURRENCY", "2");
    site.salla.world().always.insert(1001, Fault::ok("text/html", "<html>under maintenance</html>"));
    site.salla.world().always.insert(1002, Fault::Truncated);
    let mut daemon = site.serve().await;
    for merchant in [1001, 1002] {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{merchant}}}"#)).await;
    }
    for merchant in [1001, 1002] {
        let away = |line: &serde_json::Value| {
            line["merchant.id"] == merchant && line["message"] == "Salla does not answer for the merchant; circuit open"
        };
        daemon.await_line(away).await;
    }
    daemon.post("/runs", r#"{"merchant_id":1003}"#).await;
    daemon.await_run("merchant_id=1003", |run| run["status"] == "succeeded").await;
    // A person need not wait for it.
    let waits = daemon.await_run("merchant_id=1001&status=queued", |_| true).await;
    assert_eq!(daemon.post(&format!("/runs/{}/cancel", waits["run_id"].as_str().unwrap()), "").await.0, 202);
    daemon.await_run("merchant_id=1001&status=cancelled", |_| true).await;
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().await, Some(0));
    // The foreground does not wait, and says why.
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["error"]["kind"], "salla_invalid_response", "{run}");
    assert!(run["error"]["message"].as_str().unwrap().contains("text/html"), "{run}");
}

/// A firing that was missed an hour ago is made up for, by a thousand runs.
async fn a_thousand_stores_while_salla_is_down(engine: Engine) {
    const STORES: i64 = 1000;
    let mut site = Site::unregistered(engine, (1..=STORES).map(|merchant| shop(merchant, 0, 1))).await;
    let lines: Vec<String> = (1..=STORES).map(|merchant| site.salla.registration(merchant).unwrap()).collect();
    site.import(&lines.join("\n")).await.exits(0);
    for merchant in 1..=STORES {
        site.salla.world().always.insert(merchant, Fault::status(503));
    }
    let hour = (Utc::now() - TimeDelta::hours(1)).format("%H").to_string();
    site.set("SCHEDULE__CRON", &format!("0 0 {hour} * * *"));
    site.set("SCHEDULE__TIMEZONE", "UTC");
    let values = [(Utc::now() - TimeDelta::days(2)).into(), format!("0 0 {hour} * * * UTC").into()];
    site.database
        .execute("INSERT INTO sweeps (scheduled_for, cron, outcome) VALUES ($1, $2, 'schedule')", values)
        .await;
    let mut daemon = site.serve().await;
    daemon.await_line(|line| line["circuit.state"] == "open").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = site.salla.world().seen.len();
    // Probes after 5 s and 10 s, one at a time.
    tokio::time::sleep(Duration::from_secs(17)).await;
    let probes = site.salla.world().seen.len() - before;
    assert!((1..=3).contains(&probes), "{probes} requests in 17 s");
    assert!(before <= 40, "{before} requests before the circuit opened");
    site.salla.world().always.clear();
    let done = "SELECT count(*) FROM runs WHERE status = 'succeeded' AND attempt <= 2";
    for _ in 0..1500 {
        if site.database.number(done).await == STORES {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(site.database.number(done).await, STORES);
    assert_eq!(site.database.number("SELECT count(*) FROM runs").await, STORES);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().await, Some(0));
}

/// Whatever it waits for: an answer, a store, a pause.
async fn a_cancelled_run_is_not_continued(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 2), shop(1002, 0, 2)]).await;
    site.set("RECONCILE__LEASE", "4s");
    site.set("SALLA__REQUEST_TIMEOUT", "60s");
    site.salla.world().script(1001, [Fault::Hang(Duration::from_secs(50))]);
    site.salla.world().always.insert(1002, Fault::too_many("3600"));
    let daemon = site.serve().await;
    let (_, run) = daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("merchant_id=1001&status=running", |_| true).await;
    let began = Instant::now();
    assert_eq!(daemon.post(&format!("/runs/{}/cancel", run["run_id"].as_str().unwrap()), "").await.0, 202);
    daemon.await_run("merchant_id=1001&status=cancelled", |_| true).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    daemon.post("/runs", r#"{"merchant_id":1002}"#).await;
    daemon.await_run("merchant_id=1002&status=failed", |_| true).await;
    let waits = daemon.await_run("merchant_id=1002&status=queued", |_| true).await;
    assert_eq!(daemon.post(&format!("/runs/{}/cancel", waits["run_id"].as_str().unwrap()), "").await.0, 202);
    daemon.await_run("merchant_id=1002&status=cancelled", |_| true).await;
    assert_eq!(site.database.number("SELECT count(*) FROM runs WHERE status IN ('queued', 'running')").await, 0);
}

/// Each use of a refresh token whose answer is lost costs an installation, so it is not tried on all of them.
async fn a_broken_token_answer_affects_one_merchant(engine: Engine) {
    let site = Site::new(engine, (1001..1006).map(|merchant| shop(merchant, 0, 1))).await;
    crate::tokens::expires_soon(&site).await;
    site.salla.world().token_faults.extend((0..20).map(|_| Fault::status(502)));
    let daemon = site.serve().await;
    for merchant in 1001..1006 {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{merchant}}}"#)).await;
        daemon.await_run(&format!("merchant_id={merchant}&status=succeeded"), |_| true).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(site.database.number("SELECT count(*) FROM merchants WHERE state <> 'active'").await, 1);
    assert_eq!(site.salla.world().token_faults.len(), 19);
}

/// A server that does not say what is left of a limit says nothing of what another process has spent, either.
async fn an_unannounced_limit_survives_a_deploy(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 90)]).await;
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.set("SALLA__REQUESTS_PER_MINUTE", "40");
    site.salla.world().always.insert(1001, Fault::Hang(Duration::from_millis(50)));
    let mut daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    until("some of the limit is spent", async || site.salla.world().requests_for(1001) >= 25).await;
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().await, Some(0));
    let daemon = site.serve().await;
    until("the run goes on", async || site.salla.world().requests_for(1001) >= 36).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // One that was on its way may have been counted by neither.
    assert!(site.salla.world().requests_for(1001) <= 42, "{}", site.salla.world().requests_for(1001));
    drop(daemon);
}
