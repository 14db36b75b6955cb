//! Another program writes the same rows at the same time.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use chrono::Utc;
use salla_reconciler::simulator::Fault;

use crate::support::{
    Engine, Site,
    site::{shop, totals},
};

on_every_database!(a_webhook_writes_while_we_write);

/// The consumer is always a little newer than what the run has read; no row may go back in time.
async fn a_webhook_writes_while_we_write(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 60)]).await;
    site.set("RECONCILE__PAGE_SIZE", "10");
    site.salla.world().always.insert(1001, Fault::Hang(Duration::from_millis(20)));
    let done = AtomicBool::new(false);
    let consumer = async {
        let (mut writes, mut written) = (0u32, std::collections::HashMap::new());
        while !done.load(Ordering::Relaxed) {
            let order = {
                let mut world = site.salla.world();
                let shop = world.shop(1001);
                let id = shop.any_id().unwrap();
                shop.touch(id, Utc::now());
                shop.orders.iter().find(|order| order.id == id).cloned().unwrap()
            };
            // Whatever happened since we wrote it last: never back in time.
            assert!(version(&site, order.id).await >= written.get(&order.id).copied(), "order {} went back", order.id);
            site.consume(1001, &order).await;
            written.insert(order.id, order.updated_at);
            writes += 1;
        }
        writes
    };
    let runs = async {
        for _ in 0..6 {
            let run = site.reconcile(1001, &[]).await;
            assert_eq!(run["status"], "succeeded", "{run}");
            totals(&run);
        }
        done.store(true, Ordering::Relaxed);
    };
    let (writes, ()) = tokio::join!(consumer, runs);
    assert!(writes > 10, "the consumer hardly wrote: {writes}");
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    site.assert_equal(1001).await;
}

async fn version(site: &Site, id: i64) -> Option<chrono::DateTime<Utc>> {
    let rows = site.database.rows(&format!("SELECT salla_updated_at FROM orders WHERE salla_order_id = {id}")).await;
    rows.first().map(|row| row.try_get("", "salla_updated_at").unwrap())
}
