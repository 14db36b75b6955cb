//! The schema: up, down and up again, and what others may rely on.

use sea_orm::{ConnectionTrait, TransactionTrait};

use crate::support::{Engine, Site, site::shop};

on_every_database!(
    up_down_up,
    a_schema_that_holds_other_tables,
    migrations_of_a_platform_are_left_alone,
    migrations_of_a_newer_version_are_refused,
    printed_sql_migrates_a_database,
    the_columns_of_the_contract,
    rows_of_other_writers_need_only_the_contract_columns,
    a_locked_table_delays_a_migration,
    payloads_use_lz4_if_available,
    an_altered_schema_is_not_ready,
    down_removes_everything_or_nothing
);

const MIGRATIONS: usize = 5;

async fn up_down_up(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    for (command, state) in [("status", "pending"), ("up", "applied"), ("down", "pending"), ("up", "applied")] {
        let output = site.run(&["migrate", command]).await.exits(0);
        assert_eq!(output.stdout.matches(state).count(), MIGRATIONS, "{command}: {}", output.stdout);
    }
}

async fn the_columns_of_the_contract(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 1)]).await;
    site.reconcile(1001, &[]).await;
    if site.database.is_postgres() {
        let sql = "SELECT string_agg(column_name || ' ' || data_type, ', ' ORDER BY column_name) FROM information_schema.columns \
                   WHERE table_schema = 'salla' AND table_name = 'orders' AND column_name IN ('merchant_id', 'salla_order_id', 'total_amount', 'salla_created_at', 'salla_updated_at', 'deleted_at', 'payload')";
        assert_eq!(
            site.database.text(sql).await,
            "deleted_at timestamp with time zone, merchant_id bigint, payload jsonb, salla_created_at timestamp with time zone, \
             salla_order_id bigint, salla_updated_at timestamp with time zone, total_amount numeric"
        );
        let plan = site
            .database
            .rows("EXPLAIN SELECT * FROM orders WHERE merchant_id = 1001 AND salla_order_id IN (1, 2, 3)")
            .await;
        let plan: String = plan.iter().map(|row| row.try_get_by_index::<String>(0).unwrap()).collect();
        assert!(plan.contains("orders_merchant_id_salla_order_id_key"), "{plan}");
    }
    assert_eq!(site.database.text("SELECT status FROM runs").await, "succeeded");
    assert_eq!(site.database.number("SELECT count(*) FROM discrepancies").await, 1);
}

async fn rows_of_other_writers_need_only_the_contract_columns(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    site.run(&["migrate", "up"]).await.exits(0);
    site.database.execute("INSERT INTO orders (merchant_id, salla_order_id, status) VALUES (1, 2, 'x')", []).await;
    assert_eq!(
        site.database.number("SELECT count(*) FROM orders WHERE revision = 0 AND content_hash IS NULL").await,
        1
    );
}

/// The error names the lock, and not a missing right.
async fn a_locked_table_delays_a_migration(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    site.run(&["migrate", "up"]).await.exits(0);
    site.run(&["migrate", "down"]).await.exits(0);
    let somebody = site.database.db.begin().await.unwrap();
    let hold = if site.database.is_postgres() {
        "LOCK TABLE salla_reconciler_migrations IN SHARE MODE"
    } else {
        "INSERT INTO salla_reconciler_migrations (version, applied_at) VALUES ('of somebody', 0)"
    };
    somebody.execute_unprepared(hold).await.unwrap();
    let held = site.run(&["migrate", "up"]).await.exits(1).stderr;
    assert!(held.contains("because other sessions hold locks") && held.contains("lock"), "{held}");
    assert!(!held.contains("the role must be able to create"), "{held}");
    somebody.rollback().await.unwrap();
    site.run(&["migrate", "up"]).await.exits(0);
}

