//! A night: lost changes are found and corrected, and correct records are left alone.

use chrono::{TimeDelta, Utc};
use salla_reconciler::simulator::{Fault, ListOrder, Shop};
use serde_json::json;

use crate::support::{
    Engine, Site,
    site::{everything, shop, totals},
};

on_every_database!(
    a_sweep_corrects_missing_and_stale_orders,
    a_second_run_writes_nothing,
    a_newer_stored_record_stays,
    equal_age_and_other_content_is_corrected,
    records_of_other_writers_are_hashed,
    a_dry_run_writes_no_order,
    a_full_run_reads_everything,
    a_missed_night_is_covered_by_the_next,
    a_requested_window_leaves_no_gap,
    failed_first_nights_are_covered_later,
    late_changes_are_found_after_a_run_by_hand,
    many_pages_and_a_server_that_caps_them,
    a_record_listed_twice_counts_once,
    discrepancies_name_the_differences,
    discrepancies_of_customers_have_no_personal_values,
    a_server_that_ignores_the_filter_is_read_whole,
    until_limits_the_window,
    an_incomplete_list_fails_the_run,
    the_newer_of_two_listed_versions_counts,
    a_clock_of_salla_s_that_is_ahead,
    invalid_times_of_other_writers_are_corrected,
);

/// README, "How a sweep works".
async fn a_sweep_corrects_missing_and_stale_orders(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 30, 10), shop(1002, 0, 0)]).await;
    let (lost_creation, lost_update) = {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        (shop.orders[35].id, shop.orders[3].id)
    };
    let held: Vec<_> =
        site.salla.world().shop(1001).orders.iter().filter(|order| order.id != lost_creation).cloned().collect();
    for order in &held {
        site.consume(1001, order).await;
    }
    site.salla.world().shop(1001).touch(lost_update, Utc::now());

    let output = site.run(&["run", "--json"]).await.exits(0);
    let runs = output.objects();
    assert_eq!(runs.len(), 2);
    let run = runs.iter().find(|run| run["merchant_id"] == 1001).unwrap();
    assert_eq!(totals(run), [11, 1, 1, 9, 0, 0]);
    assert_eq!(run["status"], "succeeded");
    assert_eq!(run["trigger"], "cli");
    assert_eq!(run["error"], json!(null));
    site.assert_equal(1001).await;
    let line = output.stderr.lines().find(|line| line.contains("run ended") && line.contains("1001")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    for field in [
        "run.id",
        "merchant.id",
        "trigger",
        "window.since",
        "window.until",
        "status",
        "fetched",
        "created",
        "updated",
        "unchanged",
        "skipped",
        "failed",
        "requests",
        "duration_ms",
    ] {
        assert!(!line[field].is_null(), "{field} is not in {line}");
    }
    assert!(output.stderr.lines().any(|line| line.contains("sweep ended")), "{}", output.stderr);
}

async fn a_second_run_writes_nothing(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 130)]).await;
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [130, 130, 0, 0, 0, 0]);
    let versions = if site.database.is_postgres() {
        "SELECT string_agg(xmin::text || ctid::text, ',' ORDER BY id) FROM orders"
    } else {
        "SELECT group_concat(revision || updated_at, ',') FROM orders"
    };
    let before = site.database.text(versions).await;
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [130, 0, 0, 130, 0, 0]);
    assert_eq!(site.database.text(versions).await, before);
    if site.database.is_postgres() {
        site.database.execute("SELECT pg_stat_force_next_flush()", []).await;
        let writes = "SELECT n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'orders'";
        assert_eq!(site.database.number(writes).await, 0);
    }
}

async fn a_newer_stored_record_stays(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.reconcile(1001, &[]).await;
    let newer = if site.database.is_postgres() {
        "UPDATE orders SET status = 'completed', salla_updated_at = salla_updated_at + interval '1 hour'"
    } else {
        "UPDATE orders SET status = 'completed', salla_updated_at = strftime('%Y-%m-%dT%H:%M:%SZ', salla_updated_at, '+1 hour')"
    };
    site.database.execute(newer, []).await;
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [3, 0, 0, 3, 0, 0]);
    assert_eq!(site.database.number("SELECT count(*) FROM orders WHERE status = 'completed'").await, 3);
}

