//! What no list shows: deleted orders, orders that a list leaves out, and what an earlier run could not settle.

use chrono::{TimeDelta, Utc};
use salla_reconciler::simulator::Fault;
use serde_json::{Value, json};

use crate::support::{
    Engine, Site,
    site::{shop, totals},
};

on_every_database!(
    a_deleted_order_is_marked_and_never_removed,
    a_missing_record_is_fetched_before_it_is_marked,
    mass_deletion_blocked,
    failed_records_are_retried_until_they_succeed,
    refused_records_are_retried,
    a_dry_run_marks_nothing,
    failed_records_survive_runs_over_other_windows,
    failed_details_are_retried,
    many_failing_details_fail_the_run,
    a_restored_record_is_not_marked,
    a_listed_record_is_restored,
    a_clock_that_is_ahead_and_a_webhook_during_the_run,
    a_refused_detail_fails_alone,
    a_row_without_a_stamp_among_others,
    a_page_that_lists_an_order_without_its_stamp_and_with_it,
    failed_records_above_the_retry_limit_wait,
);

async fn deleted(site: &Site) -> i64 {
    site.database.number("SELECT count(*) FROM orders WHERE deleted_at IS NOT NULL").await
}

async fn discrepancies(site: &Site, run: &Value) -> Vec<Value> {
    let daemon = site.serve().await;
    let (_, body) = daemon.get(&format!("/runs/{}/discrepancies", run["run_id"].as_str().unwrap())).await;
    body["discrepancies"].as_array().unwrap().clone()
}

async fn a_deleted_order_is_marked_and_never_removed(engine: Engine) {
    for documented in [false, true] {
        let site = Site::new(engine, [shop(1001, 0, 20)]).await;
        site.salla.world().documented = documented;
        site.reconcile(1001, &[]).await;
        let gone = site.salla.world().shop(1001).orders[4].clone();
        site.salla.world().shop(1001).delete(gone.id);
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["status"], "succeeded", "{run}");
        assert_eq!(totals(&run), [19, 0, 0, 19, 0, 0]);
        assert_eq!(site.database.number("SELECT count(*) FROM orders").await, 20);
        assert_eq!(deleted(&site).await, 1);
        let found = discrepancies(&site, &run).await;
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0]["salla_id"], &found[0]["fields"]), (&json!(gone.id), &json!(["deleted_at"])));
        site.assert_equal(1001).await;
        // Once marked, it is not asked for again.
        let asked = |site: &Site| site.salla.world().seen.iter().filter(|seen| seen.id.is_some()).count();
        let before = asked(&site);
        assert_eq!(totals(&site.reconcile(1001, &[]).await), [19, 0, 0, 19, 0, 0]);
        assert_eq!(asked(&site), before);
        // And comes back when Salla lists it again.
        site.salla.world().shop(1001).orders.push(gone);
        assert_eq!(totals(&site.reconcile(1001, &[]).await), [20, 0, 1, 19, 0, 0]);
        assert_eq!(deleted(&site).await, 0);
        site.assert_equal(1001).await;
    }
}

