//! What a CDC pipeline sees: the publication, and events that wait for its replication slot.

use std::{collections::BTreeSet, time::Duration};

use axum::http::StatusCode;
use chrono::Utc;
use nix::sys::signal::Signal;
use salla_reconciler::store;
use tokio::time::sleep;

use crate::{
    events::{metric, told},
    support::{
        Engine, Site,
        cluster::PASSWORD,
        database::TestDatabase,
        receiver::{Answer, Receiver},
        server::{Server, Stop},
        site::shop,
        until,
    },
};

on_every_postgres!(
    a_subscriber_is_equal_when_it_is_told,
    a_missing_slot_is_reported,
    a_position_of_another_server,
    a_removed_event_does_not_block_the_next,
    records_wait_for_the_slot,
    a_night_without_changes,
    the_database_restarts_while_events_are_delivered,
    the_publication_is_kept,
    a_publication_that_shows_too_much,
    the_tables_of_others_stay_published,
);

/// What somebody reads of the orders, by the columns that other programs know.
async fn held(database: &TestDatabase) -> Vec<String> {
    let sql = "SELECT CAST(o AS text) AS row FROM orders o ORDER BY merchant_id, salla_order_id";
    database.rows(sql).await.iter().map(|row| row.try_get("", "row").unwrap()).collect()
}

async fn a_subscriber_is_equal_when_it_is_told(engine: Engine) {
    let (server, other) = (Server::start(engine.major()).await, Server::start(engine.major()).await);
    let mut site = Site::on(engine, server.url(), [shop(1001, 0, 40), shop(1002, 0, 30)]).await;
    let receiver = Receiver::start().await;
    told(&mut site, &receiver);
    site.set("CDC__PUBLICATION", "warehouse");
    site.set("CDC__SLOT", "warehouse");
    site.run(&["migrate", "up"]).await.exits(0);
    // The same tables elsewhere, and a real subscriber that fills them.
    let copy = Site::on(engine, other.url(), []).await;
    copy.run(&["migrate", "up"]).await.exits(0);
    let connection = format!("host=127.0.0.1 port={} user=tester password={} dbname=postgres", server.port, PASSWORD);
    let subscribe = format!(
        "CREATE SUBSCRIPTION warehouse CONNECTION '{connection}' PUBLICATION warehouse WITH (slot_name = 'warehouse')"
    );
    sea_orm::ConnectionTrait::execute_unprepared(&copy.database.db, &subscribe).await.unwrap();
    until("the tables are copied", async || {
        copy.database.number("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'").await == 0
    })
    .await;

    let mut daemon = site.serve().await;
    for merchant in [1001, 1002] {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{merchant}}}"#)).await;
    }
    until("both events are delivered", async || receiver.taken().len() == 2).await;
    let orders = held(&site.database).await;
    assert_eq!(orders.len(), 70);
    assert_eq!(held(&copy.database).await, orders);

    // The subscriber stops reading: nothing is told, and the lag shows.
    copy.database.execute("ALTER SUBSCRIPTION warehouse DISABLE", []).await;
    until("it has stopped", async || {
        site.database.number("SELECT count(*) FROM pg_replication_slots WHERE active").await == 0
    })
    .await;
    {
        let mut world = site.salla.world();
        let now = Utc::now();
        let id = world.shop(1001).orders[0].id;
        world.shop(1001).touch(id, now);
        world.shop(1001).place(now);
    }
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("merchant_id=1001", |run| run["totals"]["created"] == 1 && run["status"] == "succeeded").await;
    daemon.signal(Signal::SIGKILL);
    daemon.wait().await;
    let daemon = site.serve().await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(receiver.arrived().len(), 2, "it is not confirmed");
    assert_eq!(metric(&daemon, "events_pending").await, Some(1.0));
    assert!(metric(&daemon, "replication_slot_lag_bytes").await > Some(0.0));
    copy.database.execute("ALTER SUBSCRIPTION warehouse ENABLE", []).await;
    until("the event is delivered", async || receiver.taken().len() == 3).await;
    assert_eq!(held(&copy.database).await, held(&site.database).await);
    site.assert_equal(1001).await;
    assert_eq!(copy.database.number("SELECT count(*) FROM runs").await, 0, "runs are not published");
    copy.database.execute("ALTER SUBSCRIPTION warehouse DISABLE", []).await;
    copy.database.execute("ALTER SUBSCRIPTION warehouse SET (slot_name = NONE)", []).await;
    copy.database.execute("DROP SUBSCRIPTION warehouse", []).await;
}