async fn equal_age_and_other_content_is_corrected(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.reconcile(1001, &[]).await;
    // Another writer changes the payload alone, and maintains no content hash.
    let other = if site.database.is_postgres() {
        "UPDATE orders SET payload = payload || '{\"status\":{\"slug\":\"lost\"}}' WHERE id = (SELECT min(id) FROM orders)"
    } else {
        "UPDATE orders SET payload = json_set(payload, '$.status.slug', 'lost') WHERE id = (SELECT min(id) FROM orders)"
    };
    site.database.execute(other, []).await;
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [3, 0, 1, 2, 0, 0]);
    site.assert_equal(1001).await;
    site.database.execute("UPDATE orders SET status = 'lost' WHERE id = (SELECT max(id) FROM orders)", []).await;
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [3, 0, 1, 2, 0, 0]);
    site.assert_equal(1001).await;
}

async fn records_of_other_writers_are_hashed(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 5)]).await;
    site.run(&["migrate", "up"]).await.exits(0);
    let orders = site.salla.world().shop(1001).orders.clone();
    for order in &orders {
        site.consume(1001, order).await;
    }
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [5, 0, 0, 5, 0, 0]);
    assert_eq!(site.database.number("SELECT count(*) FROM orders WHERE content_hash IS NOT NULL").await, 0);
}

async fn a_dry_run_writes_no_order(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 5)]).await;
    let run = site.reconcile(1001, &["--dry-run"]).await;
    assert_eq!(totals(&run), [5, 5, 0, 0, 0, 0]);
    assert_eq!(site.database.number("SELECT count(*) FROM orders").await, 0);
    assert_eq!(site.database.number("SELECT count(*) FROM watermarks").await, 0);
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [5, 5, 0, 0, 0, 0]);
}

async fn a_full_run_reads_everything(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 150, 0)]).await;
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [0; 6]);
    let run = site.reconcile(1001, &["--full"]).await;
    assert_eq!(totals(&run), [150, 150, 0, 0, 0, 0]);
    assert_eq!(run["window"]["since"], "1970-01-01T00:00:00Z");
    site.assert_equal(1001).await;
}

async fn a_missed_night_is_covered_by_the_next(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 1)]).await;
    site.reconcile(1001, &[]).await;
    let watermark = Utc::now() - TimeDelta::days(5);
    site.database.execute("UPDATE watermarks SET watermark = $1", [watermark.into()]).await;
    site.salla.world().shop(1001).place(Utc::now() - TimeDelta::days(4));
    site.salla.world().always.insert(1001, Fault::status(404));
    assert_eq!(site.reconcile(1001, &[]).await["status"], "failed");
    site.salla.world().always.clear();

    let run = site.reconcile(1001, &[]).await;
    assert_eq!(totals(&run), [2, 1, 0, 1, 0, 0]);
    let since: chrono::DateTime<Utc> = run["window"]["since"].as_str().unwrap().parse().unwrap();
    assert!((since - (watermark - TimeDelta::minutes(10))).abs() < TimeDelta::milliseconds(2));
    site.assert_equal(1001).await;
    assert!(
        site.reconcile(1001, &[]).await["window"]["since"].as_str().unwrap().parse::<chrono::DateTime<Utc>>().unwrap()
            > watermark
    );
}

async fn a_requested_window_leaves_no_gap(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 1)]).await;
    site.reconcile(1001, &[]).await;
    let mark = Utc::now() - TimeDelta::days(5);
    site.database.execute("UPDATE watermarks SET watermark = $1", [mark.into()]).await;
    let since = (Utc::now() - TimeDelta::hours(1)).to_rfc3339();
    assert_eq!(site.reconcile(1001, &["--since", &since]).await["status"], "succeeded");
    let row = &site.database.rows("SELECT watermark FROM watermarks").await[0];
    let kept: chrono::DateTime<Utc> = row.try_get("", "watermark").unwrap();
    assert!((kept - mark).abs() < TimeDelta::milliseconds(2));
}

async fn many_pages_and_a_server_that_caps_them(engine: Engine) {
    let mut shop = shop(1001, 0, 95);
    shop.orders.iter_mut().for_each(|order| order.updated_at -= TimeDelta::minutes(1));
    let site = Site::new(engine, [shop]).await;
    site.salla.world().page_cap = 30;
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(totals(&run), [95, 95, 0, 0, 0, 0]);
    // The walk reads page 1, then from the last page to the first, and then the end again. Then as many records are known as the
    // list has rows.
    assert_eq!(site.salla.world().requests_for(1001), 1 + 4 + 1);
    let seen = site.salla.world().seen[0].query.clone();
    assert_eq!(seen["per_page"], "60");
    assert_eq!(seen["page"], "1");
    let since = run["window"]["since"].as_str().unwrap();
    assert_eq!(seen["updated_at_min"], format!("{}Z", &since[..19]));
    site.assert_equal(1001).await;
}

