//! How long one order takes from Salla's JSON to ours: `cargo bench --bench transform`.
//!
//! The specification allows a millisecond.

use std::hint::black_box;

use chrono::{TimeDelta, Utc};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use salla_reconciler::{
    domain::{Fingerprint, Order, Record},
    salla::Offered,
    simulator::Shop,
};
use serde_json::value::RawValue;

fn rows(count: usize) -> Vec<Box<RawValue>> {
    let shop = Shop::seeded(1001, count, Utc::now() - TimeDelta::days(1));
    let texts = shop.orders.iter().map(|order| order.json().to_string());
    texts.filter_map(|text| RawValue::from_string(text).ok()).collect()
}

/// What an order that is new costs.
fn hashed(row: &RawValue) -> Option<Fingerprint> {
    Order::transform(row).ok()?.hash().ok()
}

fn transform(criterion: &mut Criterion) {
    let rows = rows(60);
    let bytes: u64 = rows.iter().map(|row| row.get().len() as u64).sum();
    let mut group = criterion.benchmark_group("transform");
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function("a page of 60 orders", |bencher| {
        bencher.iter(|| rows.iter().filter_map(|row| hashed(black_box(row))).count());
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("one order", |bencher| bencher.iter(|| hashed(black_box(&rows[0]))));
    group.bench_function("one fingerprint", |bencher| bencher.iter(|| Fingerprint::of_json(black_box(rows[0].get()))));
    group.finish();
}

criterion_group!(benches, transform);
criterion_main!(benches);
