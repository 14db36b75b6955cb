//! A store and its orders, in Salla's shapes: Arabic text, fields that are missing now and then, several
//! statuses and currencies.

use chrono::{DateTime, FixedOffset, TimeDelta, Utc};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

const STATUSES: [(&str, &str); 8] = [
    ("payment_pending", "بإنتظار الدفع"),
    ("under_review", "بإنتظار المراجعة"),
    ("in_progress", "قيد التنفيذ"),
    ("delivering", "جاري التوصيل"),
    ("shipped", "تم الشحن"),
    ("delivered", "تم التوصيل"),
    ("completed", "تم التنفيذ"),
    ("canceled", "ملغي"),
];
const CURRENCIES: [&str; 4] = ["SAR", "AED", "KWD", "USD"];
const PAYMENTS: [&str; 4] = ["mada", "bank", "credit_card", "cod"];
const GOODS: [&str; 5] = ["قميص قطني أبيض", "عطر العود الملكي", "سماعات لاسلكية", "تمر سكري فاخر", "Leather wallet"];
const BUYERS: [(&str, &str); 4] = [("نورة", "الرياض"), ("عبدالله", "جدة"), ("ريم", "الدمام"), ("Omar", "أبها")];

/// An order of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Unique within the store, and in no order.
    pub id: i64,
    /// Rises with time.
    pub reference_id: i64,
    /// When it was placed.
    pub created_at: DateTime<Utc>,
    /// When it was last changed; whole seconds.
    pub updated_at: DateTime<Utc>,
    /// An index into the statuses.
    pub status: usize,
    /// In hundredths.
    pub total: i64,
    /// ISO 4217.
    pub currency: &'static str,
}

/// A store.
#[derive(Debug)]
pub struct Shop {
    /// Salla's id of it.
    pub merchant_id: i64,
    /// Its name.
    pub name: String,
    /// What it sold.
    pub orders: Vec<Order>,
    /// Rows that are listed as they stand here, behind the orders.
    pub raw_rows: Vec<String>,
    pub(super) access_token: String,
    pub(super) refresh_token: String,
    pub(super) revoked: bool,
    rng: StdRng,
}

impl Shop {
    /// A store with `orders` orders of the ninety days before `now`, the same for the same seed.
    #[must_use]
    pub fn seeded(merchant_id: i64, orders: usize, now: DateTime<Utc>) -> Self {
        let mut shop = Self {
            merchant_id,
            name: format!("متجر التجربة {merchant_id}"),
            orders: Vec::with_capacity(orders),
            raw_rows: Vec::new(),
            access_token: format!("ory_at_{merchant_id}_1"),
            refresh_token: format!("ory_rt_{merchant_id}_1"),
            revoked: false,
            rng: StdRng::seed_from_u64(u64::try_from(merchant_id).unwrap_or(0)),
        };
        for _ in 0..orders {
            let created = now - TimeDelta::seconds(shop.rng.random_range(2 * 86400..90 * 86400));
            shop.place(created);
        }
        shop
    }

    /// Places an order at `at`, and returns its id.
    pub fn place(&mut self, at: DateTime<Utc>) -> i64 {
        let at = whole_seconds(at);
        // An odd multiplier modulo a power of two: distinct, and scattered.
        let number = i64::try_from(self.orders.len()).unwrap_or(0);
        let id = 1_000_000_000 + (number * 2_654_435_761 + self.merchant_id) % (1 << 30);
        let order = Order {
            id,
            reference_id: 40_000_000 + number,
            created_at: at,
            updated_at: at,
            status: self.rng.random_range(0..3),
            total: self.rng.random_range(0..200_000),
            currency: CURRENCIES[self.rng.random_range(0..10usize).saturating_sub(6)],
        };
        self.orders.push(order);
        id
    }

