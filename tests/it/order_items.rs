//! The lines of orders: whole, in the transaction of their order, at a request each, and only where they are asked for.

use chrono::Utc;
use salla_reconciler::simulator::{Fault, Order};
use serde_json::json;

use crate::support::{
    Engine, Site,
    site::{shop, totals},
};

on_every_database!(
    items_follow_their_orders,
    an_order_of_another_writer_gets_its_items,
    an_order_with_unreadable_items_is_skipped,
    refused_items_fail_their_order,
    items_on_several_pages,
    a_server_as_documented
);

async fn site(engine: Engine, orders: usize) -> Site {
    let mut site = Site::new(engine, [shop(1001, 0, orders)]).await;
    site.set("RECONCILE__ORDER_ITEMS", "true");
    site
}

fn asked_for(site: &Site) -> usize {
    site.salla.world().seen.iter().filter(|seen| seen.list == "orders/items").count()
}

async fn items_follow_their_orders(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 12)]).await;
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [12, 12, 0, 0, 0, 0]);
    assert_eq!(
        (asked_for(&site), site.database.number("SELECT count(*) FROM order_items").await),
        (0, 0),
        "off by default"
    );
    site.set("RECONCILE__ORDER_ITEMS", "true");
    let run = site.reconcile(1001, &["--dry-run"]).await;
    assert_eq!((totals(&run), asked_for(&site)), ([12, 0, 0, 12, 0, 0], 0), "{run}");
    // Orders that were stored before get their items. This does not count as drift.
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((totals(&run), asked_for(&site)), ([12, 0, 0, 12, 0, 0], 12), "{run}");
    site.assert_lines(1001).await;
    let drift = site.database.number("SELECT count(*) FROM discrepancies WHERE kind <> 'missing'").await;
    assert_eq!(drift, 0);

    // A quiet night costs nothing, a change a request.
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((totals(&run), asked_for(&site)), ([12, 0, 0, 12, 0, 0], 12), "{run}");
    {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        let id = shop.orders[3].id;
        shop.touch(id, Utc::now());
        shop.orders[3].total += 1;
        shop.place(Utc::now());
    }
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((totals(&run), asked_for(&site)), ([13, 1, 1, 11, 0, 0], 14), "{run}");
    site.assert_lines(1001).await;
    site.assert_equal(1001).await;
    site.salla.world().shop(1001).withheld.push("orders.read");
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["error"]["kind"], "missing_scope", "{run}");
}

async fn an_order_of_another_writer_gets_its_items(engine: Engine) {
    let site = site(engine, 4).await;
    site.reconcile(1001, &[]).await;
    let order = {
        let mut world = site.salla.world();
        let shop = world.shop(1001);
        let id = shop.orders[1].id;
        shop.touch(id, Utc::now());
        shop.orders[1].total += 1;
        shop.orders[1].clone()
    };
    // Its webhook came: the order is as Salla has it, and its lines are those of before.
    site.consume::<Order>(1001, &order).await;
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((totals(&run), asked_for(&site)), ([4, 0, 0, 4, 0, 0], 5), "{run}");
    site.assert_lines(1001).await;
    // A row that is newer than what Salla lists keeps what it has.
    let later = (Utc::now() + chrono::TimeDelta::hours(1)).into();
    site.database.execute("UPDATE orders SET salla_updated_at = $1", [later]).await;
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((totals(&run), asked_for(&site)), ([4, 0, 0, 4, 0, 0], 5), "{run}");
}

async fn an_order_with_unreadable_items_is_skipped(engine: Engine) {
    let site = site(engine, 9).await;
    let ids: Vec<i64> = site.salla.world().shop(1001).orders.iter().map(|order| order.id).collect();
    {
        let mut world = site.salla.world();
        let broken = &mut world.shop(1001).broken_lines;
        broken.insert(ids[1], Fault::status(422));
        broken.insert(ids[2], Fault::status(404));
        let odd = r#"{"status":200,"success":true,"data":[{"id":1,"quantity":"many"}]}"#;
        broken.insert(ids[3], Fault::ok("application/json", odd));
    }
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((&run["status"], totals(&run)), (&json!("partial"), [9, 6, 0, 0, 3, 0]), "{run}");
    assert_eq!(site.database.number("SELECT count(*) FROM orders").await, 6, "none is written without its lines");
    let reason = format!("SELECT fields FROM discrepancies WHERE salla_id = {}", ids[3]);
    assert!(site.database.text(&reason).await.contains("items.quantity"));
    site.salla.world().shop(1001).broken_lines.clear();
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((&run["status"], totals(&run)), (&json!("succeeded"), [9, 3, 0, 6, 0, 0]), "{run}");
    site.assert_lines(1001).await;
}

async fn refused_items_fail_their_order(engine: Engine) {
    let site = site(engine, 5).await;
    let refused = site.salla.world().shop(1001).orders[2].id;
    let rule = if site.database.is_postgres() {
        format!("ALTER TABLE order_items ADD CONSTRAINT odd CHECK (salla_order_id <> {refused})")
    } else {
        format!(
            "CREATE TRIGGER odd BEFORE INSERT ON order_items WHEN NEW.salla_order_id = {refused} \
             BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )
    };
    site.database.execute(&rule, []).await;
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((&run["status"], totals(&run)), (&json!("partial"), [5, 4, 0, 0, 0, 1]), "{run}");
    let rule =
        if site.database.is_postgres() { "ALTER TABLE order_items DROP CONSTRAINT odd" } else { "DROP TRIGGER odd" };
    site.database.execute(rule, []).await;
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    site.assert_lines(1001).await;
}

/// Each page is asked for in the same size, or lines between two of them would be lost.
async fn items_on_several_pages(engine: Engine) {
    let site = site(engine, 1).await;
    let page = |line: i64| {
        let body = json!({"status": 200, "success": true, "data": [{"id": line, "sku": "a"}],
            "pagination": {"count": 1, "total": 2, "perPage": 1, "currentPage": line, "totalPages": 2}});
        Fault::ok("application/json", &body.to_string())
    };
    site.salla.world().script(1001, [Fault::Hang(std::time::Duration::ZERO), page(1), page(2)]);
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((&run["status"], totals(&run)), (&json!("succeeded"), [1, 1, 0, 0, 0, 0]), "{run}");
    let positions = "SELECT count(*) FROM order_items WHERE position + 1 = salla_item_id";
    assert_eq!(site.database.number(positions).await, 2);
    let world = site.salla.world();
    let asked: Vec<_> = world.seen.iter().filter(|seen| seen.list == "orders/items").map(|seen| &seen.query).collect();
    assert_eq!(asked.iter().map(|query| query["page"].as_str()).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(asked[0]["per_page"], asked[1]["per_page"]);
}

async fn a_server_as_documented(engine: Engine) {
    let site = site(engine, 6).await;
    site.salla.world().documented = true;
    let run = site.reconcile(1001, &["--full"]).await;
    assert_eq!((totals(&run), asked_for(&site)), ([6, 6, 0, 0, 0, 0], 6), "{run}");
    site.assert_lines(1001).await;
    let run = site.reconcile(1001, &[]).await;
    assert_eq!((totals(&run), asked_for(&site)), ([6, 0, 0, 6, 0, 0], 6), "{run}");
}
