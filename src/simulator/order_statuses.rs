//! The statuses that stores give their orders, as Salla writes them: all in one piece, and without dates.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    item::{Item, Params},
    shop::{STATUSES, Shop, whole_seconds},
    world::World,
};

const NAMES: [&str; 4] = ["بنجهز طلبك", "في الطريق إليك", "وصل طلبك", "Ready for pickup"];

/// A status of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderStatus {
    /// Unique within the store, and in no order.
    pub id: i64,
    /// When it was created. Salla never shows this.
    pub created_at: DateTime<Utc>,
    /// When it was last changed, likewise.
    pub updated_at: DateTime<Utc>,
    /// An index into Salla's own.
    pub original: usize,
    /// How often it was renamed.
    pub renamed: usize,
}

impl OrderStatus {
    /// What the store calls it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {}", NAMES[self.renamed % NAMES.len()], self.renamed)
    }

    /// All of the status.
    #[must_use]
    pub fn json(&self) -> Value {
        let (slug, label) = STATUSES[self.original];
        let original = 566_146_469 + self.original;
        json!({
            "id": self.id, "name": self.name(), "type": "custom", "slug": slug, "message": "", "icon": "sicon-box",
            "parent": if self.id % 2 == 0 { Value::Null } else { json!({"id": self.id + 1, "name": label}) },
            "original": {"id": if self.id % 3 == 0 { json!(original.to_string()) } else { json!(original) }, "name": label},
        })
    }
}

impl Shop {
    /// The store, with `statuses` additional statuses.
    #[must_use]
    pub fn with_statuses(mut self, statuses: usize, now: DateTime<Utc>) -> Self {
        for _ in 0..statuses {
            OrderStatus::add(&mut self, now);
        }
        self
    }
}

impl Item for OrderStatus {
    const LIST: &'static str = "orders/statuses";

    const SCOPE: &'static str = "orders.read";

    const PAGED: bool = false;

    const HAS_ADDRESS: bool = false;

    fn all(shop: &Shop) -> &[Self] {
        &shop.order_statuses
    }

    fn all_mut(shop: &mut Shop) -> &mut Vec<Self> {
        &mut shop.order_statuses
    }

    fn raw(shop: &Shop) -> &[String] {
        &shop.raw_order_statuses
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
        let id = 566_000_000 + (number * 2_654_435_761 + shop.merchant_id) % (1 << 28);
        let original = usize::try_from(number).unwrap_or(0) % STATUSES.len();
        shop.order_statuses.push(Self { id, created_at: at, updated_at: at, original, renamed: 0 });
        id
    }

    fn change(shop: &mut Shop, id: i64, at: DateTime<Utc>) {
        if let Some(status) = shop.order_statuses.iter_mut().find(|status| status.id == id) {
            status.renamed += 1;
            status.updated_at = whole_seconds(at);
        }
    }
}
