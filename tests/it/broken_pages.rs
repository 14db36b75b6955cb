//! One record breaks its page: the others are stored, and the run names the record that it could not read.

use chrono::{TimeDelta, Utc};
use salla_reconciler::simulator::{Breakage, Fault, Order};
use serde_json::{Value, json};

use crate::support::{
    Engine, Site,
    kind::Kind,
    site::{everything, shop, totals},
    until,
};

on_every_database!(
    a_record_that_breaks_its_page_fails_alone,
    a_broken_record_of_any_resource_makes_the_run_partial,
    adjacent_broken_records_are_each_recorded_as_failed,
    a_stored_record_with_a_broken_detail_page_is_kept,
    a_store_that_breaks_every_page_is_not_asked_row_by_row,
    the_first_and_the_last_record_of_a_page_break_it,
    a_record_without_an_id_is_read_again_until_it_can_be,
    a_list_sent_as_an_object_with_numeric_keys_is_read,
    a_record_that_breaks_its_page_and_its_own_address_counts_once,
);

const BREAKAGES: [Breakage; 9] = [
    Breakage::ServerError,
    Breakage::BadGateway,
    Breakage::Unavailable,
    Breakage::CutOff,
    Breakage::FailedStatus,
    Breakage::NotText,
    Breakage::ControlCharacter,
    Breakage::NotJson,
    Breakage::TooLarge,
];

/// Where a record is counted that breaks its page: text that is damaged comes and cannot be transformed; the others
/// never come.
fn count_of(breakage: Breakage) -> usize {
    match breakage {
        Breakage::NotText | Breakage::ControlCharacter => 4,
        Breakage::ServerError
        | Breakage::BadGateway
        | Breakage::Unavailable
        | Breakage::CutOff
        | Breakage::FailedStatus
        | Breakage::NotJson
        | Breakage::TooLarge => 5,
    }
}

async fn a_record_that_breaks_its_page_fails_alone(engine: Engine) {
    for breakage in BREAKAGES {
        let mut site = Site::new(engine, [shop(1001, 0, 200)]).await;
        // A page of nine megabytes takes its time on a busy machine.
        site.set("SALLA__REQUEST_TIMEOUT", "20s");
        let id = site.salla.world().shop(1001).orders[100].id;
        site.salla.world().shop(1001).breaks.insert(id, breakage);
        for night in 0..2 {
            let run = site.reconcile(1001, &[]).await;
            let counted = totals(&run)[count_of(breakage)];
            assert_eq!((&run["status"], counted), (&json!("partial"), 1), "{breakage:?}, {night}: {run}");
            let held = site.database.number("SELECT count(*) FROM orders").await;
            assert_eq!(held, 199, "{breakage:?}, night {night}");
        }
        let asked = site.salla.world().seen.len();
        assert!(asked < 110, "{breakage:?}: {asked} requests in two nights");
        site.salla.world().shop(1001).breaks.clear();
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["status"], "succeeded", "{breakage:?}: {run}");
        site.assert_equal(1001).await;
    }
}

async fn a_broken_record_of_any_resource_makes_the_run_partial(engine: Engine) {
    of_every_kind!(record_that_breaks(engine));
}

async fn record_that_breaks<K: Kind>(engine: Engine) {
    for breakage in [Breakage::NotText, Breakage::ServerError] {
        // A list that has no pages cannot be read in smaller ones.
        if breakage == Breakage::ServerError && !K::PAGED {
            continue;
        }
        let mut site = Site::new(engine, [everything(1001, 70, 70)]).await;
        site.set("RECONCILE__RESOURCES", K::RESOURCE.as_str());
        site.set("SALLA__CUSTOMER_REQUESTS_PER_10_MINUTES", "1000000");
        let (id, all) = {
            let mut world = site.salla.world();
            let all = K::all(world.shop(1001));
            (all[33].id(), all.len() as u64)
        };
        site.salla.world().shop(1001).breaks.insert(id, breakage);
        let run = site.reconcile(1001, &["--full"]).await;
        assert_eq!(run["status"], "partial", "{} {breakage:?}: {run}", K::TABLE);
        assert_eq!((totals(&run)[0], totals(&run)[count_of(breakage)]), (all, 1), "{} {breakage:?}: {run}", K::TABLE);
    }
}

