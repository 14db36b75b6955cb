//! The report over a period: the lost changes, their kinds, and the delay until their correction.

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use reqwest::Method;
use salla_reconciler::{
    domain::{Drift, EndedRuns, Lateness, MerchantId, Period},
    reconcile::ports::{DriftFilter, RunHistory},
    simulator::Shop,
    store::Store,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    Engine, SCHEMA, Site,
    site::{shop, totals},
};

on_every_database!(
    the_report_names_lost_webhooks,
    a_dry_run_is_left_out,
    the_first_run_and_full_runs_find_no_drift,
    a_record_that_fails_in_the_first_run_stays_backfill,
    a_row_without_an_id_makes_later_drift_no_backfill,
    the_report_counts_each_version_once,
    the_report_has_a_median_delay,
    discrepancies_have_a_delay,
    the_command_s_answers,
    single_records_are_listed_with_their_values,
    over_http,
    another_spelling_is_not_a_lost_webhook,
);

fn hours_ago(hours: i64) -> DateTime<Utc> {
    Utc::now() - TimeDelta::hours(hours)
}

/// A site with two reconciled merchants. Merchant 1001 lost a creation two hours ago and an update
/// half an hour ago. Merchant 1002 lost three creations twenty hours ago.
async fn drifted(engine: Engine) -> Site {
    let shops = [1001, 1002].map(|merchant| Shop::seeded(merchant, 0, Utc::now()));
    let site = Site::new(engine, shops).await;
    let held = {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        (0..5).for_each(|_| {
            shop.place(hours_ago(23));
        });
        shop.orders.clone()
    };
    for order in &held {
        site.consume(1001, order).await;
    }
    site.run(&["run"]).await.exits(0);
    {
        let mut world = site.salla.world();
        world.shop(1001).place(hours_ago(2));
        world.shop(1001).touch(held[0].id, Utc::now() - TimeDelta::minutes(30));
        (0..3).for_each(|_| {
            world.shop(1002).place(hours_ago(20));
        });
    }
    site.run(&["run"]).await.exits(0);
    site
}

async fn report(site: &Site, args: &[&str]) -> Vec<Value> {
    site.run(&[&["report", "--json"], args].concat()).await.exits(0).objects()
}

async fn the_report_names_lost_webhooks(engine: Engine) {
    let site = drifted(engine).await;
    // A later run does not find corrected records again.
    site.run(&["run"]).await.exits(0);
    let drift = report(&site, &[]).await;
    assert_eq!(drift.len(), 2);
    let (most, other) = (&drift[0], &drift[1]);
    assert_eq!((&most["merchant_id"], &most["missing"], &most["stale"]), (&json!(1002), &json!(3), &json!(0)));
    assert_eq!(most["lost_webhooks"], json!({"order.created": 3}));
    assert_eq!(most["lateness"]["within_24h"], 3);

    assert_eq!((&other["merchant_id"], &other["missing"], &other["stale"]), (&json!(1001), &json!(1), &json!(1)));
    assert_eq!(other["name"], site.salla.world().shop(1001).name);
    assert_eq!(other["runs"], json!({"succeeded": 3, "partial": 0, "failed": 0, "cancelled": 0}));
    assert_eq!(other["lost_webhooks"], json!({"order.created": 1, "order.status.updated": 1}));
    assert_eq!(other["fields"]["status"], 1);
    assert_eq!(other["fields"]["payload"], 1);
    let lateness = &other["lateness"];
    assert_eq!(
        (&lateness["within_1h"], &lateness["within_24h"], &lateness["within_7d"]),
        (&json!(1), &json!(1), &json!(0))
    );
    let seconds = lateness["max_seconds"].as_u64().unwrap();
    assert!((7_200..7_260).contains(&seconds), "{lateness}");
    assert_eq!(lateness["median_seconds"], seconds);
    for count in ["deleted", "skipped", "failed"] {
        assert_eq!(other[count], 0, "{other}");
    }
    let times = ["since", "until"].map(|end| other["period"][end].as_str().unwrap().parse::<DateTime<Utc>>().unwrap());
    assert_eq!(times[1] - times[0], TimeDelta::days(30));
}

