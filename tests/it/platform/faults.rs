//! Tables of platforms with odd rows, triggers and types: each costs at most its own records, and is reported.

use sea_orm::{ConnectionTrait, TransactionTrait};

use super::{Framework, MERCHANT, assert_equal, forget, full, platform};
use crate::support::{
    Engine, Site,
    site::{shop, totals},
    until,
};

on_every_postgres!(
    a_deletion_keeps_the_other_columns,
    rows_without_a_version_are_corrected,
    rows_without_an_order_id_are_ignored,
    a_row_that_changes_during_its_deletion_is_not_marked,
    a_mark_that_the_platform_makes_during_a_run_stays,
    a_refused_deletion_costs_only_its_own_record,
    a_deletion_that_the_function_does_not_write_is_reported,
    a_trigger_that_keeps_a_record_out_is_reported,
    an_error_of_the_function_costs_only_its_own_record,
    a_row_that_the_trial_cannot_write_does_not_stop_the_program,
    a_view_without_marks_keeps_them_in_our_own_table,
    the_documented_rights_are_enough_and_needed,
    templates_know_the_unit_of_amounts,
    templates_leave_decisions_to_people,
);

async fn execute(site: &Site, sql: &str) {
    site.database.db.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
}

fn delete(site: &Site, at: usize) -> i64 {
    let mut world = site.salla.world();
    let id = world.shop(MERCHANT).orders[at].id;
    world.shop(MERCHANT).delete(id);
    id
}

const MARKED: &str = "SELECT count(*) FROM public.\"Order\" WHERE \"deletedAt\" IS NOT NULL";

async fn a_deletion_keeps_the_other_columns(engine: Engine) {
    let site = platform(engine, Framework::Prisma, 20).await;
    full(&site).await;
    execute(&site, "UPDATE public.\"Order\" SET \"referenceId\" = 'REF', \"sallaUpdatedAt\" = \"sallaUpdatedAt\" + interval '1 second'").await;
    execute(&site, "DROP VIEW salla.platform_orders; CREATE VIEW salla.platform_orders AS SELECT CAST(1001 AS bigint) AS merchant_id, \
        \"sallaOrderId\" AS salla_order_id, \"sallaUpdatedAt\" AT TIME ZONE 'UTC' AS salla_updated_at, \
        \"deletedAt\" AT TIME ZONE 'UTC' AS deleted_at FROM public.\"Order\"").await;
    forget(&site).await;
    let id = delete(&site, 3);
    let run = full(&site).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    assert_eq!(site.database.number(MARKED).await, 1);
    let kept = format!(
        "SELECT count(*) FROM public.\"Order\" WHERE \"sallaOrderId\" = {id} AND \"referenceId\" = 'REF' AND payload IS NOT NULL \
         AND \"sallaCreatedAt\" IS NOT NULL"
    );
    assert_eq!(site.database.number(&kept).await, 1);
}

async fn rows_without_a_version_are_corrected(engine: Engine) {
    let site = platform(engine, Framework::Prisma, 20).await;
    full(&site).await;
    forget(&site).await;
    execute(&site, "ALTER TABLE public.\"Order\" ALTER COLUMN \"sallaUpdatedAt\" DROP NOT NULL").await;
    execute(&site, "UPDATE public.\"Order\" SET \"sallaUpdatedAt\" = NULL, currency = 'USD'").await;
    assert_eq!(totals(&full(&site).await), [20, 0, 20, 0, 0, 0]);
    assert_equal(&site).await;
    execute(&site, "UPDATE public.\"Order\" SET \"sallaUpdatedAt\" = NULL WHERE \"sallaOrderId\" = (SELECT min(\"sallaOrderId\") FROM public.\"Order\")").await;
    assert_eq!(totals(&full(&site).await), [20, 0, 1, 19, 0, 0]);
    assert_eq!(totals(&full(&site).await), [20, 0, 0, 20, 0, 0]);
}

async fn rows_without_an_order_id_are_ignored(engine: Engine) {
    let site = platform(engine, Framework::Prisma, 20).await;
    full(&site).await;
    execute(&site, "ALTER TABLE public.\"Order\" ALTER COLUMN \"sallaOrderId\" DROP NOT NULL").await;
    execute(&site, "INSERT INTO public.\"Order\" (\"id\", \"merchantId\", \"status\", \"currency\", \"totalAmount\", \"sallaUpdatedAt\", \"updatedAt\") \
        SELECT 'pos', \"merchantId\", \"status\", \"currency\", \"totalAmount\", now(), now() FROM public.\"Order\" LIMIT 1").await;
    delete(&site, 2);
    let run = full(&site).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    assert_eq!(site.database.number(MARKED).await, 1);
    assert!(site.run(&["check"]).await.stdout.contains("ok    target"));
}