async fn a_record_listed_twice_counts_once(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 61)]).await;
    let again = site.salla.world().shop(1001).orders[60].json().to_string();
    site.salla.world().shop(1001).raw_rows.extend([again.clone(), again]);
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [61, 61, 0, 0, 0, 0]);
    site.assert_equal(1001).await;
}

async fn discrepancies_name_the_differences(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    site.run(&["migrate", "up"]).await.exits(0);
    let stale = site.salla.world().shop(1001).orders[0].clone();
    site.consume(1001, &stale).await;
    site.salla.world().shop(1001).touch(stale.id, Utc::now());
    site.salla.world().shop(1001).raw_rows.push(r#"{"id":77,"updated_at":"never"}"#.to_owned());
    let run = site.run(&["run", "--json"]).await.exits(3).object();
    assert_eq!(totals(&run), [3, 1, 1, 0, 1, 0]);
    assert_eq!(run["status"], "partial");

    let daemon = site.serve().await;
    let (_, body) = daemon.get(&format!("/runs/{}/discrepancies", run["run_id"].as_str().unwrap())).await;
    let found = body["discrepancies"].as_array().unwrap();
    assert_eq!(found.len(), 3);
    let of = |kind: &str| found.iter().find(|one| one["kind"] == kind).unwrap();
    assert_eq!(of("missing")["local_updated_at"], json!(null));
    assert_eq!(of("stale")["salla_id"], stale.id);
    assert!(of("stale")["fields"].as_array().unwrap().contains(&json!("status")));
    let corrected = site.salla.world().shop(1001).orders.iter().find(|order| order.id == stale.id).unwrap().clone();
    let status = json!({"field": "status", "before": stale.slug(), "after": corrected.slug()});
    let changes = of("stale")["changes"].as_array().unwrap();
    assert!(changes.contains(&status) && changes.iter().all(|change| change["field"] != "payload"), "{changes:?}");
    assert_eq!(of("missing")["changes"], json!([]));
    assert!(of("stale")["local_updated_at"].as_str() < of("stale")["remote_updated_at"].as_str());
    assert_eq!(of("skipped")["salla_id"], 77);
    assert_eq!(of("skipped")["fields"], json!(["updated_at"]));
}

async fn discrepancies_of_customers_have_no_personal_values(engine: Engine) {
    let mut site = Site::new(engine, [everything(1001, 0, 5)]).await;
    site.set("RECONCILE__RESOURCES", "customers");
    site.reconcile(1001, &["--full"]).await;
    site.database.execute("UPDATE customers SET first_name = 'x', salla_created_at = '2020-01-02T00:00:00+00:00', content_hash = NULL", []).await;
    let run = site.reconcile(1001, &["--full"]).await;
    assert_eq!(totals(&run), [5, 0, 5, 0, 0, 0], "{run}");
    let changes = site.database.text("SELECT changes FROM discrepancies WHERE kind = 'stale' LIMIT 1").await;
    assert!(changes.contains("2020-01-02") && !changes.contains("first_name"), "{changes}");
}

async fn a_server_that_ignores_the_filter_is_read_whole(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 70, 5)]).await;
    site.salla.world().honours_filter = false;
    site.salla.world().list_order = ListOrder::UpdatedDescending;
    site.salla.world().page_cap = 5;
    let output = site.run(&["run", "--json"]).await.exits(0);
    assert_eq!(totals(&output.object()), [75, 75, 0, 0, 0, 0]);
    assert!(output.stderr.contains("ignores updated_at_min"));
    site.set("SALLA__LISTING", "filter");
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["error"]["kind"], "listing_unsupported");
}

async fn until_limits_the_window(engine: Engine) {
    let mut shop = Shop::seeded(1001, 0, Utc::now());
    let noon = Utc::now() - TimeDelta::hours(12);
    shop.place(noon - TimeDelta::hours(1));
    shop.place(noon + TimeDelta::hours(1));
    let site = Site::new(engine, [shop]).await;
    let run = site.reconcile(1001, &["--until", &noon.to_rfc3339()]).await;
    assert_eq!(totals(&run), [1, 1, 0, 0, 0, 0]);
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [2, 1, 0, 1, 0, 0]);
}

