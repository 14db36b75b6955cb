//! The processor time of a page of orders, beside the least work that can be done with it. One process measures both by
//! turns, so that a noisy machine disturbs both: `cargo bench --locked --bench transform`. Exits with 1 when the page
//! costs too much.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark that cannot go on may panic")]

use std::{hint::black_box, process::ExitCode, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use salla_reconciler::{
    domain::{Decision, Order, PayloadHash, Record, StoredRecord, assess},
    salla::{ApiResource, Envelope},
    simulator::Shop,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

const ORDERS: usize = 60;

/// How often each is measured, a few milliseconds at most. The least counts.
const ROUNDS: usize = 300;

/// The least that is read of a page: the id of each order, and its version.
#[derive(Deserialize)]
struct Least<'a> {
    #[serde(borrow)]
    data: Vec<Key<'a>>,
}

#[derive(Deserialize)]
struct Key<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    updated_at: &'a RawValue,
}

/// The work on a page: its name, its limit as a multiple of the least, and the function.
type Work<'a> = (&'static str, f64, Box<dyn Fn() -> usize + 'a>);

/// Finds the stored record of the order at a place.
type Lookup = fn(&[StoredRecord<Order>], usize) -> Option<&StoredRecord<Order>>;

fn page() -> Bytes {
    let shop = Shop::seeded(1001, ORDERS, Utc::now() - TimeDelta::days(1));
    let rows: Vec<String> = shop.orders.iter().map(|order| order.json().to_string()).collect();
    format!(r#"{{"status":200,"success":true,"data":[{}],"pagination":{{"totalPages":1}}}}"#, rows.join(",")).into()
}

fn orders(page: &Bytes) -> Vec<Order> {
    let envelope = Envelope::read(page.clone()).unwrap();
    envelope.rows().unwrap().iter().map(|row| Order::transform(&row.text).unwrap()).collect()
}

/// As the database has it after the night before.
fn stored(order: &Order, updated_at: Option<DateTime<Utc>>) -> StoredRecord<Order> {
    StoredRecord {
        updated_at,
        content_hash: Some(order.content_hash()),
        payload_hash: Some(PayloadHash::of(order.content_hash(), order.payload())),
        deleted: false,
        columns: order.columns.clone(),
        items_version: None,
        known: None,
    }
}

fn best(work: &dyn Fn() -> usize, best: &mut Duration) {
    let began = Instant::now();
    assert_eq!(black_box(work()), ORDERS);
    *best = began.elapsed().min(*best);
}

fn main() -> ExitCode {
    let page = page();
    let known: Vec<StoredRecord<Order>> = orders(&page).iter().map(|order| stored(order, order.updated_at)).collect();
    let verdicts = |verdict: Decision, stored: Lookup| {
        let (page, known) = (&page, &known);
        move || {
            let orders = orders(page);
            let judged = orders.iter().enumerate().map(|(at, order)| assess(order, stored(known, at), None).unwrap());
            judged.filter(|judged| *judged == verdict).count()
        }
    };
    let text = String::from_utf8(page.to_vec()).unwrap();
    let least = || {
        let page: Least<'_> = serde_json::from_str(&text).unwrap();
        page.data.iter().filter(|key| !key.id.get().is_empty() && !key.updated_at.get().is_empty()).count()
    };
    let works: [Work<'_>; 2] = [
        ("unchanged", 6.0, Box::new(verdicts(Decision::Unchanged, |known, at| known.get(at)))),
        ("new", 12.0, Box::new(verdicts(Decision::Create, |_, _| None))),
    ];
    let mut least_took = Duration::MAX;
    let mut took = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        best(&least, &mut least_took);
        for ((_, _, work), took) in works.iter().zip(&mut took) {
            best(work, took);
        }
    }
    let mut kept = true;
    println!("a page of {ORDERS} orders, {} bytes: keys only: {least_took:.0?}", page.len());
    for ((name, limit, _), took) in works.iter().zip(took) {
        let ratio = took.as_secs_f64() / least_took.as_secs_f64();
        println!("{name}: {took:.0?}, {ratio:.1} times that; allowed: {limit}");
        kept &= ratio <= *limit;
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
