//! Reconciles the tables of a platform: the view and the function that `target template` prints, on the tables that Prisma, Rails
//! and Django make.

mod adoption;
mod faults;
mod prisma;
pub mod tables;

use chrono::Utc;
use sea_orm::ConnectionTrait;
use serde_json::Value;

use self::tables::Framework;
use crate::support::{
    Engine, Site,
    site::{everything, shop, totals},
};

on_every_postgres!(
    a_platform_is_reconciled_with_the_template_of_its_framework,
    rows_that_are_right_are_not_touched_when_the_program_is_new,
    a_difference_in_each_column_is_found,
    an_unknown_status_or_merchant_costs_only_its_own_rows,
    a_dry_run_writes_nothing_and_describes_the_platform,
    a_deletion_is_marked_and_reverted,
    a_newer_row_of_the_platform_wins,
    a_record_that_the_function_omits_is_failed,
    check_says_what_is_wrong_with_a_target,
    products_and_customers_are_reconciled_in_tables_of_the_platform,
);

const MERCHANT: i64 = 1001;

/// A site whose platform has tables of a framework, all empty, and the merchant.
async fn platform(engine: Engine, framework: Framework, orders: usize) -> Site {
    let mut site = Site::unregistered(engine, [shop(MERCHANT, orders, 0)]).await;
    site.database.db.execute_unprepared(framework.ddl()).await.unwrap();
    site.run(&["migrate", "up"]).await.exits(0);
    apply_template(&site, framework).await;
    site.set("TARGET__ORDERS__VIEW", "salla.platform_orders");
    site.set("TARGET__ORDERS__FUNCTION", "salla.write_platform_orders");
    site.register_all().await;
    site
}

async fn apply_template(site: &Site, framework: Framework) {
    let template =
        site.run(&["target", "template", framework.name(), "--table", framework.table()]).await.exits(0).stdout;
    site.database.db.execute_unprepared(&template).await.unwrap_or_else(|error| panic!("{error}: {template}"));
}

/// As if the program had just been installed beside the platform.
async fn forget(site: &Site) {
    for table in ["orders", "order_detail_checks", "watermarks"] {
        site.database.execute(&format!("DELETE FROM salla.{table}"), []).await;
    }
}

async fn full(site: &Site) -> Value {
    site.reconcile(MERCHANT, &["--full"]).await
}

/// The rows of the platform with what shows that one was written.
async fn versions(site: &Site, framework: Framework) -> Vec<String> {
    let sql = format!("SELECT CAST(o AS text) || xmin || ctid AS row FROM {} o ORDER BY 1", framework.table());
    site.database.rows(&sql).await.iter().map(|row| row.try_get("", "row").unwrap()).collect()
}

/// Fails unless the platform shows each order as Salla has it.
async fn assert_equal(site: &Site) {
    let rows = site
        .database
        .rows(
            "SELECT salla_order_id, status, CAST(total_amount AS text) AS total, currency, salla_updated_at \
        FROM salla.platform_orders WHERE deleted_at IS NULL ORDER BY 1",
        )
        .await;
    let shown: Vec<_> = rows
        .iter()
        .map(|row| {
            let total: String = row.try_get("", "total").unwrap();
            let changed: chrono::DateTime<Utc> = row.try_get("", "salla_updated_at").unwrap();
            let text = |column| row.try_get::<String>("", column).unwrap();
            (
                row.try_get::<i64>("", "salla_order_id").unwrap(),
                text("status"),
                total.parse::<f64>().unwrap(),
                text("currency"),
                changed.timestamp(),
            )
        })
        .collect();
    let mut world = site.salla.world();
    let mut orders: Vec<_> = world
        .shop(MERCHANT)
        .orders
        .iter()
        .map(|order| {
            (
                order.id,
                order.slug().to_owned(),
                order.total as f64 / 100.0,
                order.currency.to_owned(),
                order.updated_at.timestamp(),
            )
        })
        .collect();
    orders.sort_by_key(|order| order.0);
    assert_eq!(shown, orders);
}

async fn a_platform_is_reconciled_with_the_template_of_its_framework(engine: Engine) {
    for framework in Framework::ALL {
        let site = platform(engine, framework, 40).await;
        let check = site.run(&["check"]).await.stdout;
        assert!(check.contains("ok    target: target.orders"), "{framework:?}: {check}");
        let first = full(&site).await;
        assert_eq!(totals(&first), [40, 40, 0, 0, 0, 0], "{framework:?}: {first}");
        assert_equal(&site).await;
        let before = versions(&site, framework).await;
        let second = full(&site).await;
        assert_eq!(totals(&second), [40, 0, 0, 40, 0, 0], "{framework:?}: {second}");
        assert_eq!(versions(&site, framework).await, before, "{framework:?}");
        let check = site.run(&["check"]).await.stdout;
        assert!(check.contains("ok    target: target.orders"), "{framework:?}: {check}");
        // Nothing stays of the trial.
        assert_eq!(versions(&site, framework).await, before, "{framework:?}");
    }
}