async fn a_missing_slot_is_reported(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let mut site = Site::on(engine, server.url(), [shop(1001, 0, 2)]).await;
    let receiver = Receiver::start().await;
    told(&mut site, &receiver);
    site.set("CDC__SLOT", "late");
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["status"] == "succeeded").await;
    let line = daemon.await_line(|line| line["level"] == "ERROR").await;
    assert!(line["message"].as_str().unwrap().contains("cdc.slot: no slot has this name"), "{line}");
    sleep(Duration::from_secs(3)).await;
    assert!(receiver.arrived().is_empty());
    assert_eq!(metric(&daemon, "replication_slot_lag_bytes").await, None);
    // A slot that begins behind the run: nothing of it is to be confirmed any more.
    site.database.rows("SELECT pg_create_logical_replication_slot('late', 'pgoutput')::text").await;
    until("the event is delivered", async || receiver.taken().len() == 1).await;
    site.database.rows("SELECT pg_drop_replication_slot('late')::text").await;
}

async fn the_database_restarts_while_events_are_delivered(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let shops: Vec<_> = (1001..=1012).map(|merchant| shop(merchant, 0, 2)).collect();
    let mut site = Site::on(engine, server.url(), shops).await;
    let receiver = Receiver::start().await;
    told(&mut site, &receiver);
    site.set("RECONCILE__LEASE", "2s");
    let daemon = site.serve().await;
    for stop in [Stop::Fast, Stop::Immediate] {
        let before = receiver.taken().len();
        for merchant in 1001..=1012 {
            daemon.post("/runs", &format!(r#"{{"merchant_id":{merchant}}}"#)).await;
        }
        until("some events are delivered", async || receiver.taken().len() > before).await;
        server.down(stop);
        sleep(Duration::from_secs(1)).await;
        server.up();
    }
    until("all have ended", async || {
        let left =
            "SELECT (SELECT count(*) FROM runs WHERE status IN ('queued', 'running')) + (SELECT count(*) FROM outbox)";
        site.database.db.ping().await.is_ok() && site.database.number(left).await == 0
    })
    .await;
    let told: BTreeSet<String> = receiver.taken().iter().map(|event| event.run_id()).collect();
    let ended = site.database.rows("SELECT CAST(id AS text) FROM runs WHERE status = 'succeeded'").await;
    let ended: BTreeSet<String> = ended.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
    assert_eq!(told, ended);
}

/// The number of changes that the consumer of a publication would read since the last call.
async fn changes(site: &Site) -> i64 {
    site.database
        .number(
            "SELECT count(*) FROM pg_logical_slot_get_binary_changes('probe', NULL, NULL, \
             'proto_version', '1', 'publication_names', 'warehouse')",
        )
        .await
}

async fn a_night_without_changes(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let mut site = Site::on(engine, server.url(), [shop(1001, 0, 20), shop(1002, 0, 20)]).await;
    let receiver = Receiver::start().await;
    told(&mut site, &receiver);
    site.set("CDC__PUBLICATION", "warehouse");
    site.run(&["migrate", "up"]).await.exits(0);
    site.database.rows("SELECT pg_create_logical_replication_slot('probe', 'pgoutput')::text").await;
    for merchant in [1001, 1002] {
        site.reconcile(merchant, &[]).await;
    }
    assert!(changes(&site).await >= 40, "each order is a change");
    let daemon = site.serve().await;
    for merchant in [1001, 1002] {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{merchant},"full":true}}"#)).await;
    }
    until("all events are delivered", async || receiver.taken().len() == 4).await;
    let fetched: i64 =
        receiver.taken()[2..].iter().map(|event| event.body["data"]["totals"]["unchanged"].as_i64().unwrap()).sum();
    assert_eq!(fetched, 40);
    assert_eq!(changes(&site).await, 0);
    site.database.rows("SELECT pg_drop_replication_slot('probe')::text").await;
}