async fn a_dry_run_is_left_out(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 4)]).await;
    assert_eq!(totals(&site.reconcile(1001, &["--dry-run"]).await), [4, 4, 0, 0, 0, 0]);
    assert!(report(&site, &[]).await.is_empty());
    assert_eq!(site.database.number("SELECT count(*) FROM discrepancies").await, 4);
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [4, 4, 0, 0, 0, 0]);
    let drift = report(&site, &[]).await;
    assert_eq!((&drift[0]["backfilled"]["missing"], &drift[0]["runs"]["succeeded"]), (&json!(4), &json!(1)));
}

/// `missing`, `stale`, and how many of each are backfilled, of store 1001.
async fn counted(site: &Site) -> [u64; 4] {
    let drift = report(site, &["--merchant", "1001"]).await.pop().unwrap();
    let backfilled = &drift["backfilled"];
    let lost: u64 = drift["lost_webhooks"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    let counts = [&drift["missing"], &drift["stale"], &backfilled["missing"], &backfilled["stale"]];
    let counts = counts.map(|count| count.as_u64().unwrap());
    assert_eq!(lost, counts[0] + counts[1], "{drift}");
    counts
}

async fn the_first_run_and_full_runs_find_no_drift(engine: Engine) {
    let site = Site::new(engine, [Shop::seeded(1001, 40, Utc::now())]).await;
    let stale = {
        let mut world = site.salla.world();
        let placed = [20, 21, 22].map(|hours| world.shop(1001).place(hours_ago(hours)));
        let orders = &world.shop(1001).orders;
        orders.iter().find(|order| order.id == placed[0]).cloned().unwrap()
    };
    site.consume(1001, &stale).await;
    site.salla.world().shop(1001).touch(stale.id, hours_ago(2));
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["totals"]["backfilled"], json!({"created": 2, "updated": 1}), "{run}");
    assert_eq!(counted(&site).await, [0, 0, 2, 1], "the first run");

    let lost = site.salla.world().shop(1001).place(hours_ago(1));
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["totals"]["backfilled"], json!({"created": 0, "updated": 0}), "{run}");
    assert_eq!(counted(&site).await, [1, 0, 2, 1], "a lost webhook");

    // A window that begins before the registration: the older orders are backfill, a change since then is drift.
    let registered_at = Utc::now() - TimeDelta::minutes(30);
    site.database.execute("UPDATE merchants SET created_at = $1", [registered_at.into()]).await;
    site.salla.world().shop(1001).touch(lost, Utc::now());
    let since = (Utc::now() - TimeDelta::days(400)).to_rfc3339();
    let run = site.reconcile(1001, &["--since", &since]).await;
    let old = run["totals"]["created"].as_u64().unwrap();
    assert!(old > 0, "{run}");
    assert_eq!(run["totals"]["backfilled"], json!({"created": old, "updated": 0}), "{run}");
    assert_eq!(counted(&site).await, [1, 1, 2 + old, 1], "an earlier window");

    site.database.execute("DELETE FROM orders", []).await;
    let run = site.reconcile(1001, &["--full"]).await;
    let all = run["totals"]["created"].as_u64().unwrap();
    assert_eq!(run["totals"]["backfilled"], json!({"created": all, "updated": 0}), "{run}");
    let daemon = site.serve().await;
    let (_, body) = daemon.get(&format!("/runs/{}/discrepancies", run["run_id"].as_str().unwrap())).await;
    assert!(body["discrepancies"].as_array().unwrap().iter().all(|one| one["backfill"] == true), "{body}");
    // The version that was drift once is also backfill now.
    assert_eq!(counted(&site).await, [1, 1, 3 + old, 1], "a full run");
}