async fn payloads_use_lz4_if_available(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    site.run(&["migrate", "up"]).await.exits(0);
    if !site.database.is_postgres() {
        return;
    }
    let built = "SELECT count(*) FROM pg_config WHERE name = 'CONFIGURE' AND setting LIKE '%--with-lz4%'";
    let knows_lz4 = site.database.number(built).await == 1;
    // All tables with a payload, so that a new kind of record must also set the compression.
    let by = "SELECT string_agg(DISTINCT attcompression::text, ' ') FROM pg_attribute \
              JOIN pg_class ON pg_class.oid = attrelid WHERE attname = 'payload' AND relkind = 'r'";
    assert_eq!(site.database.text(by).await, if knows_lz4 { "l" } else { "" });
    let long = "INSERT INTO orders (merchant_id, salla_order_id, payload) \
                VALUES (1, 2, jsonb_build_object('items', repeat('the same again ', 1000)))";
    site.database.execute(long, []).await;
    let method = site.database.text("SELECT pg_column_compression(payload) FROM orders").await;
    assert_eq!(method, if knows_lz4 { "lz4" } else { "pglz" });
}

/// A platform that uses the same migration library keeps its own migrations in `public`.
async fn migrations_of_a_platform_are_left_alone(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    let table = "CREATE TABLE seaql_migrations (version varchar PRIMARY KEY, applied_at bigint NOT NULL)";
    site.database.execute(table, []).await;
    site.database.execute("INSERT INTO seaql_migrations VALUES ('m20240101_000001_platform', 1)", []).await;
    site.run(&["migrate", "up"]).await.exits(0);
    site.run(&["migrate", "down"]).await.exits(0);
    site.run(&["migrate", "up"]).await.exits(0);
    assert_eq!(site.run(&["check"]).await.stdout.matches("this version's").count(), 1);
    let versions = "SELECT max(version) FROM seaql_migrations";
    assert_eq!(site.database.text(versions).await, "m20240101_000001_platform");
    assert_eq!(site.database.number("SELECT count(*) FROM seaql_migrations").await, 1);
}

async fn migrations_of_a_newer_version_are_refused(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    site.run(&["migrate", "up"]).await.exits(0);
    let newer = "INSERT INTO salla_reconciler_migrations VALUES ('m20990101_000001_newer', 1)";
    site.database.execute(newer, []).await;
    site.database.execute("DELETE FROM salla_reconciler_migrations WHERE version LIKE '%_000005_%'", []).await;
    for command in [&["migrate", "up"][..], &["serve"], &["check"], &["run"]] {
        let output = site.run(command).await;
        assert_ne!(output.code, 0, "{command:?}");
        let text = format!("{}{}", output.stdout, output.stderr);
        assert!(text.contains("m20990101_000001_newer") && text.contains("run that version"), "{command:?}: {text}");
    }
}

