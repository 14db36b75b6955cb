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

/// README, "A webhook writes while we write". The consumer inserts and updates as fast as it can, always a little newer
/// than what the run has read. The database itself keeps the books: no row goes back in time, and the runs' totals are
/// what it did.
async fn a_webhook_writes_while_we_write(engine: Engine) {
    let mut site = Site::unregistered(engine, [shop(1001, 0, 60)]).await;
    site.run(&["migrate", "up"]).await.exits(0);
    site.register(1001).await;
    keep_books(&site).await;
    site.set("RECONCILE__PAGE_SIZE", "10");
    site.salla.world().always.insert(1001, Fault::Hang(Duration::from_millis(20)));
    let done = AtomicBool::new(false);
    let consumer = async {
        let mut writes = 0u32;
        while !done.load(Ordering::Relaxed) {
            let order = {
                let mut world = site.salla.world();
                let shop = world.shop(1001);
                let id = if writes.is_multiple_of(4) {
                    shop.place(Utc::now())
                } else {
                    let id = shop.any_id().unwrap();
                    shop.touch(id, Utc::now());
                    id
                };
                shop.orders.iter().find(|order| order.id == id).cloned().unwrap()
            };
            site.consume(1001, &order).await;
            writes += 1;
            // A store of some size stays one; without this the runs would have no end.
            if writes > 400 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        writes
    };
    let runs = async {
        let (mut created, mut updated) = (0, 0);
        for _ in 0..6 {
            let run = site.reconcile(1001, &[]).await;
            // A list that changes faster than it is read may be given up; it may not lie.
            let kind = run["error"]["kind"].as_str();
            assert!(run["status"] == "succeeded" || kind == Some("listing_unstable"), "{run}");
            let totals = totals(&run);
            created += totals[1];
            updated += totals[2];
        }
        done.store(true, Ordering::Relaxed);
        (created, updated)
    };
    let (writes, (mut created, mut updated)) = tokio::join!(consumer, runs);
    assert!(writes > 50, "the consumer hardly wrote: {writes}");
    site.salla.world().always.clear();
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    created += totals(&run)[1];
    updated += totals(&run)[2];
    site.assert_equal(1001).await;

    let counted = |sql: &'static str| site.database.number(sql);
    assert_eq!(counted("SELECT count(*) FROM books WHERE later < earlier").await, 0, "a row went back in time");
    assert_eq!(counted("SELECT count(*) FROM books WHERE ours AND earlier IS NULL").await, created.cast_signed());
    // A record that a run meets again is written again and counted once.
    let ours = counted("SELECT count(*) FROM books WHERE ours AND earlier IS NOT NULL").await;
    assert!(ours >= updated.cast_signed(), "{ours} updates of ours, and {updated} counted");
    assert!(counted("SELECT count(*) FROM books WHERE NOT ours").await > 0);
}

/// A trigger of the test's writes down each change: by whom, and from which version to which.
async fn keep_books(site: &Site) {
    let statements: &[&str] = if site.database.is_postgres() {
        &[
            "CREATE TABLE books (salla_order_id BIGINT, earlier TIMESTAMPTZ, later TIMESTAMPTZ, ours BOOLEAN)",
            "CREATE FUNCTION keep_books() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF TG_OP = 'INSERT' THEN \
             INSERT INTO books VALUES (NEW.salla_order_id, NULL, NEW.salla_updated_at, NEW.fingerprint IS NOT NULL); \
             ELSE INSERT INTO books VALUES (NEW.salla_order_id, OLD.salla_updated_at, NEW.salla_updated_at, \
             NEW.revision <> OLD.revision); END IF; RETURN NULL; END $$",
            "CREATE TRIGGER keep_books AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION keep_books()",
        ]
    } else {
        &[
            "CREATE TABLE books (salla_order_id BIGINT, earlier REAL, later REAL, ours BOOLEAN)",
            "CREATE TRIGGER keep_books_of_new AFTER INSERT ON orders BEGIN INSERT INTO books VALUES \
             (NEW.salla_order_id, NULL, julianday(NEW.salla_updated_at), NEW.fingerprint IS NOT NULL); END",
            "CREATE TRIGGER keep_books_of_changes AFTER UPDATE ON orders BEGIN INSERT INTO books VALUES \
             (NEW.salla_order_id, julianday(OLD.salla_updated_at), julianday(NEW.salla_updated_at), \
             NEW.revision <> OLD.revision); END",
        ]
    };
    for sql in statements {
        site.database.execute(sql, []).await;
    }
}
