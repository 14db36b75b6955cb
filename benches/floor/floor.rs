//! The work alone: read a page, look up its orders, and write the ones that differ in one statement.

use std::collections::HashMap;

use chrono::{DateTime, FixedOffset, NaiveDateTime, TimeZone, Utc};
use rust_decimal::Decimal;
use salla_reconciler::domain::{ContentHash, PayloadHash};
use sea_orm::sqlx::{self, Row as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::contender::Job;

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    pagination: Pagination,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pagination {
    current_page: usize,
    total_pages: usize,
}

/// What of an order becomes columns.
#[derive(Deserialize)]
pub struct Order<'a> {
    #[serde(deserialize_with = "number_or_text")]
    pub id: i64,
    pub reference_id: i64,
    #[serde(borrow)]
    status: Status<'a>,
    #[serde(borrow)]
    total: Money<'a>,
    #[serde(borrow)]
    date: Date<'a>,
    #[serde(borrow)]
    updated_at: Date<'a>,
    #[serde(skip)]
    pub payload: &'a str,
}

#[derive(Deserialize)]
struct Status<'a> {
    slug: &'a str,
}

#[derive(Deserialize)]
struct Money<'a> {
    #[serde(borrow)]
    amount: &'a RawValue,
    currency: &'a str,
}

#[derive(Deserialize)]
struct Date<'a> {
    date: &'a str,
}

impl<'a> Order<'a> {
    fn of(row: &'a RawValue) -> Self {
        Self { payload: row.get(), ..serde_json::from_str(row.get()).unwrap() }
    }

    pub fn status(&self) -> &'a str {
        self.status.slug
    }

    pub fn currency(&self) -> &'a str {
        self.total.currency
    }

    pub fn total(&self) -> Decimal {
        self.total.amount.get().trim_matches('"').parse().unwrap()
    }

    pub fn created_at(&self) -> DateTime<Utc> {
        self.date.instant()
    }

    pub fn updated_at(&self) -> DateTime<Utc> {
        self.updated_at.instant()
    }

    /// As it is stored, and with it the payload hash.
    pub fn content_hash(&self) -> (String, Vec<u8>) {
        let content_hash = ContentHash::of_json(self.payload).unwrap();
        (content_hash.to_string(), PayloadHash::of(content_hash, self.payload).as_bytes().to_vec())
    }
}

impl Date<'_> {
    fn instant(&self) -> DateTime<Utc> {
        let naive = NaiveDateTime::parse_from_str(self.date, "%Y-%m-%d %H:%M:%S%.f").unwrap();
        FixedOffset::east_opt(3 * 3600).unwrap().from_local_datetime(&naive).unwrap().to_utc()
    }
}

fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    raw.get().trim_matches('"').parse().map_err(serde::de::Error::custom)
}

/// Reads a page; whether it is the last.
pub fn parse(page: &[u8]) -> (Vec<Order<'_>>, bool) {
    let page: Page<'_> = serde_json::from_slice(page).unwrap();
    let is_last = page.pagination.current_page >= page.pagination.total_pages;
    (page.data.into_iter().map(Order::of).collect(), is_last)
}

pub async fn work(job: &Job) {
    for number in 1.. {
        let page = job.page(number).await;
        let (orders, is_last) = parse(&page);
        let held = held(job, &orders).await;
        let differing: Vec<_> =
            orders.iter().filter(|order| held.get(&order.id).is_none_or(|at| *at < order.updated_at())).collect();
        if !differing.is_empty() {
            write(job, &differing).await;
        }
        if is_last {
            break;
        }
    }
}

async fn held(job: &Job, orders: &[Order<'_>]) -> HashMap<i64, DateTime<Utc>> {
    let ids: Vec<i64> = orders.iter().map(|order| order.id).collect();
    let rows = sqlx::query(
        "SELECT held.* FROM unnest($2::bigint[]) AS wanted CROSS JOIN LATERAL (SELECT salla_order_id, salla_updated_at \
         FROM orders WHERE merchant_id = $1 AND salla_order_id = wanted OFFSET 0) AS held",
    )
    .bind(job.merchant)
    .bind(ids)
    .fetch_all(&job.pool)
    .await
    .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn write(job: &Job, orders: &[&Order<'_>]) {
    let (content_hashes, digests): (Vec<_>, Vec<_>) = orders.iter().map(|order| order.content_hash()).unzip();
    sqlx::query(
        "INSERT INTO orders (merchant_id, salla_order_id, reference_id, status, currency, total_amount, \
         salla_created_at, salla_updated_at, payload, content_hash, payload_hash) \
         SELECT $1, id, reference, status, currency, total, created, updated, payload::jsonb, content_hash, payload_hash \
         FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::numeric[], $7::timestamptz[], \
         $8::timestamptz[], $9::text[], $10::text[], $11::bytea[]) \
         AS t(id, reference, status, currency, total, created, updated, payload, content_hash, payload_hash) \
         ON CONFLICT (merchant_id, salla_order_id) DO UPDATE SET reference_id = excluded.reference_id, \
         status = excluded.status, currency = excluded.currency, total_amount = excluded.total_amount, \
         salla_created_at = excluded.salla_created_at, salla_updated_at = excluded.salla_updated_at, \
         payload = excluded.payload, content_hash = excluded.content_hash, \
         payload_hash = excluded.payload_hash, revision = orders.revision + 1, updated_at = now()",
    )
    .bind(job.merchant)
    .bind(orders.iter().map(|order| order.id).collect::<Vec<_>>())
    .bind(orders.iter().map(|order| order.reference_id).collect::<Vec<_>>())
    .bind(orders.iter().map(|order| order.status()).collect::<Vec<_>>())
    .bind(orders.iter().map(|order| order.currency()).collect::<Vec<_>>())
    .bind(orders.iter().map(|order| order.total()).collect::<Vec<_>>())
    .bind(orders.iter().map(|order| order.created_at()).collect::<Vec<_>>())
    .bind(orders.iter().map(|order| order.updated_at()).collect::<Vec<_>>())
    .bind(orders.iter().map(|order| order.payload).collect::<Vec<_>>())
    .bind(content_hashes)
    .bind(digests)
    .execute(&job.pool)
    .await
    .unwrap();
}