async fn printed_sql_migrates_a_database(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    let sql = site.run(&["migrate", "up", "--sql"]).await.exits(0).stdout;
    assert_eq!(site.run(&["migrate", "status"]).await.exits(0).stdout.matches("pending").count(), MIGRATIONS);
    site.database.db.execute_unprepared(&sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
    assert_eq!(site.run(&["migrate", "status"]).await.exits(0).stdout.matches("applied").count(), MIGRATIONS);
    assert_eq!(site.run(&["migrate", "up", "--sql"]).await.exits(0).stdout.trim(), "-- no pending migrations");
    let check = site.run(&["check"]).await.stdout;
    assert!(check.contains("this version's"), "{check}");
}

async fn a_schema_that_holds_other_tables(engine: Engine) {
    let mut site = Site::unregistered(engine, []).await;
    site.database.execute("CREATE TABLE orders (number bigint)", []).await;
    site.set("DATABASE__SCHEMA", "public");
    for _ in 0..2 {
        let refused = site.run(&["migrate", "up"]).await.exits(1).stderr;
        assert!(
            refused.contains("tables of another program: orders") && refused.contains("database.schema"),
            "{refused}"
        );
    }
    let tables = if site.database.is_postgres() {
        "SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'salla')"
    } else {
        "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
    };
    assert_eq!(site.database.number(tables).await, 1, "half a schema is left behind");
}

/// The alteration, the statement that undoes it, and the words of `/readyz` and `check`.
const ALTERATIONS: [(&str, &str, &str); 5] = [
    (
        "ALTER TABLE orders DISABLE TRIGGER orders_clear_stale_content_hash",
        "ALTER TABLE orders ENABLE ALWAYS TRIGGER orders_clear_stale_content_hash",
        "trigger orders_clear_stale_content_hash is missing",
    ),
    (
        "ALTER TABLE products ENABLE TRIGGER products_clear_stale_content_hash",
        "ALTER TABLE products ENABLE ALWAYS TRIGGER products_clear_stale_content_hash",
        "trigger products_clear_stale_content_hash is missing, or does not fire always",
    ),
    (
        "DROP INDEX orders_merchant_id_salla_order_id_key",
        "CREATE UNIQUE INDEX orders_merchant_id_salla_order_id_key ON orders (merchant_id, salla_order_id)",
        "unique index orders_merchant_id_salla_order_id_key is missing",
    ),
    (
        "ALTER TABLE orders ALTER COLUMN reference_id TYPE text",
        "ALTER TABLE orders ALTER COLUMN reference_id TYPE bigint USING reference_id::bigint",
        "column orders.reference_id has the type text, not bigint",
    ),
    (
        "ALTER TABLE order_items RENAME COLUMN sku TO code",
        "ALTER TABLE order_items RENAME COLUMN code TO sku",
        "column order_items.sku is missing",
    ),
];

async fn an_altered_schema_is_not_ready(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 1)]).await;
    let trigger = "SELECT sql FROM sqlite_master WHERE name = 'orders_clear_stale_content_hash'";
    let sqlite_trigger = if site.database.is_postgres() { String::new() } else { site.database.text(trigger).await };
    let drop_trigger = "DROP TRIGGER orders_clear_stale_content_hash";
    let missing = "trigger orders_clear_stale_content_hash is missing";
    let alterations = if site.database.is_postgres() {
        ALTERATIONS.to_vec()
    } else {
        vec![(drop_trigger, sqlite_trigger.as_str(), missing), ALTERATIONS[2], ALTERATIONS[4]]
    };
    site.set("DATABASE__MIGRATE", "false");
    let daemon = site.serve().await;
    for (alter, undo, words) in alterations {
        site.database.execute(alter, []).await;
        let (status, problem) = daemon.get("/readyz").await;
        assert_eq!(status, 503, "{alter}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{alter}: {problem}");
        let check = site.run(&["check"]).await.exits(1).stdout;
        assert!(check.contains(words), "{alter}: {check}");
        site.database.execute(undo, []).await;
        assert_eq!(daemon.get("/readyz").await.0, 200, "{undo}");
    }
    if site.database.is_postgres() {
        // A platform may limit the length of a text.
        site.database.execute("ALTER TABLE orders ALTER COLUMN status TYPE varchar(120)", []).await;
        assert_eq!(daemon.get("/readyz").await.0, 200);
    }
}

async fn down_removes_everything_or_nothing(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 1)]).await;
    if !site.database.is_postgres() {
        return;
    }
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'salla'";
    let before = site.database.number(tables).await;
    site.database.execute("CREATE VIEW public.of_a_platform AS SELECT * FROM salla.orders", []).await;
    let refused = site.run(&["migrate", "down"]).await.exits(1).stderr;
    assert!(refused.contains("nothing was removed") && refused.contains("of_a_platform"), "{refused}");
    assert_eq!(site.database.number(tables).await, before);
    let status = site.run(&["migrate", "status"]).await.exits(0).stdout;
    assert_eq!(status.matches("applied").count(), MIGRATIONS, "{status}");
    site.database.execute("DROP VIEW public.of_a_platform", []).await;
    site.run(&["migrate", "down"]).await.exits(0);
}
