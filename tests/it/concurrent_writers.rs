//! Another program writes the same rows at the same time.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use chrono::Utc;
use salla_reconciler::simulator::Fault;

use crate::support::{
    Engine, Site,
    site::{everything, shop, totals},
    until,
};

on_every_database!(
    concurrent_webhooks_never_lose,
    an_order_that_is_deleted_while_it_is_read,
    a_row_that_a_trigger_suppresses_fails,
);

mod what_postgres_has {
    use super::{a_row_that_is_refused_at_the_end, columns_are_altered_under_a_daemon};

    on_every_postgres!(a_row_that_is_refused_at_the_end, columns_are_altered_under_a_daemon);
}

/// Failure modes, "Concurrent webhooks". The consumer inserts and updates as fast as it can, always a little newer
/// than what the run has read. The database itself keeps the books: no row goes back in time, and the runs' totals are
/// what it did.
async fn concurrent_webhooks_never_lose(engine: Engine) {
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
             INSERT INTO books VALUES (NEW.salla_order_id, NULL, NEW.salla_updated_at, NEW.content_hash IS NOT NULL); \
             ELSE INSERT INTO books VALUES (NEW.salla_order_id, OLD.salla_updated_at, NEW.salla_updated_at, \
             NEW.revision <> OLD.revision); END IF; RETURN NULL; END $$",
            "CREATE TRIGGER keep_books AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION keep_books()",
        ]
    } else {
        &[
            "CREATE TABLE books (salla_order_id BIGINT, earlier REAL, later REAL, ours BOOLEAN)",
            "CREATE TRIGGER keep_books_of_new AFTER INSERT ON orders BEGIN INSERT INTO books VALUES \
             (NEW.salla_order_id, NULL, julianday(NEW.salla_updated_at), NEW.content_hash IS NOT NULL); END",
            "CREATE TRIGGER keep_books_of_changes AFTER UPDATE ON orders BEGIN INSERT INTO books VALUES \
             (NEW.salla_order_id, julianday(OLD.salla_updated_at), julianday(NEW.salla_updated_at), \
             NEW.revision <> OLD.revision); END",
        ]
    };
    for sql in statements {
        site.database.execute(sql, []).await;
    }
}

/// Salla's answer is on its way; the order is deleted, and the consumer marks it. It stays marked.
async fn an_order_that_is_deleted_while_it_is_read(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 6)]).await;
    site.set("SALLA__LISTING", "scan");
    site.set("SALLA__REQUEST_TIMEOUT", "10s");
    site.salla.world().documented = true;
    site.reconcile(1001, &[]).await;
    let (gone, slow) = {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        let (gone, slow) = (shop.orders[1].id, shop.orders[4].id);
        shop.broken.insert(slow, Fault::Hang(Duration::from_secs(3)));
        (gone, slow)
    };
    let deleted = async {
        until("the slow order is asked for", async || {
            site.salla.world().seen.iter().any(|seen| seen.id == Some(gone))
                && site.salla.world().seen.iter().any(|seen| seen.id == Some(slow))
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        site.salla.world().shop(1001).delete(gone);
        let now = if site.database.is_postgres() {
            "clock_timestamp()"
        } else {
            "strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')"
        };
        let sql = format!("UPDATE orders SET deleted_at = {now} WHERE salla_order_id = $1");
        site.database.execute(&sql, [gone.into()]).await;
    };
    site.salla.world().seen.clear();
    let (run, ()) = tokio::join!(site.reconcile(1001, &["--full"]), deleted);
    assert_eq!(totals(&run), [6, 0, 0, 6, 0, 0], "nothing was wrong: {run}");
    let marked = format!("SELECT count(*) FROM orders WHERE deleted_at IS NOT NULL AND salla_order_id = {gone}");
    assert_eq!(site.database.number(&marked).await, 1, "it came back from the dead");
    site.assert_equal(1001).await;
}

/// A trigger of the platform lets a row vanish. This does not count as a success.
async fn a_row_that_a_trigger_suppresses_fails(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 5)]).await;
    let id = site.salla.world().shop(1001).orders[2].id;
    if site.database.is_postgres() {
        let function = "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$";
        site.database.execute(function, []).await;
        let trigger = format!(
            "CREATE TRIGGER swallow BEFORE INSERT ON orders FOR EACH ROW WHEN (NEW.salla_order_id = {id}) EXECUTE FUNCTION swallow()"
        );
        site.database.execute(&trigger, []).await;
    } else {
        let trigger = format!(
            "CREATE TRIGGER swallow BEFORE INSERT ON orders WHEN NEW.salla_order_id = {id} BEGIN SELECT RAISE(IGNORE); END"
        );
        site.database.execute(&trigger, []).await;
    }
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((run["status"].as_str(), totals(&run)), (Some("partial"), [5, 4, 0, 0, 0, 1]), "{run}");
    let reason = site.database.text("SELECT reason FROM discrepancies WHERE kind = 'failed'").await;
    assert!(reason.contains("did not store it"), "{reason}");
    let drop = if site.database.is_postgres() { "DROP TRIGGER swallow ON orders" } else { "DROP TRIGGER swallow" };
    site.database.execute(drop, []).await;
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    site.assert_equal(1001).await;
}

