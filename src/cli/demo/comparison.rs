//! Compares the local copies with the simulated Salla.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use serde_json::Value;

use super::stores::{DemoStore, Situation, payload, total};

/// Compares the columns and the payload of each order that can be read. A store that refuses the tokens is left out.
///
/// # Errors
/// When an order differs or is missing, or the database fails.
pub async fn compare(local: &DatabaseConnection, stores: &[DemoStore]) -> anyhow::Result<()> {
    for store in stores.iter().filter(|store| store.situation != Situation::Unauthorized) {
        let merchant_id = store.merchant_id;
        let differing = differing(local, store).await?;
        if !differing.is_empty() {
            anyhow::bail!(
                "orders {differing:?} of merchant {merchant_id} differ from the simulated Salla: this is a defect"
            );
        }
    }
    Ok(())
}

async fn differing(local: &DatabaseConnection, store: &DemoStore) -> anyhow::Result<Vec<i64>> {
    let sql = "SELECT salla_order_id, reference_id, status, currency, total_amount, salla_created_at, salla_updated_at, payload FROM orders \
               WHERE merchant_id = $1 AND deleted_at IS NULL";
    let values = [store.merchant_id.into()];
    let statement = Statement::from_sql_and_values(local.get_database_backend(), sql, values);
    let mut held = HashMap::new();
    for row in local.query_all_raw(statement).await? {
        let texts: [String; 3] =
            [row.try_get("", "status")?, row.try_get("", "currency")?, row.try_get("", "total_amount")?];
        let times: [DateTime<Utc>; 2] = [row.try_get("", "salla_created_at")?, row.try_get("", "salla_updated_at")?];
        let columns = (row.try_get::<i64>("", "reference_id")?, texts, times);
        let payload: Value = serde_json::from_str(&row.try_get::<String>("", "payload")?)?;
        held.insert(row.try_get::<i64>("", "salla_order_id")?, (columns, without_urls(payload)));
    }
    let mut differing = Vec::new();
    for order in &store.orders {
        let texts = [order.slug().to_owned(), order.currency.to_owned(), total(order)];
        let columns = (order.reference_id, texts, [order.created_at, order.updated_at]);
        let expected = (columns, without_urls(payload(order, store.listing)));
        if held.remove(&order.id) != Some(expected) {
            differing.push(order.id);
        }
    }
    differing.extend(held.into_keys());
    Ok(differing)
}

/// Each answer has newly signed addresses.
fn without_urls(mut payload: Value) -> Value {
    if let Some(fields) = payload.as_object_mut() {
        fields.remove("urls");
    }
    payload
}
