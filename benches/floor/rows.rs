//! Row by row, as the specification draws it: each order is looked up, and then inserted or updated.

use chrono::{DateTime, Utc};
use sea_orm::sqlx::{self, Row as _, postgres::PgArguments, query::Query};

use crate::{
    contender::Job,
    floor::{Order, parse},
};

pub async fn work(job: &Job) {
    for number in 1.. {
        let page = job.page(number).await;
        let (orders, is_last) = parse(&page);
        for order in orders {
            reconcile(job, &order).await;
        }
        if is_last {
            break;
        }
    }
}

async fn reconcile(job: &Job, order: &Order<'_>) {
    let held = sqlx::query("SELECT salla_updated_at FROM orders WHERE merchant_id = $1 AND salla_order_id = $2")
        .bind(job.merchant)
        .bind(order.id)
        .fetch_optional(&job.pool)
        .await
        .unwrap();
    let statement = match held.map(|row| row.get::<DateTime<Utc>, _>(0)) {
        Some(at) if at >= order.updated_at() => return,
        Some(_) => {
            "UPDATE orders SET reference_id = $3, status = $4, currency = $5, total_amount = $6, \
             salla_created_at = $7, salla_updated_at = $8, payload = $9::text::jsonb, content_hash = $10, \
             payload_hash = $11, revision = revision + 1, updated_at = now() WHERE merchant_id = $1 AND salla_order_id = $2"
        }
        None => {
            "INSERT INTO orders (merchant_id, salla_order_id, reference_id, status, currency, total_amount, \
             salla_created_at, salla_updated_at, payload, content_hash, payload_hash) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10, $11)"
        }
    };
    bound(statement, job.merchant, order).execute(&job.pool).await.unwrap();
}

fn bound<'q>(statement: &'static str, merchant: i64, order: &Order<'q>) -> Query<'q, sqlx::Postgres, PgArguments> {
    let (content_hash, payload_hash) = order.content_hash();
    sqlx::query(statement)
        .bind(merchant)
        .bind(order.id)
        .bind(order.reference_id)
        .bind(order.status())
        .bind(order.currency())
        .bind(order.total())
        .bind(order.created_at())
        .bind(order.updated_at())
        .bind(order.payload)
        .bind(content_hash)
        .bind(payload_hash)
}