async fn an_incomplete_list_fails_the_run(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    let short = r#"{"success":true,"data":[],"pagination":{"total":40,"totalPages":1}}"#;
    site.salla.world().always.insert(1001, Fault::ok("application/json", short));
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["error"]["kind"], "listing_unstable", "{run}");
    assert!(site.database.rows("SELECT * FROM watermarks").await.is_empty());
    // Once is looked at again.
    site.salla.world().always.clear();
    site.salla.world().script(1001, [Fault::ok("application/json", short)]);
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [3, 3, 0, 0, 0, 0]);
}

async fn the_newer_of_two_listed_versions_counts(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 0)]).await;
    let row = |id: i64, minute: i64, status: &str| {
        format!(r#"{{"id":{id},"updated_at":"2026-11-24 02:{minute:02}:00","status":{{"slug":"{status}"}}}}"#)
    };
    let rows = [
        row(1, 1, "old"),
        row(1, 9, "new"),
        row(2, 9, "new"),
        row(2, 1, "old"),
        row(3, 1, "old"),
        row(4, 1, "x"),
        row(3, 9, "new"),
    ];
    site.salla.world().shop(1001).raw_rows.extend(rows);
    site.set("RECONCILE__PAGE_SIZE", "5");
    assert_eq!(totals(&site.reconcile(1001, &["--full"]).await), [4, 4, 0, 0, 0, 0]);
    assert_eq!(site.database.number("SELECT count(*) FROM orders WHERE status = 'new'").await, 3);
    assert_eq!(site.database.number("SELECT count(*) FROM discrepancies").await, 4);
}

async fn a_clock_of_salla_s_that_is_ahead(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 1)]).await;
    site.salla.world().clock_ahead = TimeDelta::days(20_000);
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    let row = &site.database.rows("SELECT watermark FROM watermarks").await[0];
    let watermark: chrono::DateTime<Utc> = row.try_get("", "watermark").unwrap();
    assert!(watermark <= Utc::now(), "{watermark}");
}

/// Only PostgreSQL has an infinite time; SQLite's text may hold anything.
async fn invalid_times_of_other_writers_are_corrected(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.reconcile(1001, &[]).await;
    let odd = if site.database.is_postgres() { "infinity" } else { "soon" };
    site.database
        .execute(&format!("UPDATE orders SET salla_updated_at = '{odd}', salla_created_at = '{odd}', status = 'x'"), [])
        .await;
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [3, 0, 3, 0, 0, 0]);
    site.assert_equal(1001).await;
}

/// Registered three days ago, and no night has come to its end since.
async fn failed_first_nights_are_covered_later(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    let registered = Utc::now() - TimeDelta::days(3);
    site.database.execute("UPDATE merchants SET created_at = $1", [registered.into()]).await;
    let lost = site.salla.world().shop(1001).place(Utc::now() - TimeDelta::hours(36));
    // One by hand over the last hour says nothing of the days before it.
    let since = (Utc::now() - TimeDelta::hours(1)).to_rfc3339();
    assert_eq!(totals(&site.reconcile(1001, &["--since", &since]).await), [2, 2, 0, 0, 0, 0]);
    assert_eq!(site.database.number("SELECT count(*) FROM watermarks").await, 0, "there is a gap");
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(totals(&run), [3, 1, 0, 2, 0, 0], "{run}");
    assert_eq!(site.database.number(&format!("SELECT count(*) FROM orders WHERE salla_order_id = {lost}")).await, 1);
    assert_eq!(site.database.number("SELECT count(*) FROM watermarks").await, 1);
}

/// Salla shows a change up to ten minutes late: a window that begins at the last watermark itself does not join it.
async fn late_changes_are_found_after_a_run_by_hand(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    site.reconcile(1001, &[]).await;
    let watermark = Utc::now() - TimeDelta::hours(30);
    site.database.execute("UPDATE watermarks SET watermark = $1", [watermark.into()]).await;
    let late = site.salla.world().shop(1001).place(watermark - TimeDelta::minutes(3));
    site.reconcile(1001, &["--since", &watermark.to_rfc3339()]).await;
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(totals(&run)[1], 1, "order {late} was lost: {run}");
    site.assert_equal(1001).await;
}