async fn a_record_that_fails_in_the_first_run_stays_backfill(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    let broken = {
        let mut world = site.salla.world();
        let id = world.shop(1001).orders[0].id;
        world.shop(1001).orders[0].draft = true;
        world.shop(1001).raw_rows.push(format!(r#"{{"id":{id},"updated_at":"never"}}"#));
        id
    };
    let first = site.reconcile(1001, &[]).await;
    assert_eq!((&first["status"], &first["totals"]["skipped"]), (&json!("partial"), &json!(1)), "{first}");
    {
        let mut world = site.salla.world();
        world.shop(1001).raw_rows.clear();
        world.shop(1001).orders.iter_mut().find(|order| order.id == broken).unwrap().draft = false;
    }
    let second = site.reconcile(1001, &[]).await;
    assert_eq!(second["totals"]["backfilled"], json!({"created": 1, "updated": 0}), "{second}");
    assert_eq!(counted(&site).await, [0, 0, 3, 0]);
}

async fn a_row_without_an_id_makes_later_drift_no_backfill(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.salla.world().shop(1001).raw_rows.push(r#"{"id":null}"#.to_owned());
    site.reconcile(1001, &[]).await;
    site.salla.world().shop(1001).place(hours_ago(1));
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((&run["status"], &run["totals"]["created"]), (&json!("partial"), &json!(1)), "{run}");
    assert_eq!(counted(&site).await, [1, 0, 3, 0]);
}

/// The first of November, and so many hours.
fn at(hours: i64) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 1, 0, 0, 0).unwrap() + TimeDelta::hours(hours)
}

async fn migrated(engine: Engine) -> Site {
    let site = Site::unregistered(engine, []).await;
    site.run(&["migrate", "up"]).await.exits(0);
    site
}

/// Puts a run of merchant 1 on record that ended at `hour`, and returns its id and that hour.
async fn ran(site: &Site, status: &str, dry_run: bool, hour: i64) -> (Uuid, i64) {
    let id = Uuid::now_v7();
    let sql =
        "INSERT INTO runs (id, merchant_id, trigger, status, dry_run, finished_at) VALUES ($1, 1, 'cli', $2, $3, $4)";
    site.database.execute(sql, [id.into(), status.into(), dry_run.into(), at(hour).into()]).await;
    (id, hour)
}

/// Puts on record what `run`, which ended at the hour, found wrong with an order, and in which version of Salla's.
async fn found(
    site: &Site,
    (run, hour): (Uuid, i64),
    id: Option<i64>,
    wrong: (&str, &str),
    remote: Option<DateTime<Utc>>,
) {
    let sql = "INSERT INTO discrepancies (run_id, merchant_id, resource, salla_id, kind, fields, remote_updated_at, found_at) \
               VALUES ($1, 1, 'orders', $2, $3, $4, $5, $6)";
    let (kind, fields) = wrong;
    let values = [run.into(), id.into(), kind.into(), fields.into(), remote.into(), at(hour).into()];
    site.database.execute(sql, values).await;
}

/// Merchant 1's drift from the first to the second hour.
async fn drift(site: &Site, since: i64, until: i64) -> Drift {
    let store =
        Store::connect(&site.database.url.clone().into(), SCHEMA, 1, std::time::Duration::from_secs(60)).await.unwrap();
    let period = Period { since: at(since), until: at(until) };
    let mut drift = store.drift(DriftFilter { merchant: None, period }).await.unwrap();
    store.close().await.unwrap();
    assert!(drift.len() <= 1, "{drift:?}");
    drift.pop().unwrap_or_else(|| Drift::none(MerchantId(1), None, period))
}

async fn the_report_counts_each_version_once(engine: Engine) {
    let site = migrated(engine).await;
    let dry = ran(&site, "succeeded", true, 10).await;
    let first = ran(&site, "partial", false, 10).await;
    let second = ran(&site, "succeeded", false, 34).await;
    let later = ran(&site, "failed", false, 58).await;
    let version = Some(at(8));
    found(&site, dry, Some(1), ("missing", "[]"), version).await;
    // Could not be written in the first night, and was in the second: one webhook, found late.
    found(&site, first, Some(1), ("failed", "[]"), version).await;
    found(&site, second, Some(1), ("missing", "[]"), version).await;
    // Went wrong again in another version: another webhook.
    found(&site, second, Some(1), ("stale", r#"["status","total_amount","payload"]"#), Some(at(30))).await;
    found(&site, second, Some(2), ("stale", r#"["total_amount","payload"]"#), version).await;
    found(&site, second, Some(3), ("stale", r#"["payload"]"#), version).await;
    // Of what is gone Salla may tell no version.
    found(&site, first, Some(4), ("stale", r#"["deleted_at"]"#), None).await;
    found(&site, second, Some(4), ("stale", r#"["deleted_at"]"#), None).await;
    // Every night again: one order that cannot be read, one that cannot be written; and two without an id.
    for run in [first, second] {
        found(&site, run, Some(5), ("skipped", r#"["updated_at"]"#), None).await;
        found(&site, run, Some(6), ("failed", r#"["status"]"#), version).await;
    }
    found(&site, second, None, ("skipped", r#"["id"]"#), None).await;
    found(&site, second, None, ("skipped", r#"["id"]"#), None).await;
    found(&site, later, Some(7), ("missing", "[]"), version).await;

    let told = drift(&site, 0, 58).await;
    assert_eq!(told.runs, EndedRuns { succeeded: 1, partial: 1, failed: 0, cancelled: 0 });
    let counts = [told.missing, told.stale, told.deleted, told.skipped, told.failed];
    assert_eq!(counts, [1, 4, 1, 3, 1], "{told:?}");
    let lost: Vec<_> = told.lost_webhooks.iter().map(|(event, count)| (event.as_str(), *count)).collect();
    assert_eq!(
        lost,
        [
            ("order.created", 1),
            ("order.deleted", 1),
            ("order.status.updated", 1),
            ("order.total.price.updated", 1),
            ("order.updated", 1),
        ]
    );
    let fields: Vec<_> = told.fields.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(fields, [("deleted_at", 1), ("payload", 3), ("status", 1), ("total_amount", 2)]);
    let expected = Lateness {
        within_24h: 1,
        within_7d: 3,
        max_seconds: Some(26 * 3_600),
        median_seconds: Some(26 * 3_600),
        ..Lateness::default()
    };
    assert_eq!(told.lateness, expected);

    // A period begins with its first instant and ends before its last.
    assert_eq!(drift(&site, 58, 59).await.missing, 1);
    assert_eq!(drift(&site, 59, 99).await.runs.total(), 0);
    let no_one = DriftFilter { merchant: Some(MerchantId(2)), period: told.period };
    let store =
        Store::connect(&site.database.url.clone().into(), SCHEMA, 1, std::time::Duration::from_secs(60)).await.unwrap();
    assert!(store.drift(no_one).await.unwrap().is_empty());
}

async fn the_report_has_a_median_delay(engine: Engine) {
    let site = migrated(engine).await;
    let run = ran(&site, "succeeded", false, 1_000).await;
    // How late each is, and what is then the longest and the median. SQLite's days hold no second exactly; and a
    // clock of Salla's that is ahead makes nothing negative.
    for (id, seconds, longest, median) in [
        (1, -50, 0, 0),
        (2, 3_600, 3_600, 3_600),
        (3, 3_601, 3_601, 3_600),
        (4, 86_400, 86_400, 3_601),
        (5, 604_800, 604_800, 3_601),
        (6, 604_801, 604_801, 86_400),
    ] {
        let kind = if id % 2 == 0 { "missing" } else { "stale" };
        found(&site, run, Some(id), (kind, "[]"), Some(at(1_000) - TimeDelta::seconds(seconds))).await;
        let lateness = drift(&site, 0, 2_000).await.lateness;
        assert_eq!((lateness.max_seconds, lateness.median_seconds), (Some(longest), Some(median)), "after {id}");
    }
    let lateness = drift(&site, 0, 2_000).await.lateness;
    assert_eq!([lateness.within_1h, lateness.within_24h, lateness.within_7d, lateness.longer], [2, 2, 1, 1]);
}

async fn discrepancies_have_a_delay(engine: Engine) {
    let site = Site::new(engine, [Shop::seeded(1001, 0, Utc::now())]).await;
    site.reconcile(1001, &[]).await;
    site.salla.world().shop(1001).place(hours_ago(3));
    site.salla.world().shop(1001).raw_rows.push(r#"{"id":77,"updated_at":"never"}"#.to_owned());
    let run = site.run(&["run", "--json"]).await.exits(3).object();
    let daemon = site.serve().await;
    let (_, body) = daemon.get(&format!("/runs/{}/discrepancies", run["run_id"].as_str().unwrap())).await;
    let of = |kind: &str| body["discrepancies"].as_array().unwrap().iter().find(|one| one["kind"] == kind).unwrap();
    let instant = |value: &Value| value.as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let missing = of("missing");
    let late = instant(&missing["found_at"]) - instant(&missing["remote_updated_at"]);
    assert_eq!(missing["late_seconds"], late.num_seconds());
    assert!((3 * 3_600..3 * 3_600 + 60).contains(&late.num_seconds()), "{missing}");
    assert_eq!(of("skipped")["late_seconds"], json!(null));
    assert!((Utc::now() - instant(&of("skipped")["found_at"])).abs() < TimeDelta::minutes(1));
}

async fn the_command_s_answers(engine: Engine) {
    let mut site = drifted(engine).await;
    // Nothing but the database is needed.
    site.unset("VAULT__KEYS");
    site.unset("SALLA__CLIENT_SECRET");
    let table = site.run(&["report"]).await.exits(0).stdout;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert_eq!(
        lines[0],
        ["merchant", "missing", "stale", "deleted", "backfilled", "median", "delay", "longest", "delay", "runs"]
    );
    assert_eq!((&lines[1][..5], lines[1].last()), (&["1002", "3", "0", "0", "0"][..], Some(&"2")));
    // And some seconds, as long as the run took to come to it.
    assert_eq!((&lines[2][..6], lines[2].last()), (&["1001", "1", "1", "0", "0", "2h"][..], Some(&"2")));
    assert_eq!(lines[2].iter().filter(|word| **word == "2h").count(), 2, "{table}");
    let last = table.lines().last().unwrap();
    assert!(
        last.starts_with("Lost webhooks, ") && last.ends_with(": order.created 4, order.status.updated 1"),
        "{table}"
    );
    assert!(table.lines().take(3).all(|line| line.trim_end().len() <= 80), "{table}");

    let named = report(&site, &["--merchant", "1001", "--since", &hours_ago(1).to_rfc3339()]).await;
    assert_eq!((named.len(), &named[0]["merchant_id"]), (1, &json!(1001)));
    assert!(report(&site, &["--until", &hours_ago(1).to_rfc3339()]).await.is_empty());
    let none = site.run(&["report", "--until", "2026-01-01T00:00:00Z", "--merchant", "1001"]).await.exits(0).stdout;
    assert!(
        none.contains("1001") && none.contains("Lost webhooks, 2025-12-02T00:00:00Z to 2026-01-01T00:00:00Z: none"),
        "{none}"
    );

    let unknown = site.run(&["report", "--merchant", "4242"]).await.exits(1);
    assert_eq!((unknown.stdout.as_str(), unknown.stderr.lines().count()), ("", 1), "{unknown:?}");
    assert!(unknown.stderr.contains("merchant 4242 is not registered"), "{unknown:?}");
    for usage in [
        &["--since", "2026-11-20T00:00:00Z", "--until", "2026-11-19T00:00:00Z"][..],
        &["--since", "2026-11-20T00:00:00Z", "--until", "2026-11-20T00:00:00Z"],
        &["--since", "2126-11-20T00:00:00Z"],
        &["--since", "yesterday"],
        &["--merchant", "x"],
    ] {
        site.run(&[&["report"], usage].concat()).await.exits(2);
    }
    // Its orders and runs stay.
    site.run(&["merchants", "remove", "1001"]).await.exits(0);
    assert_eq!(report(&site, &["--merchant", "1001"]).await[0]["missing"], 1);
}

async fn single_records_are_listed_with_their_values(engine: Engine) {
    let site = drifted(engine).await;
    let table = site.run(&["report", "--records"]).await.exits(0).stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    let stale = lines.iter().find(|line| line.contains(" stale: ")).unwrap();
    assert!(stale.contains("merchant 1001 order ") && stale.contains("status: ") && stale.contains(" → "), "{stale}");
    assert!(stale.contains("payload") && stale.ends_with(" late)"), "{stale}");
    assert_eq!(
        lines.iter().filter(|line| line.contains("merchant 1002 order ") && line.contains(" missing (20h ")).count(),
        3,
        "{table}"
    );

    let records = site.run(&["report", "--records", "--json", "--merchant", "1001"]).await.exits(0).objects();
    assert_eq!(records.len(), 2);
    let stale = records.iter().find(|record| record["kind"] == "stale").unwrap();
    assert!(stale["changes"].as_array().unwrap().iter().any(|change| change["field"] == "status"), "{stale}");
    assert_eq!((&stale["merchant_id"], &stale["backfill"]), (&json!(1001), &json!(false)));
    assert!(stale["run_id"].is_string() && stale["id"].is_null(), "{stale}");
    let before = site.run(&["report", "--records", "--until", "2026-01-01T00:00:00Z"]).await.exits(0).stdout;
    assert_eq!(before, "");
    site.run(&["report", "--records", "--merchant", "4242"]).await.exits(1);
}

async fn over_http(engine: Engine) {
    let mut site = drifted(engine).await;
    site.set("HTTP__API_TOKEN", "operator-canary-0123");
    let guarded = site.serve().await;
    assert_eq!(guarded.get("/report").await.0, 401);
    assert_eq!(guarded.call_with_token("/report", "operator-canary-0123").await, 200);
    drop(guarded);

    site.unset("HTTP__API_TOKEN");
    let daemon = site.serve().await;
    let (status, body) = daemon.get("/report").await;
    assert_eq!(status, 200);
    let merchants = body["merchants"].as_array().unwrap();
    assert_eq!(merchants.iter().map(|drift| drift["merchant_id"].as_i64().unwrap()).collect::<Vec<_>>(), [1002, 1001]);
    let period = json!({"since": body["since"], "until": body["until"]});
    assert_eq!(merchants[0]["period"], period);
    let (_, body) = daemon.get("/report?merchant_id=1001").await;
    assert_eq!(body["merchants"][0]["lost_webhooks"], json!({"order.created": 1, "order.status.updated": 1}));
    let (_, body) = daemon.get("/report?merchant_id=1001&since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z").await;
    assert_eq!(body["since"], "2026-01-01T00:00:00Z");
    assert_eq!(body["merchants"][0]["runs"]["succeeded"], 0);
    assert_eq!(body["merchants"][0]["lateness"]["median_seconds"], json!(null));
    let (_, body) = daemon.get("/report?until=2026-01-02T00:00:00Z").await;
    assert_eq!(body["merchants"], json!([]));

    for (path, status) in [
        ("/report?merchant_id=x", 400),
        ("/report?since=yesterday", 400),
        ("/report?surprise=1", 400),
        ("/report?merchant_id=4242", 404),
        ("/report?since=2026-11-20T00:00:00Z&until=2026-11-19T00:00:00Z", 422),
        ("/report?since=2026-11-20T00:00:00Z&until=2026-11-20T00:00:00Z", 422),
        ("/report?since=2126-11-20T00:00:00Z", 422),
        ("/report?since=-9999-01-01T00:00:00Z", 422),
    ] {
        let (got, headers, problem) = daemon.call(Method::GET, path, None).await;
        assert_eq!(got, status, "{path}: {problem}");
        assert_eq!(headers["content-type"], "application/problem+json", "{path}");
    }
    assert_eq!(daemon.call(Method::POST, "/report", Some("{}")).await.0, 405);
}

/// A webhook brought the very version that Salla has, and its payload is of another shape than the list's row.
async fn another_spelling_is_not_a_lost_webhook(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.run(&["migrate", "up"]).await.exits(0);
    let orders = site.salla.world().shop(1001).orders.clone();
    for order in &orders {
        site.consume(1001, order).await;
    }
    let other = if site.database.is_postgres() {
        "UPDATE orders SET payload = payload || '{\"event\":\"order.created\"}'"
    } else {
        "UPDATE orders SET payload = json_set(payload, '$.event', 'order.created')"
    };
    site.database.execute(other, []).await;
    assert_eq!(site.reconcile(1001, &[]).await["totals"]["updated"], 3);
    let drift = site.run(&["report", "--json"]).await.exits(0).object();
    assert_eq!((&drift["rewritten"], &drift["stale"]), (&serde_json::json!(3), &serde_json::json!(0)), "{drift}");
    assert_eq!(drift["lost_webhooks"], serde_json::json!({}));
    assert_eq!(drift["lateness"]["max_seconds"], serde_json::json!(null));
}
