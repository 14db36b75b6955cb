//! Orders in the shapes of Salla's published examples. `SALLA_SAMPLES` names a folder of them, which is not part of the
//! project. With such a folder, its orders must go through a whole run.

use salla_reconciler::{
    domain::{Customer, Order, OrderStatus, Product},
    salla::ApiResource,
    simulator::{Fault, Shop},
};
use serde_json::Value;

use crate::support::{Engine, Site, site::totals};

on_every_database!(orders_in_salla_s_own_shapes);

/// Passes the other kinds of record through their transforms.
fn reads<R: ApiResource>(rows: &Value) {
    for row in rows["data"].as_array().unwrap() {
        R::transform(&row.to_string().into())
            .and_then(|record| record.hash())
            .unwrap_or_else(|bad| panic!("{bad}: {row}"));
    }
}

fn sample(folder: &str, name: &str) -> Value {
    let path = std::path::Path::new(folder).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn other_records_in_salla_s_own_shapes() {
    let Ok(folder) = std::env::var("SALLA_SAMPLES") else {
        println!("SALLA_SAMPLES names no folder of samples: nothing to try");
        return;
    };
    let read = |name: &str| sample(&folder, name);
    reads::<Product>(&read("product-list-1.json"));
    reads::<Customer>(&read("customer-list-1.json"));
    reads::<OrderStatus>(&read("order-statuses-1.json"));
    let (_, _, line) = Order::ITEMS.unwrap();
    for row in read("order-items-1.json")["data"].as_array().unwrap() {
        let line = line(&row.to_string()).unwrap();
        assert!(line.sku.is_some() && line.price_amount.is_some() && line.quantity.is_some(), "{line:?}");
    }
}

async fn orders_in_salla_s_own_shapes(engine: Engine) {
    let Ok(folder) = std::env::var("SALLA_SAMPLES") else {
        println!("SALLA_SAMPLES names no folder of samples: nothing to try");
        return;
    };
    let read = |name: &str| sample(&folder, name);
    let mut orders: Vec<Value> = ["orders-list-1.json", "orders-list-3.json"]
        .iter()
        .flat_map(|name| read(name)["data"].as_array().unwrap().clone())
        .collect();
    orders.extend(["order-detail-1.json", "order-detail-2.json"].map(|name| read(name)["data"].clone()));
    // A listing that honours updated_at_min returns rows with updated_at; list rows have none.
    for order in &mut orders {
        if order["updated_at"].is_null() {
            order["updated_at"] = order["date"].clone();
        }
    }
    for order in &orders {
        let read = Order::transform(&order.to_string().into()).unwrap_or_else(|bad| panic!("{bad}: {order}"));
        assert!(
            read.columns.total_amount.is_some() && read.columns.currency.is_some() && read.columns.status.is_some(),
            "{order}"
        );
    }
    let mut ids: Vec<String> = orders.iter().map(|order| order["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    let site = Site::new(engine, [Shop::seeded(1001, 0, chrono::Utc::now())]).await;
    site.salla.world().shop(1001).raw_rows.extend(orders.iter().map(Value::to_string));
    let distinct = ids.len() as u64;
    assert_eq!(totals(&site.reconcile(1001, &["--full"]).await), [distinct, distinct, 0, 0, 0, 0]);
    assert_eq!(totals(&site.reconcile(1001, &["--full"]).await), [distinct, 0, 0, distinct, 0, 0]);

    for (file, kind) in [
        ("error-401-scope-1.json", "missing_scope"),
        ("error-401-deleted-user-1.json", "needs_reauthorization"),
        ("error-401-inactive-user-1.json", "needs_reauthorization"),
        ("error-404-numeric-code-1.json", "salla_request_rejected"),
        ("error-422-single-1.json", "salla_request_rejected"),
    ] {
        let body = read(file);
        let status = u16::try_from(body["status"].as_u64().unwrap()).unwrap();
        let fault = Fault::Answer {
            status,
            headers: vec![("content-type", "application/json".into())],
            body: body.to_string(),
        };
        site.salla.world().always.insert(1001, fault);
        // Of a merchant that was refused, nothing is asked any more.
        site.register(1001).await;
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["error"]["kind"], kind, "{file}: {run}");
    }
    assert_eq!(site.salla.world().refreshes, 0);
}