    /// Moves an order on at `at`: another status, and now and then another total.
    pub fn touch(&mut self, id: i64, at: DateTime<Utc>) {
        let (step, change) = (self.rng.random_range(1..3), self.rng.random_bool(0.3));
        if let Some(order) = self.orders.iter_mut().find(|order| order.id == id) {
            order.status = (order.status + step) % STATUSES.len();
            order.total += i64::from(change) * 1_050;
            order.updated_at = whole_seconds(at).max(order.updated_at + TimeDelta::seconds(1));
        }
    }

    /// Its present access and refresh tokens.
    #[must_use]
    pub fn tokens(&self) -> (&str, &str) {
        (&self.access_token, &self.refresh_token)
    }

    /// An id of the store's, picked at random.
    pub fn any_id(&mut self) -> Option<i64> {
        let count = self.orders.len();
        (count > 0).then(|| self.orders[self.rng.random_range(0..count)].id)
    }
}

fn whole_seconds(at: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(at.timestamp(), 0).unwrap_or(at)
}

/// Salla's way of writing an instant.
fn date(at: DateTime<Utc>) -> Value {
    let riyadh = FixedOffset::east_opt(3 * 3600).map(|zone| at.with_timezone(&zone).naive_local());
    let text = riyadh.unwrap_or_else(|| at.naive_utc()).format("%Y-%m-%d %H:%M:%S.000000");
    json!({"date": text.to_string(), "timezone_type": 3, "timezone": "Asia/Riyadh"})
}

/// Hundredths as Salla writes them: sometimes a number, sometimes a text.
fn amount(hundredths: i64, id: i64) -> Value {
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    if id % 3 == 0 {
        return Value::String(text);
    }
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

impl Order {
    /// The slug of its status.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        STATUSES[self.status].0
    }

    /// The order as Salla writes it.
    #[must_use]
    pub fn json(&self) -> Value {
        let (slug, label) = STATUSES[self.status];
        let kind = usize::try_from(self.id).unwrap_or(0);
        let (buyer, city) = BUYERS[kind % BUYERS.len()];
        let money = |hundredths| json!({"amount": amount(hundredths, self.id), "currency": self.currency});
        let mut order = json!({
            "id": if self.id % 5 == 0 { json!(self.id.to_string()) } else { json!(self.id) },
            "reference_id": self.reference_id,
            "total": money(self.total),
            "date": date(self.created_at),
            "updated_at": date(self.updated_at),
            "status": {"id": 566_146_469 + self.status, "name": label, "slug": slug, "customized": if kind % 2 == 0 { json!({"id": 986_688_842, "name": label}) } else { Value::Null }},
            "currency": self.currency,
            "amounts": {
                "sub_total": money(self.total * 100 / 115), "shipping_cost": money(0),
                "tax": {"percent": "15.00", "amount": money(self.total - self.total * 100 / 115)},
                "discounts": [], "total": money(self.total),
            },
            "can_cancel": false, "can_reorder": true, "draft": false, "read": kind % 2 == 0,
            "is_pending_payment": self.status == 0,
            "pending_payment_ends_at": 0,
            "total_weight": "٠٫٥١ كجم",
            "customer": {"id": 1_473_353_380 + kind % 1000, "first_name": buyer, "city": city, "country": "السعودية", "country_code": "SA", "birthday": {}, "location": "null"},
            "items": [{"name": GOODS[kind % GOODS.len()], "quantity": 1 + kind % 4}],
            "tags": [], "bank": null,
        });
        if let Some(fields) = order.as_object_mut() {
            if kind % 4 != 0 {
                fields.insert("payment_method".to_owned(), json!(PAYMENTS[kind % PAYMENTS.len()]));
            }
            if kind % 7 == 0 {
                fields.remove("currency");
                fields.remove("customer");
            }
            if kind % 6 == 0 {
                fields.insert(
                    "exchange_rate".to_owned(),
                    json!({"base_currency": "SAR", "exchange_currency": "USD", "rate": amount(27, 1)}),
                );
            }
        }
        order
    }
}