async fn a_missing_record_is_fetched_before_it_is_marked(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 12)]).await;
    site.reconcile(1001, &[]).await;
    // Left out of the list, and there all the same.
    let id = site.salla.world().shop(1001).orders[9].id;
    let hidden = site.salla.world().shop(1001).orders[9].clone();
    site.salla.world().shop(1001).orders[9].draft = true;
    let output = site.run(&["run", "--json"]).await.exits(0);
    assert_eq!(totals(&output.object()), [12, 0, 1, 11, 0, 0], "{}", output.stderr);
    assert_eq!(deleted(&site).await, 0);
    site.salla.world().shop(1001).orders[9] = hidden;
    site.reconcile(1001, &[]).await;

    // A refusal, a proxy's 404, and a broken server are not Salla's word that it is gone.
    let html =
        Fault::Answer { status: 404, headers: vec![("content-type", "text/html".into())], body: "<html>".into() };
    let json = |status: u16, body: &str| Fault::Answer {
        status,
        headers: vec![("content-type", "application/json".into())],
        body: body.into(),
    };
    let gateways = [
        r#"{"timestamp":"2026-11-29T00:00:00Z","status":404,"error":"Not Found","path":"/v2/orders/1"}"#,
        r#"{"statusCode":404,"message":"Cannot GET /v2/orders/1","error":"Not Found"}"#,
        r#"{"error":{"code":404,"message":"Not Found","status":"NOT_FOUND"}}"#,
        r#"{"success":false,"errors":[{"code":7003,"message":"no route"}],"result":null}"#,
        r#"{"message":"no Route matched with those values"}"#,
        r#"{"success":false,"error":{"code":404,"message":"no route"}}"#,
        r#"{"status":404,"success":false,"error":{"code":"route_not_found","message":"m"}}"#,
    ];
    let gateways = gateways.into_iter().flat_map(|body| [json(404, body), json(410, body)]);
    let contradiction = json(200, r#"{"status":404,"success":false,"error":{"code":404,"message":"m"}}"#);
    for answer in [Fault::status(403), html, Fault::status(500), contradiction].into_iter().chain(gateways) {
        let order = site.salla.world().shop(1001).orders.iter().find(|order| order.id == id).cloned().unwrap();
        site.salla.world().shop(1001).delete(id);
        let right = Fault::Hang(std::time::Duration::ZERO);
        site.salla.world().script(1001, [right, answer.clone(), answer.clone(), answer]);
        let run = site.reconcile(1001, &[]).await;
        assert_eq!((run["status"].as_str(), totals(&run)), (Some("partial"), [12, 0, 0, 11, 1, 0]), "{run}");
        assert_eq!(deleted(&site).await, 0);
        site.salla.world().faults.clear();
        site.salla.world().shop(1001).orders.push(order);
    }
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    site.assert_equal(1001).await;
}

async fn mass_deletion_blocked(engine: Engine) {
    for documented in [false, true] {
        let mut site = Site::new(engine, [shop(1001, 0, 40)]).await;
        site.salla.world().documented = documented;
        site.reconcile(1001, &[]).await;
        let mark = site.database.text("SELECT CAST(watermark AS text) FROM watermarks").await;
        let half: Vec<i64> = site.salla.world().shop(1001).orders.iter().take(20).map(|order| order.id).collect();
        for id in half {
            site.salla.world().shop(1001).delete(id);
        }
        let before = site.salla.world().seen.len();
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["status"], "failed", "{run}");
        assert_eq!(run["error"]["kind"], "mass_deletion_blocked");
        assert_eq!(deleted(&site).await, 0);
        assert_eq!(site.database.text("SELECT CAST(watermark AS text) FROM watermarks").await, mark);
        // The absent records, and the list.
        assert!(site.salla.world().seen.len() - before <= 20 + 2, "it went on asking");
        site.set("RECONCILE__MAX_DELETION_RATIO", "0.5");
        assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
        assert_eq!(deleted(&site).await, 20);
        site.assert_equal(1001).await;
    }
    let site = Site::new(engine, [shop(1001, 0, 1)]).await;
    site.reconcile(1001, &[]).await;
    let only = site.salla.world().shop(1001).orders[0].id;
    site.salla.world().shop(1001).delete(only);
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    assert_eq!(deleted(&site).await, 1, "one alone is no crowd");
}