/// At the beginning of a page, where they might be taken for the whole store's trouble.
async fn adjacent_broken_records_are_each_recorded_as_failed(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 130)]).await;
    {
        let mut world = site.salla.world();
        world.list_order = salla_reconciler::simulator::ListOrder::UpdatedAscending;
        let mut orders: Vec<Order> = world.shop(1001).orders.clone();
        orders.sort_by_key(|order| (order.updated_at, order.id));
        for order in &orders[60..74] {
            world.shop(1001).breaks.insert(order.id, Breakage::ServerError);
        }
    }
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((&run["status"], totals(&run)[5]), (&json!("partial"), 14), "{run}");
    assert_eq!(site.database.number("SELECT count(*) FROM orders").await, 116);
}

/// It was stored before: it keeps its place, and is named.
async fn a_stored_record_with_a_broken_detail_page_is_kept(engine: Engine) {
    for breakage in [Breakage::ServerError, Breakage::NotText] {
        let mut site = Site::new(engine, [shop(1001, 0, 70)]).await;
        site.set("SALLA__LISTING", "scan");
        site.salla.world().documented = true;
        site.reconcile(1001, &[]).await;
        let id = site.salla.world().shop(1001).orders[30].id;
        site.salla.world().shop(1001).touch(id, Utc::now());
        site.salla.world().shop(1001).breaks.insert(id, breakage);
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["status"], "partial", "{breakage:?}: {run}");
        let named = format!("SELECT count(*) FROM failed_records WHERE salla_id = {id}");
        assert_eq!(site.database.number(&named).await, 1, "{breakage:?}");
        assert_eq!(site.database.number("SELECT count(*) FROM orders WHERE deleted_at IS NULL").await, 70);
    }
}

async fn a_store_that_breaks_every_page_is_not_asked_row_by_row(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 130)]).await;
    for (fault, kind) in [
        (Fault::status(500), "salla_unavailable"),
        (Fault::ok("text/html", "<html>"), "salla_invalid_response"),
        (Fault::status(503), "salla_unavailable"),
        (Fault::ok("application/json", "{\"data\":[{,]}"), "salla_invalid_response"),
    ] {
        let before = site.salla.world().seen.len();
        site.salla.world().always.insert(1001, fault);
        let run = site.reconcile(1001, &[]).await;
        assert_eq!((&run["status"], &run["error"]["kind"]), (&json!("failed"), &json!(kind)), "{run}");
        let asked = site.salla.world().seen.len() - before;
        assert!(asked <= 3, "{kind}: {asked} requests");
    }
}

async fn the_first_and_the_last_record_of_a_page_break_it(engine: Engine) {
    for places in [[0, 59], [60, 119], [120, 179], [59, 60]] {
        for breakage in [Breakage::ServerError, Breakage::NotJson, Breakage::FailedStatus] {
            let site = Site::new(engine, [shop(1001, 0, 200)]).await;
            {
                let mut world = site.salla.world();
                world.list_order = salla_reconciler::simulator::ListOrder::UpdatedAscending;
                let mut orders: Vec<Order> = world.shop(1001).orders.clone();
                orders.sort_by_key(|order| (order.updated_at, order.id));
                for place in places {
                    world.shop(1001).breaks.insert(orders[place].id, breakage);
                }
            }
            let run = site.reconcile(1001, &[]).await;
            let told = (&run["status"], totals(&run)[5]);
            assert_eq!(told, (&json!("partial"), 2), "{places:?}, {breakage:?}: {run}");
            assert_eq!(site.database.number("SELECT count(*) FROM orders").await, 198, "{places:?}, {breakage:?}");
        }
    }
}