/// The webhook consumer writes a newer version after the program looked at the row, and before it marks the row.
async fn a_row_that_changes_during_its_deletion_is_not_marked(engine: Engine) {
    let site = platform(engine, Framework::Prisma, 20).await;
    full(&site).await;
    let id = delete(&site, 3);
    let lock = site.database.db.begin().await.unwrap();
    lock.execute_unprepared(&format!("SELECT 1 FROM salla.orders WHERE salla_order_id = {id} FOR UPDATE"))
        .await
        .unwrap();
    let consume = async {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        until("the deletion waits for the lock", async || site.database.number(waiting).await > 0).await;
        let newer = "UPDATE public.\"Order\" SET \"sallaUpdatedAt\" = \"sallaUpdatedAt\" + interval '1 minute'";
        execute(&site, &format!("{newer} WHERE \"sallaOrderId\" = {id}")).await;
        lock.rollback().await.unwrap();
    };
    let (run, ()) = tokio::join!(full(&site), consume);
    assert_eq!(site.database.number(MARKED).await, 0, "{run}");
    // The next run sees that version, and Salla still says that the order is gone.
    full(&site).await;
    assert_eq!(site.database.number(MARKED).await, 1);
}

/// Salla lists the order, then Salla deletes it and the webhook consumer marks it, then the run writes the page. The version of
/// the row does not change.
async fn a_mark_that_the_platform_makes_during_a_run_stays(engine: Engine) {
    let site = platform(engine, Framework::Prisma, 20).await;
    full(&site).await;
    let id = site.salla.world().shop(MERCHANT).orders[3].id;
    let update = |set: &str| format!("UPDATE public.\"Order\" SET {set} WHERE \"sallaOrderId\" = {id}");
    execute(&site, &update("\"currency\" = 'XXX'")).await;
    let lock = site.database.db.begin().await.unwrap();
    lock.execute_unprepared(&format!("SELECT 1 FROM salla.orders WHERE salla_order_id = {id} FOR UPDATE"))
        .await
        .unwrap();
    let consume = async {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        until("the page waits for the lock", async || site.database.number(waiting).await > 0).await;
        execute(&site, &update("\"deletedAt\" = now() AT TIME ZONE 'UTC'")).await;
        lock.rollback().await.unwrap();
    };
    let (run, ()) = tokio::join!(full(&site), consume);
    assert_eq!(site.database.number(MARKED).await, 1, "{run}");
    assert_eq!(totals(&run), [20, 0, 0, 20, 0, 0], "{run}");
    // The next run asks Salla after the mark was made. Salla still lists the order.
    let run = full(&site).await;
    assert_eq!(totals(&run), [20, 0, 1, 19, 0, 0], "{run}");
    assert_equal(&site).await;
}

async fn a_refused_deletion_costs_only_its_own_record(engine: Engine) {
    let site = platform(engine, Framework::Prisma, 20).await;
    full(&site).await;
    let (refused, _) = (delete(&site, 3), delete(&site, 7));
    execute(&site, &format!("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        IF NEW.\"deletedAt\" IS NOT NULL AND NEW.\"sallaOrderId\" = {refused} THEN RAISE EXCEPTION 'the books are closed'; END IF; RETURN NEW; END $$; \
        CREATE TRIGGER refuse BEFORE UPDATE ON public.\"Order\" FOR EACH ROW EXECUTE FUNCTION public.refuse()")).await;
    let run = full(&site).await;
    assert_eq!((&run["status"], totals(&run)[5]), (&"partial".into(), 1), "{run}");
    assert_eq!(site.database.number(MARKED).await, 1);
    let found = format!("SELECT reason FROM salla.discrepancies WHERE kind = 'failed' AND salla_id = {refused}");
    assert!(site.database.text(&found).await.contains("the books are closed"));
}

async fn a_deletion_that_the_function_does_not_write_is_reported(engine: Engine) {
    let site = platform(engine, Framework::Prisma, 20).await;
    full(&site).await;
    let id = delete(&site, 3);
    for answer in [
        "SELECT CAST(r ->> 'salla_order_id' AS bigint), 'unchanged' FROM jsonb_array_elements(orders) r",
        "SELECT CAST(NULL AS bigint), CAST(NULL AS text) WHERE false",
    ] {
        execute(
            &site,
            &format!(
                "CREATE OR REPLACE FUNCTION salla.write_platform_orders(orders jsonb) \
            RETURNS TABLE (salla_order_id bigint, outcome text) LANGUAGE sql AS $$ {answer} $$"
            ),
        )
        .await;
        execute(&site, "DELETE FROM salla.discrepancies").await;
        let run = full(&site).await;
        assert_eq!((&run["status"], totals(&run)[5]), (&"partial".into(), 1), "{run}");
        let found = site.database.text(&format!("SELECT reason FROM salla.discrepancies WHERE salla_id = {id}")).await;
        assert!(found.contains("the deletion was not written"), "{found}");
    }
}