/// It is tried again when the window has left it behind, and shown each night.
async fn failed_records_are_retried_until_they_succeed(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    let row = |total: &str| {
        let at = (Utc::now() - TimeDelta::hours(2)).format("%Y-%m-%dT%H:%M:%SZ");
        format!(r#"{{"id":77,"updated_at":"{at}","total":{{"amount":{total},"currency":"SAR"}}}}"#)
    };
    site.salla.world().shop(1001).raw_rows.push(row("\"ten\""));
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(totals(&run), [4, 3, 0, 0, 1, 0]);
    // No list shows it any more: it lies before the window, or what is listed has changed.
    let poison = site.salla.world().shop(1001).raw_rows.pop().unwrap();
    for _ in 0..2 {
        let wrapped = format!(r#"{{"success":true,"data":{poison}}}"#);
        let right = Fault::Hang(std::time::Duration::ZERO);
        site.salla.world().script(1001, [right, Fault::ok("application/json", &wrapped)]);
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["status"], "partial", "{run}");
        assert_eq!(totals(&run), [4, 0, 0, 3, 1, 0]);
        let found = discrepancies(&site, &run).await;
        assert_eq!((&found[0]["salla_id"], &found[0]["fields"]), (&json!(77), &json!(["total.amount"])));
    }
    let wrapped = format!(r#"{{"success":true,"data":{}}}"#, row("\"10.50\""));
    let right = Fault::Hang(std::time::Duration::ZERO);
    site.salla.world().script(1001, [right, Fault::ok("application/json", &wrapped)]);
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((run["status"].as_str(), totals(&run)), (Some("succeeded"), [4, 1, 0, 3, 0, 0]));
    assert_eq!(site.database.number("SELECT count(*) FROM orders WHERE salla_order_id = 77").await, 1);
    // Well: not asked for again, and since no list shows it and its address says so, marked as gone.
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    assert_eq!(deleted(&site).await, 1);
}

async fn refused_records_are_retried(engine: Engine) {
    let site = Site::unregistered(engine, [shop(1001, 0, 3)]).await;
    site.run(&["migrate", "up"]).await.exits(0);
    site.register(1001).await;
    let id = site.salla.world().shop(1001).orders[1].id;
    let (refuse, relent) = if site.database.is_postgres() {
        (
            format!("ALTER TABLE orders ADD CONSTRAINT no_such_order CHECK (salla_order_id <> {id})"),
            "ALTER TABLE orders DROP CONSTRAINT no_such_order",
        )
    } else {
        let sql = "CREATE TRIGGER no_such_order BEFORE INSERT ON orders WHEN NEW.salla_order_id =";
        (format!("{sql} {id} BEGIN SELECT RAISE(ABORT, 'no such order'); END"), "DROP TRIGGER no_such_order")
    };
    site.database.execute(&refuse, []).await;
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(totals(&run), [3, 2, 0, 0, 0, 1]);
    let found = discrepancies(&site, &run).await;
    let failed = found.iter().find(|one| one["kind"] == "failed").unwrap();
    assert!(failed["reason"].as_str().unwrap().contains("no_such_order") || !site.database.is_postgres(), "{failed}");
    // The window moves on; the order does not.
    let later = (Utc::now() - TimeDelta::seconds(1)).to_rfc3339();
    let run = site.reconcile(1001, &["--since", &later]).await;
    assert_eq!((run["status"].as_str(), totals(&run)), (Some("partial"), [1, 0, 0, 0, 0, 1]));
    site.database.execute(relent, []).await;
    let run = site.reconcile(1001, &["--since", &later]).await;
    assert_eq!((run["status"].as_str(), totals(&run)), (Some("succeeded"), [1, 1, 0, 0, 0, 0]));
    site.assert_equal(1001).await;
    assert_eq!(totals(&site.reconcile(1001, &["--since", &later]).await), [0; 6]);
}

async fn a_dry_run_marks_nothing(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 9)]).await;
    site.reconcile(1001, &[]).await;
    let id = site.salla.world().shop(1001).orders[0].id;
    site.salla.world().shop(1001).delete(id);
    let run = site.reconcile(1001, &["--dry-run"]).await;
    assert_eq!(deleted(&site).await, 0);
    assert_eq!(discrepancies(&site, &run).await.len(), 1);
    site.reconcile(1001, &[]).await;
    assert_eq!(deleted(&site).await, 1);
}

