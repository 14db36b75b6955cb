//! Products of stores, as Salla writes them: numbers as texts, bare dates, and empty objects for missing values.

use chrono::{DateTime, TimeDelta, Utc};
use rand::RngExt;
use serde_json::{Value, json};

use super::{
    item::{Item, Params},
    shapes::{amount, riyadh},
    shop::{Shop, whole_seconds},
    world::World,
};

const NAMES: [&str; 5] = ["قميص قطني أبيض", "عطر العود الملكي", "سماعات لاسلكية", "تمر سكري فاخر", "Leather wallet"];
const STATUSES: [&str; 3] = ["sale", "out", "hidden"];

/// A product of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Unique within the store, and in no order.
    pub id: i64,
    /// When it was put on sale.
    pub created_at: DateTime<Utc>,
    /// When it was last changed; whole seconds.
    pub updated_at: DateTime<Utc>,
    /// An index into the statuses.
    pub status: usize,
    /// In hundredths.
    pub price: i64,
    /// In stock.
    pub quantity: i64,
}

impl Product {
    /// Salla's word for where it stands.
    #[must_use]
    pub fn status_word(&self) -> &'static str {
        STATUSES[self.status]
    }

    /// All of the product.
    #[must_use]
    pub fn json(&self) -> Value {
        let kind = usize::try_from(self.id).unwrap_or(0);
        let money = |hundredths| json!({"amount": amount(hundredths, self.id), "currency": "SAR"});
        let stock = if kind % 2 == 0 { json!(self.quantity.to_string()) } else { json!(self.quantity) };
        json!({
            "id": self.id, "name": NAMES[kind % NAMES.len()], "sku": format!("SKU-{}", self.id % 10_000),
            "type": "product", "price": money(self.price), "taxed_price": money(self.price * 115 / 100),
            "sale_price": if kind % 3 == 0 { money(self.price / 2) } else { json!({}) }, "sale_end": {},
            "cost_price": if kind % 4 == 0 { Value::Null } else { json!(format!("{}", self.price / 300)) },
            "quantity": stock, "status": self.status_word(), "is_available": self.status == 0, "views": kind % 97,
            "weight_label": "١ كجم", "calories": "350", "options": [],
            "urls": {"customer": format!("https://shop.example/p{}", self.id)},
            "skus": [{"id": self.id + 1, "sale_price": {}, "stock_quantity": self.quantity}],
            "updated_at": riyadh(self.updated_at).format("%Y-%m-%d %H:%M:%S").to_string(),
        })
    }
}

impl Shop {
    /// The store, with `products` products of the ninety days before `now`.
    #[must_use]
    pub fn stocked(mut self, products: usize, now: DateTime<Utc>) -> Self {
        for _ in 0..products {
            let at = now - TimeDelta::seconds(self.rng.random_range(2 * 86400..90 * 86400));
            Product::add(&mut self, at);
        }
        self
    }
}

impl Item for Product {
    const LIST: &'static str = "products";

    const SCOPE: &'static str = "products.read";

    fn all(shop: &Shop) -> &[Self] {
        &shop.products
    }

    fn all_mut(shop: &mut Shop) -> &mut Vec<Self> {
        &mut shop.products
    }

    fn raw(shop: &Shop) -> &[String] {
        &shop.raw_products
    }

    fn id(&self) -> i64 {
        self.id
    }

    fn created_at(&self) -> DateTime<Utc> {
        self.created_at
    }

    fn updated_at(&self) -> DateTime<Utc> {
        self.updated_at
    }

    /// The list shows every product, because it knows no filter by date.
    fn is_listed(&self, _: &World, _: &Shop, _: &Params) -> bool {
        true
    }

    fn row(&self, _: &World, _: &Shop) -> String {
        self.json().to_string()
    }

    fn single(&self, _: &World, _: &Shop) -> String {
        self.json().to_string()
    }

    fn add(shop: &mut Shop, at: DateTime<Utc>) -> i64 {
        let (at, number) = (whole_seconds(at), shop.next_number());
        let id = 1_500_000_000 + (number * 2_654_435_761 + shop.merchant_id) % (1 << 29);
        let (price, quantity) = (shop.rng.random_range(500..90_000), shop.rng.random_range(0..300));
        shop.products.push(Self { id, created_at: at, updated_at: at, status: 0, price, quantity });
        id
    }

    fn change(shop: &mut Shop, id: i64, at: DateTime<Utc>) {
        let sold = shop.rng.random_range(1..5);
        if let Some(product) = shop.products.iter_mut().find(|product| product.id == id) {
            product.quantity = (product.quantity - sold).max(0);
            product.status = usize::from(product.quantity == 0);
            product.price += sold * 25;
            product.updated_at = whole_seconds(at).max(product.updated_at + TimeDelta::seconds(1));
        }
    }
}