async fn rows_that_are_right_are_not_touched_when_the_program_is_new(engine: Engine) {
    let framework = Framework::Prisma;
    let site = platform(engine, framework, 40).await;
    full(&site).await;
    forget(&site).await;
    site.database.execute("DELETE FROM public.\"Order\" WHERE \"sallaOrderId\" IN (SELECT \"sallaOrderId\" FROM public.\"Order\" LIMIT 5)", []).await;
    let before = versions(&site, framework).await;
    let run = site.reconcile(MERCHANT, &["--full"]).await;
    assert_eq!(totals(&run), [40, 5, 0, 35, 0, 0], "{run}");
    let after = versions(&site, framework).await;
    assert!(before.iter().all(|row| after.contains(row)), "rows were written again");
    assert_equal(&site).await;
    let again = full(&site).await;
    assert_eq!(totals(&again), [40, 0, 0, 40, 0, 0], "{again}");
    assert_eq!(versions(&site, framework).await, after);
}

async fn a_difference_in_each_column_is_found(engine: Engine) {
    let framework = Framework::Prisma;
    let site = platform(engine, framework, 20).await;
    full(&site).await;
    for remembers in [true, false] {
        for (set, field) in [
            (r#""status" = 'CANCELED'"#, "status"),
            (r#""currency" = 'USD'"#, "currency"),
            (r#""totalAmount" = "totalAmount" + 0.01"#, "total_amount"),
            (r#""referenceId" = 'x'"#, "reference_id"),
            (r#""sallaCreatedAt" = "sallaCreatedAt" - interval '1 day'"#, "salla_created_at"),
            (r#""payload" = '{"id": 1}'"#, "payload"),
            (r#""payload" = NULL"#, "payload"),
            (r#""deletedAt" = now()"#, "restored"),
        ] {
            if !remembers {
                forget(&site).await;
            }
            let one = site.database.number("SELECT min(\"sallaOrderId\") FROM public.\"Order\"").await;
            site.database
                .execute(&format!("UPDATE public.\"Order\" SET {set} WHERE \"sallaOrderId\" = {one}"), [])
                .await;
            let run = full(&site).await;
            assert_eq!(totals(&run), [20, 0, 1, 19, 0, 0], "{field}, {remembers}: {run}");
            let run_id = run["run_id"].as_str().unwrap();
            let found = site
                .database
                .text(&format!("SELECT fields FROM salla.discrepancies WHERE CAST(run_id AS text) = '{run_id}'"))
                .await;
            assert!(found.contains(field), "{found} lacks {field}");
            let changes = format!("SELECT changes FROM salla.discrepancies WHERE CAST(run_id AS text) = '{run_id}'");
            let changes = site.database.text(&changes).await;
            assert_eq!(changes.contains(field), !["payload", "restored"].contains(&field), "{changes}");
            assert_equal(&site).await;
            let again = full(&site).await;
            assert_eq!(totals(&again), [20, 0, 0, 20, 0, 0], "{field}: {again}");
        }
    }
}

async fn an_unknown_status_or_merchant_costs_only_its_own_rows(engine: Engine) {
    let site = platform(engine, Framework::Prisma, 20).await;
    site.database.execute("ALTER TYPE public.\"OrderStatus\" RENAME VALUE 'UNDER_REVIEW' TO 'OTHER'", []).await;
    let run = full(&site).await;
    let [fetched, created, _, _, _, failed] = totals(&run);
    assert!(failed > 0 && created > 0 && fetched == created + failed, "{run}");
    assert_eq!(run["status"], "partial");
    let reason = site.database.text("SELECT reason FROM salla.discrepancies WHERE kind = 'failed' LIMIT 1").await;
    assert!(reason.contains("OrderStatus"), "{reason}");
    site.database.execute("DELETE FROM public.\"Order\"", []).await;
    site.database.execute("DELETE FROM public.\"Merchant\"", []).await;
    let run = full(&site).await;
    assert_eq!(totals(&run)[5], fetched, "{run}");
}

async fn a_dry_run_writes_nothing_and_describes_the_platform(engine: Engine) {
    let framework = Framework::Prisma;
    let site = platform(engine, framework, 20).await;
    full(&site).await;
    site.database.execute("UPDATE public.\"Order\" SET \"status\" = 'CANCELED' WHERE \"sallaOrderId\" = (SELECT min(\"sallaOrderId\") FROM public.\"Order\")", []).await;
    site.database.execute("DELETE FROM public.\"Order\" WHERE \"sallaOrderId\" = (SELECT max(\"sallaOrderId\") FROM public.\"Order\")", []).await;
    let before = versions(&site, framework).await;
    let run = site.reconcile(MERCHANT, &["--full", "--dry-run"]).await;
    assert_eq!(totals(&run), [20, 1, 1, 18, 0, 0], "{run}");
    assert_eq!(versions(&site, framework).await, before);
    assert_eq!(totals(&full(&site).await), [20, 1, 1, 18, 0, 0]);
}

async fn a_deletion_is_marked_and_reverted(engine: Engine) {
    for forgets in [false, true] {
        let site = platform(engine, Framework::Prisma, 20).await;
        full(&site).await;
        if forgets {
            forget(&site).await;
        }
        let gone = {
            let mut world = site.salla.world();
            let order = world.shop(MERCHANT).orders[4].clone();
            world.shop(MERCHANT).delete(order.id);
            order
        };
        let run = full(&site).await;
        assert_eq!(run["status"], "succeeded", "{run}");
        let marked = "SELECT count(*) FROM public.\"Order\" WHERE \"deletedAt\" IS NOT NULL";
        assert_eq!(site.database.number(marked).await, 1, "forgets: {forgets}");
        site.salla.world().shop(MERCHANT).orders.push(gone);
        let run = full(&site).await;
        assert_eq!(totals(&run)[2], 1, "{run}");
        assert_eq!(site.database.number(marked).await, 0);
        assert_eq!(totals(&full(&site).await), [20, 0, 0, 20, 0, 0]);
    }
}

async fn a_newer_row_of_the_platform_wins(engine: Engine) {
    let framework = Framework::Prisma;
    let site = platform(engine, framework, 20).await;
    full(&site).await;
    let newer = "UPDATE public.\"Order\" SET \"status\" = 'COMPLETED', \"sallaUpdatedAt\" = now() AT TIME ZONE 'UTC' \
                 WHERE \"sallaOrderId\" = (SELECT min(\"sallaOrderId\") FROM public.\"Order\")";
    site.database.execute(newer, []).await;
    let before = versions(&site, framework).await;
    let run = full(&site).await;
    assert_eq!(totals(&run), [20, 0, 0, 20, 0, 0], "{run}");
    assert_eq!(versions(&site, framework).await, before);
    // A time stamp of the future is wrong.
    site.database.execute(&newer.replace("now()", "(now() + interval '5 days')"), []).await;
    let run = full(&site).await;
    assert_eq!(totals(&run), [20, 0, 1, 19, 0, 0], "{run}");
    assert_equal(&site).await;
}

async fn a_record_that_the_function_omits_is_failed(engine: Engine) {
    let site = platform(engine, Framework::Plain, 5).await;
    let answers = |answer: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION salla.write_platform_orders(orders jsonb) RETURNS TABLE (salla_order_id bigint, outcome text) \
             LANGUAGE sql AS $$ {answer} $$"
        )
    };
    for (answer, reason) in [
        ("SELECT CAST(NULL AS bigint), CAST(NULL AS text) WHERE false", "did not return the record"),
        (
            "SELECT CAST(r ->> 'salla_order_id' AS bigint), 'done' FROM jsonb_array_elements(orders) r",
            "outcome \"done\"",
        ),
    ] {
        site.database.execute("DELETE FROM salla.discrepancies", []).await;
        site.database.db.execute_unprepared(&answers(answer)).await.unwrap();
        let run = site.reconcile(MERCHANT, &["--full"]).await;
        assert_eq!(totals(&run), [5, 0, 0, 0, 0, 5], "{run}");
        let found = site.database.text("SELECT reason FROM salla.discrepancies LIMIT 1").await;
        assert!(found.contains(reason), "{found}");
    }
}

async fn check_says_what_is_wrong_with_a_target(engine: Engine) {
    let mut site = platform(engine, Framework::Prisma, 5).await;
    full(&site).await;
    let check = async |site: &Site| site.run(&["check"]).await.stdout;
    site.set("TARGET__ORDERS__VIEW", "salla.nothing");
    let missing = check(&site).await;
    assert!(
        missing.contains("FAIL  target: target.orders: the view \"salla\".\"nothing\" does not exist"),
        "{missing}"
    );
    site.set("TARGET__ORDERS__VIEW", "salla.platform_orders");
    site.set("TARGET__ORDERS__FUNCTION", "salla.nothing");
    let missing = check(&site).await;
    assert!(missing.contains("the function \"salla\".\"nothing\"(jsonb) does not exist"), "{missing}");
    site.set("TARGET__ORDERS__FUNCTION", "salla.write_platform_orders");
    site.database.execute("CREATE VIEW salla.wrong AS SELECT merchant_id, salla_order_id, salla_updated_at AT TIME ZONE 'UTC' AS salla_updated_at FROM salla.platform_orders", []).await;
    site.set("TARGET__ORDERS__VIEW", "salla.wrong");
    let wrong = check(&site).await;
    assert!(wrong.contains("salla_updated_at") && wrong.contains("AT TIME ZONE 'UTC'"), "{wrong}");
    let refused = site.run(&["run", "--merchant", "1001"]).await.exits(1).stderr;
    assert!(refused.contains("target.orders"), "{refused}");
    site.set("TARGET__ORDERS__VIEW", "salla.platform_orders");
    // A view and a function that do not speak of the same rows.
    site.database.execute("DROP FUNCTION salla.write_platform_orders", []).await;
    site.database.db.execute_unprepared("CREATE FUNCTION salla.write_platform_orders(orders jsonb) RETURNS TABLE (salla_order_id bigint, outcome text) LANGUAGE sql AS \
        $$ SELECT CAST(r ->> 'salla_order_id' AS bigint), 'created' FROM jsonb_array_elements(orders) r $$").await.unwrap();
    let other = check(&site).await;
    assert!(other.contains("they use different rows"), "{other}");
    for (key, value, problem) in
        [("TARGET__ORDERS__VIEW", "", "target.orders.view"), ("TARGET__ORDERS__VIEW", "a.b.c", "target.orders.view")]
    {
        site.set(key, value);
        let refused = site.run(&["check"]).await.exits(78).stderr;
        assert!(refused.contains(problem), "{refused}");
    }
}

/// The view and the function of a kind of record that has no template.
fn objects(kind: &str, id: &str, column: &str) -> String {
    format!(
        "CREATE TABLE public.{kind} (merchant_id bigint, {id} bigint, {column} text, salla_updated_at timestamptz, deleted_at timestamptz, \
             PRIMARY KEY (merchant_id, {id})); \
         CREATE VIEW salla.platform_{kind} AS SELECT * FROM public.{kind}; \
         CREATE FUNCTION salla.write_platform_{kind}(records jsonb) RETURNS TABLE ({id} bigint, outcome text) LANGUAGE sql AS $$ \
         WITH written AS (INSERT INTO public.{kind} AS o SELECT r.* FROM jsonb_to_recordset(records) AS \
             r(merchant_id bigint, {id} bigint, {column} text, salla_updated_at timestamptz, deleted_at timestamptz) \
             ON CONFLICT (merchant_id, {id}) DO UPDATE SET {column} = excluded.{column}, salla_updated_at = excluded.salla_updated_at, \
             deleted_at = excluded.deleted_at WHERE o.salla_updated_at <= excluded.salla_updated_at RETURNING o.{id} AS one, o.xmax = 0 AS is_new) \
         SELECT CAST(r ->> '{id}' AS bigint), CASE WHEN w.is_new THEN 'created' WHEN w.one IS NULL THEN 'unchanged' ELSE 'updated' END \
         FROM jsonb_array_elements(records) r LEFT JOIN written w ON w.one = CAST(r ->> '{id}' AS bigint) $$;"
    )
}

async fn products_and_customers_are_reconciled_in_tables_of_the_platform(engine: Engine) {
    let mut site = Site::unregistered(engine, [everything(MERCHANT, 0, 8)]).await;
    site.run(&["migrate", "up"]).await.exits(0);
    for (kind, id, column) in [("products", "salla_product_id", "name"), ("customers", "salla_customer_id", "city")] {
        site.database.db.execute_unprepared(&objects(kind, id, column)).await.unwrap();
        let key = kind.to_uppercase();
        site.set(&format!("TARGET__{key}__VIEW"), &format!("salla.platform_{kind}"));
        site.set(&format!("TARGET__{key}__FUNCTION"), &format!("salla.write_platform_{kind}"));
    }
    site.set("RECONCILE__RESOURCES", "products,customers");
    site.register_all().await;
    let check = site.run(&["check"]).await.stdout;
    assert!(
        check.contains("ok    target: target.products") && check.contains("ok    target: target.customers"),
        "{check}"
    );
    assert_eq!(totals(&full(&site).await), [16, 16, 0, 0, 0, 0]);
    assert_eq!(totals(&full(&site).await), [16, 0, 0, 16, 0, 0]);
    site.database.execute("UPDATE public.products SET name = 'x'", []).await;
    site.database.execute("DELETE FROM public.customers", []).await;
    assert_eq!(totals(&full(&site).await), [16, 8, 8, 0, 0, 0]);
    assert_eq!(totals(&full(&site).await), [16, 0, 0, 16, 0, 0]);
}