/// A run that leaves it out, for its window ends before, says nothing about it.
async fn failed_records_survive_runs_over_other_windows(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    let at = (Utc::now() - TimeDelta::hours(2)).format("%Y-%m-%dT%H:%M:%SZ");
    site.salla
        .world()
        .shop(1001)
        .raw_rows
        .push(format!(r#"{{"id":77,"updated_at":"{at}","total":{{"amount":"ten"}}}}"#));
    assert_eq!(site.reconcile(1001, &[]).await["status"], "partial");
    let fixed = format!(r#"{{"id":77,"updated_at":"{at}","total":{{"amount":"10.50","currency":"SAR"}}}}"#);
    site.salla.world().shop(1001).raw_rows = vec![fixed];
    let (since, until) =
        ((Utc::now() - TimeDelta::days(9)).to_rfc3339(), (Utc::now() - TimeDelta::days(8)).to_rfc3339());
    let list = Fault::ok("application/json", r#"{"success":true,"data":[],"pagination":{"total":0,"totalPages":0}}"#);
    site.salla.world().script(1001, [list]);
    let run = site.reconcile(1001, &["--since", &since, "--until", &until]).await;
    // It is tried whatever the window is, and written.
    assert_eq!((run["status"].as_str(), totals(&run)), (Some("succeeded"), [1, 1, 0, 0, 0, 0]), "{run}");
    assert_eq!(site.database.number("SELECT count(*) FROM failed_records").await, 0);
}

/// The summary is as it was, and the last attempt to read the details failed.
async fn failed_details_are_retried(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.salla.world().documented = true;
    site.reconcile(1001, &[]).await;
    let bad = r#"{"success":true,"data":{"id":1,"updated_at":"never"}}"#;
    let right = Fault::Hang(std::time::Duration::ZERO);
    site.salla
        .world()
        .script(1001, [right.clone(), right.clone(), right.clone(), right, Fault::ok("application/json", bad)]);
    let run = site.reconcile(1001, &["--full"]).await;
    assert_eq!((run["status"].as_str(), totals(&run)), (Some("partial"), [3, 0, 0, 2, 1, 0]), "{run}");
    let failed = site.database.number("SELECT salla_id FROM failed_records").await;
    // It is asked for again the next night, though nothing seems to have changed.
    let before = site.salla.world().seen.len();
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((run["status"].as_str(), totals(&run)), (Some("succeeded"), [3, 0, 0, 3, 0, 0]), "{run}");
    let asked: Vec<_> = site.salla.world().seen[before..].iter().filter_map(|seen| seen.id).collect();
    assert_eq!(asked, [failed]);
}

async fn many_failing_details_fail_the_run(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 12)]).await;
    site.salla.world().documented = true;
    site.set("SALLA__MAX_ATTEMPTS", "1");
    let right = Fault::Hang(std::time::Duration::ZERO);
    site.salla
        .world()
        .script(1001, [right.clone(), right.clone(), Fault::status(500), right.clone(), Fault::status(422)]);
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((run["status"].as_str(), totals(&run)), (Some("partial"), [12, 10, 0, 0, 2, 0]), "{run}");
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((run["status"].as_str(), totals(&run)), (Some("succeeded"), [12, 2, 0, 10, 0, 0]), "{run}");
    let broken = std::iter::repeat_n(Fault::status(422), 12);
    site.salla.world().script(1001, [right.clone(), right].into_iter().chain(broken));
    let run = site.reconcile(1001, &["--full"]).await;
    assert_eq!(run["error"]["kind"], "salla_request_rejected", "{run}");
}

/// Between Salla's word that it is gone and ours, another program writes it again.
async fn a_restored_record_is_not_marked(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 6)]).await;
    site.reconcile(1001, &[]).await;
    let mut order = site.salla.world().shop(1001).orders[2].clone();
    site.salla.world().shop(1001).delete(order.id);
    order.updated_at += TimeDelta::minutes(30);
    let hang = Fault::Hang(std::time::Duration::from_millis(700));
    site.salla.world().script(1001, [Fault::Hang(std::time::Duration::ZERO), hang]);
    let (run, ()) = tokio::join!(site.reconcile(1001, &[]), async {
        let before = site.salla.world().seen.len();
        while site.salla.world().seen.len() < before + 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        site.consume(1001, &order).await;
    });
    assert_eq!(run["status"], "succeeded", "{run}");
    assert_eq!(deleted(&site).await, 0);
}

/// A consumer that stamps rows by its own clock is ahead of Salla; the content it wrote stays.
async fn a_listed_record_is_restored(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 6)]).await;
    site.reconcile(1001, &[]).await;
    let order = site.salla.world().shop(1001).orders[2].clone();
    let mut newer = order.clone();
    newer.updated_at += TimeDelta::seconds(7);
    newer.status = 6;
    site.consume(1001, &newer).await;
    site.salla.world().shop(1001).delete(order.id);
    site.reconcile(1001, &[]).await;
    assert_eq!(deleted(&site).await, 1);
    site.salla.world().shop(1001).orders.push(order);
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((run["status"].as_str(), totals(&run)), (Some("succeeded"), [6, 0, 1, 5, 0, 0]), "{run}");
    assert_eq!(deleted(&site).await, 0);
    assert_eq!(site.database.number("SELECT count(*) FROM orders WHERE status = 'completed'").await, 1);
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [6, 0, 0, 6, 0, 0]);
}