/// By a constraint that the platform has put off to the end of each transaction.
async fn a_row_that_is_refused_at_the_end(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 5)]).await;
    let odd = {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        shop.orders.iter_mut().for_each(|order| order.status = 0);
        shop.orders[3].status = 5;
        shop.orders[3].slug()
    };
    for sql in [
        "CREATE TABLE statuses (slug text PRIMARY KEY)",
        "INSERT INTO statuses VALUES ('payment_pending')",
        "ALTER TABLE orders ADD CONSTRAINT known FOREIGN KEY (status) REFERENCES statuses DEFERRABLE INITIALLY DEFERRED",
    ] {
        site.database.execute(sql, []).await;
    }
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((run["status"].as_str(), totals(&run)), (Some("partial"), [5, 4, 0, 0, 0, 1]), "{run}");
    site.database.execute("INSERT INTO statuses VALUES ($1)", [odd.into()]).await;
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    site.assert_equal(1001).await;
}

/// The platform's own migration changes the type of a column of each table, while the daemon holds prepared statements.
async fn columns_are_altered_under_a_daemon(engine: Engine) {
    let mut site = Site::new(engine, [everything(1001, 4, 3)]).await;
    site.set("RECONCILE__RESOURCES", "orders,products,customers,order_statuses");
    let daemon = site.serve().await;
    let look = async || {
        for path in ["/runs", "/merchants", "/report", "/audit", "/metrics", "/readyz"] {
            assert_eq!(daemon.get(path).await.0, 200, "{path}");
        }
    };
    let run = async || {
        let (status, run) = daemon.post("/runs", r#"{"merchant_id":1001,"full":true}"#).await;
        assert_eq!(status, 202, "{run}");
        let id = run["run_id"].clone();
        let ended = daemon.await_run("", |run| run["run_id"] == id && run["finished_at"].is_string()).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        look().await;
    };
    run().await;
    let texts = "SELECT format('ALTER TABLE %I ALTER COLUMN %I TYPE varchar(4000)', table_name, column_name) AS alter \
                 FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name) \
                 WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' AND data_type IN ('text', 'character varying') \
                 AND table_name <> 'salla_reconciler_migrations' \
                 AND NOT EXISTS (SELECT 1 FROM pg_depend WHERE classid = 'pg_trigger'::regclass \
                     AND refobjid = format('%I', table_name)::regclass AND refobjsubid = ordinal_position) ORDER BY 1";
    let alters = site.database.rows(texts).await;
    assert!(alters.len() > 20, "{} columns", alters.len());
    for alter in alters {
        site.database.execute(&alter.try_get::<String>("", "alter").unwrap(), []).await;
    }
    site.salla.world().shop(1001).place(Utc::now());
    run().await;
    for action in ["pause", "resume"] {
        assert_eq!(daemon.post(&format!("/merchants/1001/{action}"), "").await.0, 200, "{action}");
    }
    run().await;
    site.assert_equal(1001).await;
}