async fn a_trigger_that_keeps_a_record_out_is_reported(engine: Engine) {
    let site = platform(engine, Framework::Prisma, 20).await;
    let out = site.salla.world().shop(MERCHANT).orders[3].id;
    execute(
        &site,
        &format!(
            "CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        IF NEW.\"sallaOrderId\" = {out} THEN RETURN NULL; END IF; RETURN NEW; END $$; \
        CREATE TRIGGER swallow BEFORE INSERT ON public.\"Order\" FOR EACH ROW EXECUTE FUNCTION public.swallow()"
        ),
    )
    .await;
    let run = full(&site).await;
    assert_eq!(totals(&run), [20, 19, 0, 0, 0, 1], "{run}");
    let reason = site.database.text("SELECT reason FROM salla.discrepancies WHERE kind = 'failed'").await;
    assert!(reason.contains("still is missing"), "{reason}");
}

async fn an_error_of_the_function_costs_only_its_own_record(engine: Engine) {
    let site = platform(engine, Framework::Prisma, 20).await;
    let bad = site.salla.world().shop(MERCHANT).orders[3].id;
    for code in ["45000", "55000", "P0001"] {
        execute(&site, &format!("CREATE OR REPLACE FUNCTION public.raise() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            IF NEW.\"sallaOrderId\" = {bad} THEN RAISE EXCEPTION 'not this one' USING errcode = '{code}'; END IF; RETURN NEW; END $$; \
            DROP TRIGGER IF EXISTS raise ON public.\"Order\"; \
            CREATE TRIGGER raise BEFORE INSERT ON public.\"Order\" FOR EACH ROW EXECUTE FUNCTION public.raise()")).await;
        execute(&site, "DELETE FROM public.\"Order\"").await;
        let run = full(&site).await;
        assert_eq!(totals(&run), [20, 19, 0, 0, 0, 1], "{code}: {run}");
    }
}

async fn a_row_that_the_trial_cannot_write_does_not_stop_the_program(engine: Engine) {
    let site = platform(engine, Framework::Prisma, 20).await;
    full(&site).await;
    execute(
        &site,
        "CREATE FUNCTION public.guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'closed'; END $$; \
        CREATE TRIGGER guard BEFORE INSERT ON public.\"Order\" FOR EACH ROW EXECUTE FUNCTION public.guard()",
    )
    .await;
    assert_eq!(totals(&full(&site).await), [20, 0, 0, 20, 0, 0]);
    assert!(site.run(&["check"]).await.exits(1).stdout.contains("closed"));
}

async fn a_view_without_marks_keeps_them_in_our_own_table(engine: Engine) {
    let site = platform(engine, Framework::Prisma, 20).await;
    full(&site).await;
    let view = site.database.text("SELECT pg_get_viewdef('salla.platform_orders'::regclass)").await;
    let marks = view.lines().find(|line| line.contains("deletedAt")).unwrap().to_owned();
    execute(
        &site,
        &format!("DROP VIEW salla.platform_orders; CREATE VIEW salla.platform_orders AS {}", view.replace(&marks, "")),
    )
    .await;
    forget(&site).await;
    delete(&site, 3);
    let run = full(&site).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    site.salla.world().seen.clear();
    full(&site).await;
    let asked = site.salla.world().seen.iter().filter(|request| request.id.is_some()).count();
    assert_eq!(asked, 0, "the order that is gone is asked for again");
}