async fn published(database: &TestDatabase, name: &str) -> Vec<String> {
    let sql = format!("SELECT CAST(tablename AS text) FROM pg_publication_tables WHERE pubname = '{name}' ORDER BY 1");
    database.rows(&sql).await.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

fn business_tables() -> Vec<&'static str> {
    let mut tables = store::published();
    tables.sort_unstable();
    tables
}

async fn the_publication_is_kept(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 1)]).await;
    let name = r#"ware "house""#;
    site.set("CDC__PUBLICATION", name);
    site.set("DATABASE__MIGRATE", "false");
    let refused = site.run(&["run"]).await.exits(1);
    let lacks = format!("lacks {}; run `salla-reconciler migrate up`", store::published().join(", "));
    assert!(refused.stderr.contains(&lacks), "{}", refused.stderr);
    // Many at the same moment.
    let all = futures::future::join_all((0..6).map(|_| site.run(&["migrate", "up"]))).await;
    for output in all {
        output.exits(0);
    }
    assert_eq!(published(&site.database, name).await, business_tables());
    site.run(&["run"]).await.exits(0);
    // A table that was taken out comes back.
    site.database.execute(r#"ALTER PUBLICATION "ware ""house""" DROP TABLE orders"#, []).await;
    site.run(&["run"]).await.exits(1);
    site.set("DATABASE__MIGRATE", "true");
    site.run(&["run"]).await.exits(0);
    assert_eq!(published(&site.database, name).await, business_tables());
    // A table that is new must be put in one of the lists.
    let tables = "SELECT CAST(tablename AS text) FROM pg_tables WHERE schemaname = 'salla' ORDER BY 1";
    let tables: Vec<String> =
        site.database.rows(tables).await.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
    let mut known: Vec<&str> = business_tables().into_iter().chain(store::unpublished()).collect();
    known.sort_unstable();
    assert_eq!(tables, known);
}

async fn a_publication_that_shows_too_much(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 1)]).await;
    site.set("CDC__PUBLICATION", "everything");
    for (made, table) in [
        ("CREATE PUBLICATION everything FOR ALL TABLES", "merchants"),
        ("CREATE PUBLICATION everything FOR TABLES IN SCHEMA salla", "merchants"),
        ("CREATE PUBLICATION everything FOR TABLE orders, credentials", "credentials"),
        ("CREATE PUBLICATION everything FOR TABLE runs", "runs"),
    ] {
        site.database.execute(made, []).await;
        for args in [&["migrate", "up"][..], &["run"]] {
            let refused = site.run(args).await.exits(1);
            assert!(refused.stderr.contains(&format!(r#""everything" publishes {table}"#)), "{}", refused.stderr);
        }
        site.database.execute("DROP PUBLICATION everything", []).await;
    }
}

async fn the_tables_of_others_stay_published(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 1)]).await;
    site.database.execute("CREATE TABLE carts (id bigint PRIMARY KEY)", []).await;
    site.database.execute("CREATE PUBLICATION shared FOR TABLE carts", []).await;
    site.set("CDC__PUBLICATION", "shared");
    site.run(&["migrate", "up"]).await.exits(0);
    let mut together = business_tables();
    together.insert(0, "carts");
    assert_eq!(published(&site.database, "shared").await, together);
}