/// It lies outside the window of an ordinary night: the watermark stays until it has been read.
async fn a_record_without_an_id_is_read_again_until_it_can_be(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    site.reconcile(1001, &[]).await;
    let covered = Utc::now() - TimeDelta::days(5);
    site.database.execute("UPDATE watermarks SET watermark = $1", [covered.into()]).await;
    let id = site.salla.world().shop(1001).place(Utc::now() - TimeDelta::days(3));
    site.salla.world().shop(1001).breaks.insert(id, Breakage::ServerError);
    for night in 0..2_i64 {
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["status"], "partial", "{night}: {run}");
        assert_eq!(run["resource_results"][0]["unidentified"], 1, "{night}: {run}");
        let found = "SELECT count(*) FROM discrepancies WHERE kind = 'failed' AND salla_id IS NULL";
        assert_eq!(site.database.number(found).await, night + 1);
    }
    site.salla.world().shop(1001).breaks.clear();
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    site.assert_equal(1001).await;
    let yesterday = Utc::now() - TimeDelta::days(1);
    let behind = "SELECT count(*) FROM watermarks WHERE watermark < $1";
    assert_eq!(site.database.number_of(behind, [yesterday.into()]).await, 0, "the watermark moves again");
}

/// It is held, so that the list lacks it and it is asked for at its own address.
async fn a_record_that_breaks_its_page_and_its_own_address_counts_once(engine: Engine) {
    for breakage in [Breakage::ServerError, Breakage::CutOff] {
        let site = Site::new(engine, [shop(1001, 0, 200)]).await;
        site.reconcile(1001, &[]).await;
        let id = site.salla.world().shop(1001).orders[100].id;
        site.salla.world().shop(1001).breaks.insert(id, breakage);
        for night in 0..2 {
            let run = site.reconcile(1001, &["--full"]).await;
            assert_eq!(run["status"], "partial", "{breakage:?}, {night}: {run}");
            assert_eq!(totals(&run), [200, 0, 0, 199, 0, 1], "{breakage:?}, {night}: {run}");
            let named = format!("SELECT count(*) FROM failed_records WHERE salla_id = {id}");
            assert_eq!(site.database.number(&named).await, 1, "{breakage:?}");
        }
        assert_eq!(site.database.number("SELECT count(*) FROM orders WHERE deleted_at IS NULL").await, 200);
    }
}

async fn a_list_sent_as_an_object_with_numeric_keys_is_read(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 0)]).await;
    let page = |data: &str, total: u32| {
        format!(
            r#"{{"status":200,"success":true,"data":{data},"pagination":{{"count":{total},"total":{total},"perPage":60,"currentPage":1,"totalPages":{total}}}}}"#
        )
    };
    for (data, total) in [(r#"{"1":{"id":5,"updated_at":"2026-11-24 02:00:00"}}"#, 1), ("{}", 0)] {
        site.salla.world().script(1001, [Fault::ok("application/json", &page(data, total))]);
        let run: Value = site.reconcile(1001, &["--full", "--dry-run"]).await;
        assert_eq!((&run["status"], totals(&run)[0]), (&json!("succeeded"), u64::from(total)), "{data}: {run}");
    }
}

/// Sixteen stores answer with as much as an answer may hold, at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn large_answers_of_many_stores_fit_into_memory() {
    const STORES: i64 = 16;
    let row = format!(r#"{{"id":1,"text":"{}"}}"#, "x".repeat(100_000));
    for (what, data) in [("numbers", "0,".repeat(4_000_000) + "0"), ("rows", vec![row; 80].join(","))] {
        let mut site = Site::new(Engine::Sqlite, (1..=STORES).map(|store| shop(store, 0, 1))).await;
        site.set("RECONCILE__CONCURRENCY", "16");
        site.set("SALLA__REQUEST_TIMEOUT", "30s");
        let body = format!(r#"{{"status":200,"success":true,"data":[{data}]}}"#);
        assert!((7 << 20..8 << 20).contains(&body.len()), "{}", body.len());
        let headers = vec![("content-type", "application/json".to_owned())];
        for store in 1..=STORES {
            let answer = Fault::Answer { status: 200, headers: headers.clone(), body: body.clone() };
            site.salla.world().always.insert(store, answer);
        }
        let daemon = site.serve().await;
        let before = daemon.peak_memory();
        for store in 1..=STORES {
            daemon.post("/runs", &format!(r#"{{"merchant_id":{store}}}"#)).await;
        }
        for store in 1..=STORES {
            let asked = async || site.salla.world().requests_for(store) >= 2;
            until("each store was asked twice", asked).await;
        }
        let grown = (daemon.peak_memory() - before) >> 20;
        assert!(grown < 150, "{what}: {grown} MiB");
    }
}
