//! The schema of our own on PostgreSQL: its objects, its comments, and the rights that it needs.

use sea_orm::ConnectionTrait;

use crate::support::{Engine, Site, site::shop};

on_every_database!(@ postgres:
    nothing_is_created_outside_the_schema,
    every_table_and_column_has_a_comment,
    the_printed_grants_are_enough_and_each_is_checked,
);

/// The platform has tables of the same names in `public`.
async fn nothing_is_created_outside_the_schema(engine: Engine) {
    let mut site = Site::unregistered(engine, [shop(1001, 0, 3)]).await;
    site.database.execute("CREATE TABLE orders (number bigint)", []).await;
    let of = |schema: &str| format!("SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('{schema}')");
    let before = site.database.number(&of("public")).await;
    for schema in ["salla", "Re \"conciler"] {
        site.set("DATABASE__SCHEMA", schema);
        site.run(&["migrate", "up"]).await.exits(0);
        let check = site.run(&["check"]).await.stdout;
        assert!(check.contains(&format!("schema {schema},")) && check.contains("this version's"), "{check}");
        site.register_all().await;
        assert_eq!(site.reconcile(1001, &["--full"]).await["status"], "succeeded");
        let quoted = schema.replace('"', "\"\"");
        let stored = format!("SELECT count(*) FROM \"{quoted}\".orders");
        assert_eq!(site.database.number(&stored).await, 3, "{schema}");
        assert_eq!(site.database.number(&of("public")).await, before, "{schema}");
    }
    for reserved in ["", " ", "a\nb", "pg_own", "information_schema", "$user"] {
        site.set("DATABASE__SCHEMA", reserved);
        let refused = site.run(&["migrate", "up"]).await.exits(78).stderr;
        assert!(refused.contains("database.schema"), "{refused}");
    }
}

async fn every_table_and_column_has_a_comment(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    site.run(&["migrate", "up"]).await.exits(0);
    let silent = "SELECT COALESCE(string_agg(c.relname || '.' || COALESCE(a.attname, ''), ' '), '') \
                  FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 \
                  WHERE c.relnamespace = to_regnamespace('salla') AND c.relkind = 'r' \
                  AND c.relname <> 'salla_reconciler_migrations' \
                  AND (obj_description(c.oid) IS NULL OR col_description(c.oid, a.attnum) IS NULL)";
    assert_eq!(site.database.text(silent).await, "");
    let always = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%clear_stale_content_hash' AND tgenabled = 'A'";
    assert_eq!(site.database.number(always).await, 4, "replication skips a trigger");
}

/// A role with the printed rights runs everything but migrations; with one right less it is not ready.
async fn the_printed_grants_are_enough_and_each_is_checked(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 3)]).await;
    let role = format!("daemon_{}", std::process::id());
    site.database.execute(&format!("DROP ROLE IF EXISTS {role}"), []).await;
    site.database.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'word'"), []).await;
    let grants = site.run(&["migrate", "grants", &role]).await.exits(0).stdout;
    site.database.db.execute_unprepared(&grants).await.unwrap_or_else(|error| panic!("{error}: {grants}"));
    let mut url = url::Url::parse(&site.database.url).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("word")).unwrap();
    site.set("DATABASE__URL", url.as_str());
    site.set("DATABASE__MIGRATE", "false");
    site.set("RECONCILE__RESOURCES", "orders,products,customers,order_statuses");
    site.set("RECONCILE__ORDER_ITEMS", "true");
    let daemon = site.serve().await;
    assert_eq!(daemon.get("/readyz").await.0, 200);
    daemon.post("/runs", r#"{"merchant_id":1001,"full":true}"#).await;
    let run = daemon.await_run("merchant_id=1001", |run| run["finished_at"].is_string()).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    for path in ["/merchants/1001/pause", "/merchants/1001/resume", "/merchants/pause", "/merchants/resume"] {
        assert_eq!(daemon.post(path, "").await.0, 200, "{path}");
    }
    let (on, off) = ("GRANT", "REVOKE");
    for grant in grants.lines() {
        let back = grant.replacen(on, off, 1).replacen(" TO ", " FROM ", 1);
        site.database.db.execute_unprepared(&back).await.unwrap();
        let (status, body) = daemon.get("/readyz").await;
        assert_eq!(status, 503, "{back}: {body}");
        site.database.db.execute_unprepared(grant).await.unwrap();
    }
    assert_eq!(daemon.get("/readyz").await.0, 200);
    drop(daemon);
    site.database.execute(&format!("DROP OWNED BY {role}"), []).await;
    site.database.execute(&format!("DROP ROLE {role}"), []).await;
}