/// A record that the consumer stores while the list is read does not count as left out of the list.
async fn a_clock_that_is_ahead_and_a_webhook_during_the_run(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 4)]).await;
    site.set("RECONCILE__PAGE_SIZE", "2");
    site.salla.world().clock_ahead = TimeDelta::hours(1);
    site.salla.world().always.insert(1001, Fault::Hang(std::time::Duration::from_millis(100)));
    let (run, ()) = tokio::join!(site.reconcile(1001, &[]), async {
        while site.salla.world().seen.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        for _ in 0..3 {
            let order = {
                let mut world = site.salla.world();
                let mut order = world.shop(1001).orders[0].clone();
                order.id += 1 + i64::try_from(world.seen.len()).unwrap();
                order.updated_at = Utc::now();
                order
            };
            site.consume(1001, &order).await;
            tokio::time::sleep(std::time::Duration::from_millis(120)).await;
        }
    });
    assert_eq!(run["status"], "succeeded", "{run}");
    assert_eq!(deleted(&site).await, 0);
}

/// The list answers with the same token: nothing is wrong with it.
async fn a_refused_detail_fails_alone(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 6)]).await;
    site.salla.world().documented = true;
    let right = Fault::Hang(std::time::Duration::ZERO);
    let refused = Fault::Answer {
        status: 401,
        headers: vec![("content-type", "application/json".into())],
        body: r#"{"status":401,"success":false,"error":{"code":"Unauthorized","message":"The User is not exists."}}"#
            .into(),
    };
    site.salla.world().script(1001, [right.clone(), right, refused]);
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((run["status"].as_str(), totals(&run)), (Some("partial"), [6, 5, 0, 0, 1, 0]), "{run}");
    assert_eq!(site.database.text("SELECT state FROM merchants").await, "active");
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    site.assert_equal(1001).await;
}

/// Its own address has it.
async fn a_row_without_a_stamp_among_others(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 6)]).await;
    let order = site.salla.world().shop(1001).orders[5].clone();
    let mut row = order.json();
    row.as_object_mut().unwrap().remove("updated_at");
    site.salla.world().shop(1001).orders[5].draft = true;
    site.salla.world().shop(1001).raw_rows.push(row.to_string());
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((run["status"].as_str(), totals(&run)), (Some("succeeded"), [6, 6, 0, 0, 0, 0]), "{run}");
    assert_eq!(run["listing"], "filter");
}

/// A run that did not come to all of it has not succeeded.
async fn failed_records_above_the_retry_limit_wait(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    site.run(&["migrate", "up"]).await.exits(0);
    let rows: Vec<String> = (1..=1_003).map(|id| format!("(1001, 'orders', {id})")).collect();
    let sql = format!("INSERT INTO failed_records (merchant_id, resource, salla_id) VALUES {}", rows.join(", "));
    site.database.execute(&sql, []).await;
    let output = site.run(&["run", "--json"]).await.exits(3);
    assert!(output.stderr.contains("retry limit reached"), "{}", output.stderr);
    assert_eq!(site.database.number("SELECT count(*) FROM failed_records").await, 3);
    site.run(&["run", "--json"]).await.exits(0);
    assert_eq!(site.database.number("SELECT count(*) FROM failed_records").await, 0);
}

async fn a_page_that_lists_an_order_without_its_stamp_and_with_it(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 5)]).await;
    let order = site.salla.world().shop(1001).orders[4].clone();
    let (whole, mut summary) = (order.json(), order.json());
    summary.as_object_mut().unwrap().remove("updated_at");
    site.salla.world().shop(1001).orders[4].draft = true;
    for row in [summary, whole] {
        site.salla.world().shop(1001).raw_rows.push(row.to_string());
    }
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((run["status"].as_str(), totals(&run)), (Some("succeeded"), [5, 5, 0, 0, 0, 0]), "{run}");
    site.salla.world().shop(1001).orders[4].draft = false;
    site.assert_equal(1001).await;
}