/// The rights of `migrate grants` and of the how-to, and what happens without each right on the target.
async fn the_documented_rights_are_enough_and_needed(engine: Engine) {
    let mut site = platform(engine, Framework::Prisma, 5).await;
    // Roles belong to the server, which other tests use too.
    execute(&site, "DROP ROLE IF EXISTS beside_prisma; CREATE ROLE beside_prisma LOGIN PASSWORD 'beside'").await;
    let grants = site.run(&["migrate", "grants", "beside_prisma"]).await.exits(0).stdout;
    execute(&site, &grants).await;
    let document = std::fs::read_to_string("docs/how-to/adopt-an-existing-platform.md").unwrap();
    let documented = document.split("```").find(|block| block.starts_with("text\nGRANT SELECT")).expect("the grants");
    let documented = documented.trim_start_matches("text").replace("TO reconciler", "TO beside_prisma");
    execute(&site, &documented).await;
    let mut url: url::Url = site.database.url.parse().unwrap();
    url.set_username("beside_prisma").unwrap();
    url.set_password(Some("beside")).unwrap();
    site.set("DATABASE__URL", url.as_str());
    site.set("DATABASE__MIGRATE", "false");
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001,"full":true}"#).await;
    let run = daemon.await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!(totals(&run)[1], 5, "{run}");
    for (right, words) in [
        ("SELECT ON salla.platform_orders", "SELECT on \"salla\".\"platform_orders\""),
        (
            "EXECUTE ON FUNCTION salla.write_platform_orders(jsonb)",
            "EXECUTE on \"salla\".\"write_platform_orders\"(jsonb)",
        ),
    ] {
        let public = format!("REVOKE {right} FROM PUBLIC");
        execute(&site, &format!("{public}; REVOKE {right} FROM beside_prisma")).await;
        until("the lacking right is shown", async || {
            let (status, body) = daemon.get("/readyz").await;
            status == 503 && body["detail"].as_str().is_some_and(|detail| detail.contains(words))
        })
        .await;
        let check = site.run(&["check"]).await.exits(1).stdout;
        assert!(check.contains(words), "{check}");
        execute(&site, &format!("GRANT {right} TO beside_prisma")).await;
        until("it is ready again", async || daemon.get("/readyz").await.0 == 200).await;
    }
    drop(daemon);
    execute(&site, "DROP OWNED BY beside_prisma; DROP ROLE beside_prisma").await;
}

async fn template_of(site: &Site, table: &str) -> String {
    site.run(&["target", "template", "plain", "--table", table]).await.exits(0).stdout
}

async fn templates_know_the_unit_of_amounts(engine: Engine) {
    let mut site = Site::unregistered(engine, [shop(MERCHANT, 10, 0)]).await;
    site.run(&["migrate", "up"]).await.exits(0);
    site.register_all().await;
    for (number, column) in ["total numeric", "total_cents numeric", "total_cents bigint"].into_iter().enumerate() {
        execute(
            &site,
            &format!(
                "CREATE TABLE public.o{number} (merchant_id bigint, salla_order_id bigint, status text, currency text, \
            {column}, salla_updated_at timestamptz, deleted_at timestamptz, UNIQUE (merchant_id, salla_order_id)); \
            DROP VIEW IF EXISTS salla.platform_orders"
            ),
        )
        .await;
        let template = template_of(&site, &format!("o{number}")).await;
        assert!(template.contains("merchant_id: it has no foreign key"), "{template}");
        execute(&site, &template).await;
        site.set("TARGET__ORDERS__VIEW", "salla.platform_orders");
        site.set("TARGET__ORDERS__FUNCTION", "salla.write_platform_orders");
        forget(&site).await;
        assert_eq!(totals(&full(&site).await), [10, 10, 0, 0, 0, 0], "{column}");
        assert_equal(&site).await;
        let name = column.split(' ').next().unwrap();
        let sum = site.database.text(&format!("SELECT CAST(trunc(sum({name})) AS text) FROM public.o{number}")).await;
        let total: i64 = site.salla.world().shop(MERCHANT).orders.iter().map(|order| order.total).sum();
        let expected = if name == "total" { total / 100 } else { total };
        assert_eq!(sum, expected.to_string(), "{column}");
        assert_eq!(totals(&full(&site).await), [10, 0, 0, 10, 0, 0], "{column}");
    }
}

async fn templates_leave_decisions_to_people(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    site.run(&["migrate", "up"]).await.exits(0);
    execute(&site, "CREATE TABLE public.merchants (id bigserial PRIMARY KEY, salla_plan_id bigint, salla_merchant_id text UNIQUE); \
        CREATE TABLE public.\"My.Orders\" (id bigint GENERATED ALWAYS AS IDENTITY, merchant_id bigint REFERENCES public.merchants, \
        salla_order_id varchar, status integer, total double precision, payload json, channel text NOT NULL, \
        placed_at date, salla_updated_at timestamptz, UNIQUE (merchant_id, salla_order_id))").await;
    let template = template_of(&site, "\"My.Orders\"").await;
    for open in ["status (integer", "total (double precision", "placed_at (date", "channel: it is NOT NULL"] {
        assert!(template.contains(open), "{open}: {template}");
    }
    assert!(template.contains("\"salla_merchant_id\"") && !template.contains("salla_plan_id"), "{template}");
    // It applies as it is.
    execute(&site, &template).await;
}
