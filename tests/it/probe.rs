//! `check --merchant ID`: what a live store shows, and which listing fits.

use chrono::Utc;
use salla_reconciler::simulator::{DayBounds, ListOrder, Replay};
use serde_json::{Value, json};

use crate::support::{Engine, Site, site::shop};

on_every_database!(
    a_probe_tells_which_listing_fits,
    a_probe_names_what_differs,
    a_recorded_probe_holds_no_data_and_reproduces_the_findings,
    a_probe_changes_nothing,
);

async fn site(engine: Engine) -> Site {
    let site = Site::new(engine, [shop(1001, 200, 5)]).await;
    site.run(&["migrate", "up"]).await.exits(0);
    {
        let mut world = site.salla.world();
        world.list_order = ListOrder::CreatedDescending;
        let orders = world.shop(1001).orders.clone();
        for order in orders.iter().step_by(3) {
            world.shop(1001).touch(order.id, order.created_at + (Utc::now() - order.created_at) / 2);
        }
    }
    site
}

async fn probe(site: &Site, more: &[&str]) -> Value {
    site.salla.world().seen.clear();
    let report = site.run(&[&["check", "--merchant", "1001", "--json"], more].concat()).await.object();
    let requests = report["probe"]["requests"].as_u64().unwrap();
    assert!(requests <= 25 && requests >= site.salla.world().seen.len() as u64, "{report}");
    report
}

fn finding<'a>(report: &'a Value, subject: &str) -> &'a Value {
    let findings = report["probe"]["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["subject"] == subject).unwrap_or_else(|| panic!("{subject}: {report}"))
}

async fn a_probe_tells_which_listing_fits(engine: Engine) {
    let site = site(engine).await;
    for (documented, honours_sort, listing) in [(false, true, "filter"), (true, true, "sort"), (true, false, "scan")] {
        {
            let mut world = site.salla.world();
            (world.documented, world.honours_sort) = (documented, honours_sort);
        }
        let report = probe(&site, &[]).await;
        let found = &report["probe"];
        assert_eq!(found["listing"], listing, "{report}");
        assert_eq!((&found["orders"], &found["merchant_id"]), (&json!(205), &json!(1001)), "{report}");
        assert!(found["requests_per_night"].is_u64() && found["minutes_per_night"].is_f64(), "{report}");
        assert_eq!(finding(&report, "owner of the token")["found"], "merchant 1001");
        assert_eq!(finding(&report, "from_date and to_date")["as_expected"], json!(documented), "{report}");
    }
    // Without detail checks, a night costs less.
    let mut site = site;
    let requests = async |site: &Site| probe(site, &[]).await["probe"]["requests_per_night"].as_u64().unwrap();
    let usual = requests(&site).await;
    site.set("RECONCILE__DETAIL_CHECK_NIGHTS", "0");
    assert_eq!(requests(&site).await, usual - 205_u64.div_ceil(28));
    let text = site.run(&["check", "--merchant", "1001"]).await.stdout;
    assert!(text.contains("listing of merchant 1001: scan, because the server ignores"), "{text}");
    assert!(text.contains("a night without changes takes about"), "{text}");
}

async fn a_probe_names_what_differs(engine: Engine) {
    let site = site(engine).await;
    {
        let mut world = site.salla.world();
        world.documented = true;
        world.page_cap = 30;
        world.day_bounds = DayBounds::HalfOpen;
        world.shop(1001).withheld = vec!["products.read"];
    }
    let mut report = probe(&site, &[]).await;
    assert_eq!(finding(&report, "page size")["as_expected"], false, "{report}");
    assert_eq!(finding(&report, "from_date and to_date")["found"], "to_date is excluded", "{report}");
    assert_eq!(finding(&report, "rate limit headers")["as_expected"], false, "{report}");
    assert_eq!(finding(&report, "an order that does not exist")["as_expected"], true, "{report}");
    assert_eq!(finding(&report, "scopes")["as_expected"], true, "{report}");
    let mut site = site;
    site.set("RECONCILE__RESOURCES", "orders,products");
    report = probe(&site, &[]).await;
    assert_eq!(finding(&report, "scopes")["found"], "missing for products", "{report}");
    // A refused token is a failed check.
    site.salla.world().shop(1001).set_tokens("ory_at_1001_9", "ory_rt_1001_9");
    let refused = site.run(&["check", "--merchant", "1001", "--json"]).await.exits(1).object();
    let line = refused["checks"].as_array().unwrap().iter().find(|line| line["check"] == "probe").unwrap();
    assert_eq!((&line["status"], &refused["ok"]), (&json!("fail"), &json!(false)), "{refused}");
    site.run(&["check", "--merchant", "4711"]).await.exits(1);
    site.run(&["check", "--record", "probe.json"]).await.exits(2);
}

async fn a_recorded_probe_holds_no_data_and_reproduces_the_findings(engine: Engine) {
    let mut site = site(engine).await;
    {
        let mut world = site.salla.world();
        (world.documented, world.page_cap) = (true, 30);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("probe.json");
    let report = probe(&site, &["--record", file.to_str().unwrap()]).await;
    let text = std::fs::read_to_string(&file).unwrap();
    {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        let ids = shop.orders.iter().map(|order| order.id.to_string());
        for private in ids.chain([shop.tokens().0.to_owned(), "@example.com".to_owned()]) {
            assert!(!text.contains(&private), "{private}");
        }
    }
    let replay = Replay::start(serde_json::from_str(&text).unwrap()).await.unwrap();
    site.set("SALLA__API_URL", &replay.api_url());
    let again = site.run(&["check", "--merchant", "1001", "--json"]).await.object();
    for finding in report["probe"]["findings"].as_array().unwrap() {
        let findings = again["probe"]["findings"].as_array().unwrap();
        assert!(findings.contains(finding), "{finding} is not among {findings:?}");
    }
    assert_eq!(again["probe"]["listing"], report["probe"]["listing"]);
}

async fn a_probe_changes_nothing(engine: Engine) {
    let site = site(engine).await;
    let tables = ["orders", "runs", "discrepancies", "watermarks", "audit"];
    let sql = format!("SELECT {}", tables.map(|table| format!("(SELECT count(*) FROM {table})")).join(" + "));
    let before = site.database.number(&sql).await;
    probe(&site, &[]).await;
    assert_eq!(site.database.number(&sql).await, before);
    assert_eq!(site.salla.world().refreshes, 0);
}
