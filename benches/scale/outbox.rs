//! The outbox of a platform whose receiver has been away for ten nights.

use std::time::Duration;

use salla_reconciler::{
    domain::EventDetail,
    reconcile::ports::{Outbox, RunHistory},
    store::{EventSettings, Store},
};

use crate::{
    database::Bench,
    queue::{READ, times},
    table::Table,
};

const NIGHTS: u32 = 10;

/// Of what a relay does with up to sixteen events.
const ROUND: Duration = Duration::from_millis(100);

/// As many as a relay takes at once.
const AT_ONCE: u32 = 16;

/// Events of runs, without a slot.
pub const EVENTS: EventSettings = EventSettings { scope: EventDetail::Run, skip_unchanged: false, slot: None };

/// Takes some of it, delivered and not.
pub async fn after_ten_nights(bench: &Bench, merchants: u64, table: &mut Table) {
    let run = "'{\"run_id\":\"01a21c7c-8c3f-7184-9480-c45b107592d7\",\"finished_at\":\"2026-11-26T23:00:00Z\"}'";
    bench
        .execute(&format!(
            "INSERT INTO outbox (merchant_id, event_id, run_id, type, subject, data) \
             SELECT g, gen_random_uuid(), gen_random_uuid(), 'run.succeeded', 'merchants/' || g, {run} \
             FROM generate_series(1, {NIGHTS}) night, generate_series(1, {merchants}) g"
        ))
        .await;
    bench
        .execute(
            "INSERT INTO outbox_delivery_state (merchant_id, next_attempt_at) SELECT merchant_id, now() + interval '1 hour' FROM merchants",
        )
        .await;
    let store = bench.store().await.with_events(EVENTS);
    let took = times(50, || async { assert!(store.take(AT_ONCE).await.unwrap().is_empty()) }).await;
    table.times("the outbox, all of it put off", took, ROUND);
    bench.execute("UPDATE outbox_delivery_state SET next_attempt_at = now()").await;
    let took = times(200, || deliver(&store)).await;
    table.times("16 events are taken and done with", took, ROUND);
    let took = times(20, || async { drop(store.gauges().await.unwrap()) }).await;
    table.times("the gauges, ten nights of events waiting", took, READ);
}

/// The work of a relay between its requests.
pub async fn deliver(store: &Store) {
    let taken = store.take(AT_ONCE).await.unwrap();
    assert!(!taken.is_empty());
    let (last, others) = taken.split_last().unwrap();
    store.delivered(others).await.unwrap();
    store.reschedule(last, Duration::from_secs(600)).await.unwrap();
}
