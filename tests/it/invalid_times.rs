//! Values in columns of instants that no program can compute with. The schema refuses them; where one stands all the same,
//! it costs its own merchant at most.

use chrono::{TimeDelta, Utc};
use nix::sys::signal::Signal;
use sea_orm::ConnectionTrait;

use crate::support::{
    Engine, Site,
    kind::Kind,
    site::{everything, shop, totals},
};

on_every_database!(
    the_schema_rejects_invalid_timestamps,
    an_invalid_time_affects_one_merchant,
    an_unreadable_updated_at_is_overwritten,
    a_watermark_ahead_of_the_clock_is_ignored,
    another_type_in_a_column_is_corrected,
);

/// Tables, and columns with instants.
const INSTANTS: [(&str, &str); 13] = [
    ("watermarks", "watermark"),
    ("watermarks", "rotation_cursor"),
    ("merchants", "created_at"),
    ("credentials", "expires_at"),
    ("credentials", "issued_at"),
    ("runs", "window_since"),
    ("runs", "started_at"),
    ("runs", "finished_at"),
    ("runs", "queued_at"),
    ("rate_limit_backoffs", "retry_at"),
    ("sweeps", "scheduled_for"),
    ("discrepancies", "found_at"),
    ("audit", "at"),
];

fn odd_instants(site: &Site) -> &'static [&'static str] {
    if site.database.is_postgres() { &["infinity", "-infinity", "290000-01-01"] } else { &["soon", "2460000"] }
}

async fn allow(site: &Site, table: &str) {
    let sqls = if site.database.is_postgres() {
        vec![format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_instants")]
    } else {
        ["insert", "update"].map(|on| format!("DROP TRIGGER IF EXISTS {table}_instants_{on}")).to_vec()
    };
    for sql in sqls {
        site.database.execute(&sql, []).await;
    }
}

async fn the_schema_rejects_invalid_timestamps(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 1)]).await;
    site.reconcile(1001, &[]).await;
    for odd in odd_instants(&site) {
        for (table, column) in [("watermarks", "watermark"), ("runs", "queued_at"), ("merchants", "created_at")] {
            let sql = format!("UPDATE {table} SET {column} = '{odd}'");
            assert!(site.database.db.execute_unprepared(&sql).await.is_err(), "{sql}");
        }
    }
}

async fn an_invalid_time_affects_one_merchant(engine: Engine) {
    let site = Site::new(engine, (1001..=1003).map(|id| shop(id, 0, 2))).await;
    site.run(&["run"]).await.exits(0);
    let ends_at = Utc::now() - TimeDelta::minutes(1);
    site.database
        .execute("INSERT INTO rate_limit_backoffs (merchant_id, retry_at) VALUES (1001, $1)", [ends_at.into()])
        .await;
    for (table, column) in INSTANTS {
        allow(&site, table).await;
        let odd = odd_instants(&site)[0];
        let of_one = if table == "sweeps" { String::new() } else { " WHERE merchant_id = 1001".to_owned() };
        site.database.execute(&format!("UPDATE {table} SET {column} = '{odd}'{of_one}"), []).await;
    }
    let mut daemon = site.serve().await;
    for id in 1001..=1003 {
        assert_eq!(daemon.post("/runs", &format!(r#"{{"merchant_id":{id}}}"#)).await.0, 202);
    }
    for id in [1002, 1003] {
        let query = format!("merchant_id={id}&limit=1");
        daemon.await_run(&query, |run| run["trigger"] == "http" && run["status"] == "succeeded").await;
    }
    daemon.await_run("merchant_id=1001&limit=1", |run| run["trigger"] == "http" && !run["finished_at"].is_null()).await;
    for path in [
        "/healthz",
        "/readyz",
        "/runs",
        "/merchants",
        "/metrics",
        "/audit",
        "/",
        "/dashboard/merchants",
        "/dashboard/merchants/1001",
    ] {
        assert_eq!(daemon.get(path).await.0, 200, "{path}");
    }
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().await, Some(0));
    // The same in the foreground.
    let output = site.run(&["run", "--json"]).await;
    let succeeded = output.objects().iter().filter(|run| run["status"] == "succeeded").count();
    assert!(succeeded >= 2, "{output:?}");
}

/// Another program wrote it. The run covers what changed since the store was registered, and replaces it.
async fn a_watermark_ahead_of_the_clock_is_ignored(engine: Engine) {
    for ahead in [TimeDelta::hours(3), TimeDelta::days(26_000)] {
        let site = Site::new(engine, [shop(1001, 0, 1)]).await;
        site.reconcile(1001, &[]).await;
        let registered = Utc::now() - TimeDelta::days(60);
        site.database.execute("UPDATE merchants SET created_at = $1", [registered.into()]).await;
        site.salla.world().shop(1001).place(Utc::now() - TimeDelta::days(4));
        site.database.execute("UPDATE watermarks SET watermark = $1", [(Utc::now() + ahead).into()]).await;
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(totals(&run), [2, 1, 0, 1, 0, 0], "{ahead}: {run}");
        site.assert_equal(1001).await;
        let soon = Utc::now() + TimeDelta::minutes(1);
        let left = site.database.number_of("SELECT count(*) FROM watermarks WHERE watermark > $1", [soon.into()]).await;
        assert_eq!(left, 0, "{ahead}");
    }
}

async fn an_unreadable_updated_at_is_overwritten(engine: Engine) {
    of_every_kind!(stored_time_beyond(engine));
}

async fn stored_time_beyond<K: Kind>(engine: Engine) {
    let mut site = Site::new(engine, [everything(1001, 3, 3)]).await;
    site.set("RECONCILE__RESOURCES", K::RESOURCE.as_str());
    site.set("SALLA__CUSTOMER_REQUESTS_PER_10_MINUTES", "1000000");
    site.reconcile(1001, &["--full"]).await;
    let odd = if site.database.is_postgres() {
        &["290000-01-01", "4000-01-01 BC", "infinity"][..]
    } else {
        &["290000-01-01T00:00:00Z", "8640000000000000", "2460000", "soon"]
    };
    for odd in odd {
        let one = format!("(SELECT min({id}) FROM {table})", id = K::ID, table = K::TABLE);
        let sql = format!(
            "UPDATE {table} SET salla_updated_at = '{odd}', {word} = 'x' WHERE {id} = {one}",
            table = K::TABLE,
            word = K::WORD,
            id = K::ID
        );
        site.database.execute(&sql, []).await;
        let run = site.reconcile(1001, &["--full"]).await;
        assert_eq!(run["status"], "succeeded", "{} {odd}: {run}", K::TABLE);
        assert_eq!(totals(&run)[2], 1, "{} {odd}: {run}", K::TABLE);
        site.assert_equal_of::<K>(1001).await;
    }
}

/// SQLite lets any program write any type into any column.
async fn another_type_in_a_column_is_corrected(engine: Engine) {
    if engine != Engine::Sqlite {
        return;
    }
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.reconcile(1001, &[]).await;
    for odd in ["reference_id = 'abc'", "status = x'00ff'", "salla_created_at = 5"] {
        let sql = format!("UPDATE orders SET {odd} WHERE salla_order_id = (SELECT min(salla_order_id) FROM orders)");
        site.database.execute(&sql, []).await;
        let run = site.reconcile(1001, &["--full"]).await;
        assert_eq!((run["status"].as_str(), totals(&run)[2]), (Some("succeeded"), 1), "{odd}: {run}");
        site.assert_equal(1001).await;
    }
}
