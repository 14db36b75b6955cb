//! What a hostile or broken world sends. Each case ends in a clear error or a correct result, and the
//! other stores are not affected.

use std::time::Duration;

use chrono::Utc;
use salla_reconciler::simulator::{Fault, Limit};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    Engine, Site,
    site::{Output, shop, totals},
};

on_every_database!(
    a_page_with_too_many_rows_is_refused,
    transient_errors_are_retried,
    lasting_errors_fail_the_run_with_a_reason,
    a_failing_merchant_does_not_affect_others,
    an_endless_body_fails_the_request,
    retry_after_in_seconds_and_as_a_date,
    a_long_retry_after_ends_the_run,
    max_attempts_is_kept,
    rows_that_cannot_be_transformed,
    a_row_that_the_database_refuses,
    amounts_are_kept_exactly,
    ids_above_2_to_the_53,
    a_repeated_page_ends_the_run,
    limits_that_are_announced_are_kept,
    an_unavailable_database_fails_the_run,
);

/// Runs merchant 1001 after these faults, and returns its object and all that was written.
async fn after(site: &Site, faults: impl IntoIterator<Item = Fault>) -> (Value, Output) {
    site.salla.world().script(1001, faults);
    let output = site.run(&["run", "--json", "--merchant", "1001"]).await;
    (output.object(), output)
}

async fn transient_errors_are_retried(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 4)]).await;
    let faults: [(&str, Vec<Fault>); 6] = [
        ("500 twice", vec![Fault::status(500), Fault::status(503)]),
        ("truncated JSON", vec![Fault::Truncated]),
        ("cut off", vec![Fault::CutOff, Fault::CutOff]),
        ("HTML", vec![Fault::ok("text/html", "<html>wartung</html>")]),
        ("plain text", vec![Fault::ok("text/plain", "{}")]),
        ("a hanging server", vec![Fault::Hang(Duration::from_secs(20))]),
    ];
    for (name, faults) in faults {
        let (run, output) = after(&site, faults).await;
        assert_eq!(run["status"], "succeeded", "{name}: {output:?}");
        assert_eq!(totals(&run)[0], 4, "{name}");
    }
}