/// A slot that is made of nothing but the past: its consumer has read up to here.
async fn slot(site: &Site, name: &str) {
    site.database.rows(&format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')::text")).await;
}

/// Waits until the store's turn has a position of this server's.
async fn placed(site: &Site) {
    until("the event has a position", async || {
        site.database.number("SELECT count(*) FROM outbox_delivery_state WHERE lsn < 'FE/0'").await == 1
    })
    .await;
}

async fn drop_slot(site: &Site, name: &str) {
    site.database.rows(&format!("SELECT pg_drop_replication_slot('{name}')::text")).await;
}

/// Restored from a dump of a server whose log was much longer.
async fn a_position_of_another_server(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let mut site = Site::on(engine, server.url(), [shop(1001, 0, 2)]).await;
    let receiver = Receiver::start().await;
    told(&mut site, &receiver);
    site.set("CDC__SLOT", "moved");
    site.reconcile(1001, &[]).await;
    site.database.execute("UPDATE outbox_delivery_state SET lsn = 'FF/0'", []).await;
    let _daemon = site.serve().await;
    placed(&site).await;
    slot(&site, "moved").await;
    until("the event is delivered", async || receiver.taken().len() == 1).await;
    drop_slot(&site, "moved").await;
}

/// All events that the consumer has confirmed are delivered without a further confirmation, and later ones wait.
async fn records_wait_for_the_slot(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let mut site = Site::on(engine, server.url(), [shop(1001, 0, 250)]).await;
    let receiver = Receiver::start().await;
    told(&mut site, &receiver);
    site.set("CDC__EVENTS", "record");
    site.set("CDC__SLOT", "stands");
    site.run(&["migrate", "up"]).await.exits(0);
    slot(&site, "stands").await;
    site.reconcile(1001, &[]).await;
    let daemon = site.serve().await;
    placed(&site).await;
    sleep(Duration::from_secs(2)).await;
    assert!(receiver.arrived().is_empty(), "delivered before it was confirmed");
    let advance = "SELECT pg_replication_slot_advance('stands', pg_current_wal_lsn())::text";
    site.database.rows(advance).await;
    until("the events are delivered", async || receiver.taken().len() == 251).await;

    site.salla.world().shop(1001).place(Utc::now());
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["trigger"] == "http" && run["status"] == "succeeded").await;
    placed(&site).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(receiver.arrived().len(), 251, "delivered before it was confirmed");
    // The event of the run may have a position behind the one of the record.
    until("the events are delivered", async || {
        site.database.rows(advance).await;
        receiver.taken().len() == 253
    })
    .await;
    drop_slot(&site, "stands").await;
}

/// As the runbook has it: the event is gone, and the next one has its own position.
async fn a_removed_event_does_not_block_the_next(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let mut site = Site::on(engine, server.url(), [shop(1001, 0, 2)]).await;
    let receiver = Receiver::start().await;
    told(&mut site, &receiver);
    site.set("CDC__SLOT", "stands");
    receiver.answer_by(|_| Answer::Status(StatusCode::BAD_REQUEST));
    site.reconcile(1001, &[]).await;
    let daemon = site.serve().await;
    placed(&site).await;
    slot(&site, "stands").await;
    until("it is refused", async || receiver.arrived().len() == 1).await;
    receiver.answer_by(|_| Answer::Status(StatusCode::OK));
    // The slot has no consumer: later changes are not confirmed.
    daemon.post("/runs", r#"{"merchant_id":1001,"full":true}"#).await;
    let run = daemon.await_run("", |run| run["trigger"] == "http" && run["status"] == "succeeded").await;
    let sql = "WITH gone AS (DELETE FROM outbox WHERE id = (SELECT min(id) FROM outbox) RETURNING merchant_id) \
               UPDATE outbox_delivery_state SET lsn = NULL, attempts = 0, next_attempt_at = now() \
               WHERE merchant_id IN (SELECT merchant_id FROM gone)";
    site.database.execute(sql, []).await;
    sleep(Duration::from_secs(3)).await;
    assert!(receiver.taken().is_empty(), "delivered before it was confirmed");
    site.database.rows("SELECT pg_replication_slot_advance('stands', pg_current_wal_lsn())::text").await;
    until("the event is delivered", async || receiver.taken().len() == 1).await;
    assert_eq!(receiver.taken()[0].run_id(), run["run_id"].as_str().unwrap());
    drop_slot(&site, "stands").await;
}