async fn lasting_errors_fail_the_run_with_a_reason(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 4)]).await;
    let refused = r#"{"status":200,"success":false,"error":{"code":"error","message":"لا يمكن"}}"#;
    let scope = r#"{"status":401,"success":false,"error":{"code":"Unauthorized","message":"The access token should have access to one of those scopes: orders.read"}}"#;
    let unauthorized =
        Fault::Answer { status: 401, headers: vec![("content-type", "application/json".into())], body: scope.into() };
    for (fault, kind, words) in [
        (Fault::status(500), "salla_unavailable", "500"),
        (Fault::Truncated, "salla_invalid_response", "not Salla's JSON"),
        (Fault::CutOff, "salla_unavailable", "the connection broke"),
        (Fault::ok("text/html", "<html>"), "salla_invalid_response", "text/html"),
        (Fault::ok("application/json", refused), "salla_request_rejected", "لا يمكن"),
        (
            Fault::ok("application/json", r#"{"data":[],"error":{"code":"error","message":"e"}}"#),
            "salla_request_rejected",
            "error: e",
        ),
        (Fault::ok("application/json", r#"{"data":{"id":1}}"#), "salla_invalid_response", "`data` is not a list"),
        (
            Fault::ok("application/json", r#"{"status":401,"success":true,"data":[]}"#),
            "salla_request_rejected",
            "the body's status is 401",
        ),
        (Fault::ok("application/json", r#"{"status":"401","data":[]}"#), "salla_request_rejected", "401"),
        (
            Fault::ok("application/json", r#"{"status":401.0,"success":true,"data":[]}"#),
            "salla_request_rejected",
            "401",
        ),
        (
            Fault::ok(
                "application/json",
                r#"{"status":200,"success":true,"data":[],"error":{"code":"error","message":"e"}}"#,
            ),
            "salla_request_rejected",
            "error: e",
        ),
        (Fault::ok("application/json", r#"{"status":500,"success":true,"data":[]}"#), "salla_unavailable", "500"),
        (Fault::ok("application/json", "{}"), "salla_invalid_response", "`data` is missing"),
        (Fault::ok("application/json", "[]"), "salla_invalid_response", "not Salla's JSON"),
        (Fault::status(404), "salla_request_rejected", "404"),
        (Fault::status(301), "salla_invalid_response", "redirects are not followed"),
        (unauthorized, "missing_scope", "orders.read"),
    ] {
        site.salla.world().always.insert(1001, fault);
        let (run, output) = after(&site, []).await;
        assert_eq!(output.code, 1);
        assert_eq!(run["status"], "failed");
        assert_eq!(run["error"]["kind"], kind, "{run}");
        assert!(run["error"]["message"].as_str().unwrap().contains(words), "{run}");
        assert!(site.database.rows("SELECT * FROM watermarks").await.is_empty(), "a failed run moved the watermark");
    }
    assert_eq!(site.salla.world().refreshes, 0);
    site.salla.world().always.clear();
    assert_eq!(totals(&after(&site, []).await.0), [4, 4, 0, 0, 0, 0]);
}

async fn a_failing_merchant_does_not_affect_others(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 4), shop(1002, 0, 5), shop(1003, 0, 6)]).await;
    site.salla.world().always.insert(1002, Fault::status(500));
    let output = site.run(&["run", "--json"]).await.exits(1);
    let status = |id| output.objects().into_iter().find(|run| run["merchant_id"] == id).unwrap()["status"].clone();
    assert_eq!([status(1001), status(1002), status(1003)], ["succeeded", "failed", "succeeded"]);
    assert_eq!(site.salla.world().requests_for(1002), 3);
    site.assert_equal(1001).await;
    site.assert_equal(1003).await;
}

async fn an_endless_body_fails_the_request(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 1)]).await;
    site.salla.world().always.insert(1001, Fault::Endless);
    site.set("SALLA__REQUEST_TIMEOUT", "20s");
    let began = Instant::now();
    let (run, _) = after(&site, []).await;
    assert_eq!(run["error"]["kind"], "salla_invalid_response", "{run}");
    assert!(run["error"]["message"].as_str().unwrap().contains("larger than 8 MiB"), "{run}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

async fn retry_after_in_seconds_and_as_a_date(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    let began = Instant::now();
    let (run, _) = after(&site, [Fault::too_many("2")]).await;
    assert_eq!(run["status"], "succeeded");
    assert!(began.elapsed() >= Duration::from_secs(2));
    let began = Instant::now();
    let date = httpdate::fmt_http_date((Utc::now() + chrono::TimeDelta::seconds(3)).into());
    let (run, _) = after(&site, [Fault::too_many(&date)]).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    assert!(began.elapsed() >= Duration::from_millis(1900), "{:?}", began.elapsed());
}

async fn a_long_retry_after_ends_the_run(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    let (run, output) = after(&site, [Fault::too_many("3600")]).await;
    assert_eq!(output.code, 1);
    assert_eq!(run["error"]["kind"], "rate_limited");
    assert!(run["error"]["message"].as_str().unwrap().contains("1h"), "{run}");
    assert_eq!(site.salla.world().requests_for(1001), 1);
}

async fn max_attempts_is_kept(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    let (run, _) =
        after(&site, [Fault::too_many("1"), Fault::too_many("1"), Fault::status(500), Fault::status(500)]).await;
    assert_eq!(run["status"], "failed", "{run}");
    assert_eq!(run["requests"], 3);
    assert_eq!(site.salla.world().requests_for(1001), 3);
    site.salla.world().faults.clear();
    let unavailable = |retry_after: &str| match Fault::too_many(retry_after) {
        Fault::Answer { headers, body, .. } => Fault::Answer { status: 503, headers, body },
        other => other,
    };
    let (run, _) = after(&site, [unavailable("1")]).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    let began = Instant::now();
    let (run, _) = after(&site, [unavailable("3600")]).await;
    assert_eq!(run["error"]["kind"], "rate_limited", "{run}");
    assert_eq!(run["requests"], 1);
    assert!(began.elapsed() < Duration::from_secs(5));
}

async fn rows_that_cannot_be_transformed(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    let good = r#""updated_at":"2026-11-24 02:00:00""#;
    let rows = [
        (format!(r#"{{{good},"total":{{"amount":1,"currency":"SAR"}}}}"#), json!(null), "id"),
        (format!(r#"{{"id":"x",{good}}}"#), json!(null), "id"),
        (r#"{"id":5,"updated_at":"2026-99-99"}"#.to_owned(), json!(5), "updated_at"),
        (format!(r#"{{"id":6,{good},"date":{{"date":"0000-00-00 00:00:00"}}}}"#), json!(6), "date"),
        (format!(r#"{{"id":7,{good},"total":{{"amount":"ten"}}}}"#), json!(7), "total.amount"),
        (format!(r#"{{"id":8,{good},"total":{{"amount":1e500}}}}"#), json!(8), "total.amount"),
        ("[1,2]".to_owned(), json!(null), ""),
        (r#"[9,77,"new","SAR",9.99,null,null,"2026-11-24 02:00:00",false]"#.to_owned(), json!(null), ""),
        ("null".to_owned(), json!(null), ""),
        (r#"{"id":10,"updated_at":"1448-06-19 10:00:00"}"#.to_owned(), json!(10), "updated_at"),
        (r#"{"id":11,"updated_at":"2569-11-29 10:00:00"}"#.to_owned(), json!(11), "updated_at"),
        (format!(r#"{{"id":12,{good},"date":"1448-06-19"}}"#), json!(12), "date"),
    ];
    site.salla.world().shop(1001).raw_rows.extend(rows.iter().map(|row| row.0.clone()));
    let (run, output) = after(&site, []).await;
    assert_eq!(output.code, 3);
    assert_eq!(totals(&run), [15, 3, 0, 0, 12, 0]);
    assert_eq!(run["status"], "partial");
    let lines: Vec<Value> = output.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for (_, id, path) in &rows {
        let fits = |line: &&Value| {
            line["message"].as_str().is_some_and(|text| text.contains("skipped"))
                && line["path"] == *path
                && line.get("salla.id").unwrap_or(&Value::Null) == id
        };
        assert!(lines.iter().any(|line| fits(&line)), "{id} {path}: {}", output.stderr);
    }
}

/// PostgreSQL keeps no U+0000; a constraint of the platform's refuses on both.
async fn a_row_that_the_database_refuses(engine: Engine) {
    let site = Site::unregistered(engine, [shop(1001, 0, 3)]).await;
    site.run(&["migrate", "up"]).await.exits(0);
    site.register(1001).await;
    let refused = if site.database.is_postgres() {
        r#"{"id":5,"updated_at":"2026-11-24 02:00:00","note":"a\u0000b"}"#
    } else {
        site.database.execute("CREATE TRIGGER no_five BEFORE INSERT ON orders WHEN NEW.salla_order_id = 5 BEGIN SELECT RAISE(ABORT, 'no five'); END", []).await;
        r#"{"id":5,"updated_at":"2026-11-24 02:00:00"}"#
    };
    site.salla.world().shop(1001).raw_rows.push(refused.to_owned());
    let since = ["--since", "2026-11-20T00:00:00Z"];
    let output = site.run(&[&["run", "--json"][..], &since].concat()).await.exits(3);
    assert_eq!(totals(&output.object()), [4, 3, 0, 0, 0, 1]);
    let line = output.stderr.lines().find(|line| line.contains("order failed")).expect("no error is logged");
    assert!(line.contains(r#""salla.id":5"#) && line.contains("ERROR"), "{line}");
    assert_eq!(site.database.number("SELECT count(*) FROM orders").await, 3);
    assert_eq!(
        site.database.number("SELECT count(*) FROM discrepancies WHERE kind = 'failed' AND salla_id = 5").await,
        1
    );
    // The neighbours are not written again, and the poisoned row is tried again.
    assert_eq!(totals(&site.reconcile(1001, &since).await), [4, 0, 0, 3, 0, 1]);
}

async fn amounts_are_kept_exactly(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 0)]).await;
    for (id, amount) in [(1, r#""0.10""#), (2, "1e-2"), (3, "12345678901234.56"), (4, "0.1"), (5, "-3")] {
        site.salla.world().shop(1001).raw_rows.push(format!(
            r#"{{"id":{id},"updated_at":"2026-11-24 02:00:00","total":{{"amount":{amount},"currency":"SAR"}}}}"#
        ));
    }
    assert_eq!(totals(&site.reconcile(1001, &["--full"]).await), [5, 5, 0, 0, 0, 0]);
    let sql = if site.database.is_postgres() {
        "SELECT string_agg(total_amount::text, ' ' ORDER BY salla_order_id) FROM orders"
    } else {
        "SELECT group_concat(total_amount, ' ') FROM (SELECT total_amount FROM orders ORDER BY salla_order_id)"
    };
    assert_eq!(site.database.text(sql).await, "0.10 0.01 12345678901234.56 0.1 -3");
    assert_eq!(totals(&site.reconcile(1001, &["--full"]).await), [5, 0, 0, 5, 0, 0]);
}

async fn ids_above_2_to_the_53(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 0)]).await;
    for id in ["9007199254740993", "\"9007199254740995\"", "9223372036854775807"] {
        site.salla.world().shop(1001).raw_rows.push(format!(r#"{{"id":{id},"updated_at":"2026-11-24 02:00:00"}}"#));
    }
    assert_eq!(totals(&site.reconcile(1001, &["--full"]).await), [3, 3, 0, 0, 0, 0]);
    for id in ["9007199254740993", "9007199254740995", "9223372036854775807"] {
        assert_eq!(site.database.number(&format!("SELECT count(*) FROM orders WHERE salla_order_id = {id}")).await, 1);
    }
}

async fn a_repeated_page_ends_the_run(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 130)]).await;
    site.salla.world().always.insert(1001, Fault::FirstPage);
    let (run, output) = after(&site, []).await;
    assert_eq!(output.code, 1);
    assert_eq!(run["error"]["kind"], "pagination_loop", "{run}");
    assert_eq!(run["requests"], 3);
    assert!(site.database.rows("SELECT * FROM watermarks").await.is_empty());
    // A single repeated page may come from a row that moved. `total` shows that this hides a row, and the run looks for
    // it.
    site.salla.world().always.clear();
    let (run, _) = after(&site, [Fault::Hang(Duration::ZERO), Fault::PreviousPage]).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    site.assert_equal(1001).await;
}

/// The simulator counts every request against the store's limit, and judges.
async fn limits_that_are_announced_are_kept(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 16)]).await;
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.salla.world().limit = Some(Limit::a_minute(10));
    let mut daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["totals"]["fetched"].as_u64() >= Some(9)).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(site.salla.world().requests_for(1001), 10);
    assert!(site.salla.world().violations.is_empty(), "{:?}", site.salla.world().violations);
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(daemon.wait().await, Some(0));

    // A limit above the setting is also believed.
    site.set("SALLA__REQUESTS_PER_MINUTE", "2");
    site.salla.world().limit = Some(Limit::a_minute(100));
    let daemon = site.serve().await;
    // The process before has used up the minute, and the next one knows.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(site.salla.world().requests_for(1001), 10);
    site.database.execute("DELETE FROM rate_limit_backoffs", []).await;
    daemon.await_run("", |run| run["status"] == "succeeded").await;
    assert!(site.salla.world().violations.is_empty(), "{:?}", site.salla.world().violations);
}

/// A table that is gone, as after a restore: every write fails for good.
async fn an_unavailable_database_fails_the_run(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    site.database.execute("ALTER TABLE orders RENAME TO orders_away", []).await;
    let (run, output) = after(&site, []).await;
    assert_eq!(output.code, 1);
    assert_eq!(run["error"]["kind"], "database", "{run}");
    site.database.execute("ALTER TABLE orders_away RENAME TO orders", []).await;
    assert_eq!(totals(&after(&site, []).await.0), [2, 2, 0, 0, 0, 0]);
}

/// Small rows, and so many of them that they would take all the memory there is.
async fn a_page_with_too_many_rows_is_refused(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    let rows = vec!["{}"; 300_000].join(",");
    let answer = Fault::ok("application/json", &format!(r#"{{"success":true,"data":[{rows}]}}"#));
    site.salla.world().always.insert(1001, answer);
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(
        (run["status"].as_str(), run["error"]["kind"].as_str()),
        (Some("failed"), Some("salla_invalid_response")),
        "{run}"
    );
    assert!(run["error"]["message"].as_str().unwrap().contains("10001 or more rows on a page of at most 60"), "{run}");
}
