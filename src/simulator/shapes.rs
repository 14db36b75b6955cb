//! Orders as Salla writes them: the complete row that the specification promises, the summary of the documented
//! list, and the details.

use chrono::{DateTime, FixedOffset, NaiveDate, Utc};
use serde_json::{Value, json};

use super::shop::{Order, STATUSES};

const PAYMENTS: [&str; 4] = ["mada", "bank", "credit_card", "cod"];
const GOODS: [&str; 5] = ["قميص قطني أبيض", "عطر العود الملكي", "سماعات لاسلكية", "تمر سكري فاخر", "Leather wallet"];
const BUYERS: [(&str, &str); 4] = [("نورة", "الرياض"), ("عبدالله", "جدة"), ("ريم", "الدمام"), ("Omar", "أبها")];

/// The fields that the documented list shows, if the order has them.
const SUMMARY: [&str; 14] = [
    "id",
    "reference_id",
    "total",
    "exchange_rate",
    "date",
    "status",
    "can_cancel",
    "can_reorder",
    "draft",
    "read",
    "is_pending_payment",
    "payment_method",
    "items",
    "customer",
];

/// Riyadh's time, which has no summer.
pub fn riyadh(at: DateTime<Utc>) -> chrono::NaiveDateTime {
    FixedOffset::east_opt(3 * 3600).map_or(at.naive_utc(), |zone| at.with_timezone(&zone).naive_local())
}

/// The day in Riyadh.
pub fn day(at: DateTime<Utc>) -> NaiveDate {
    riyadh(at).date()
}

/// Salla's way of writing an instant.
pub fn date(at: DateTime<Utc>) -> Value {
    let text = riyadh(at).format("%Y-%m-%d %H:%M:%S.000000");
    json!({"date": text.to_string(), "timezone_type": 3, "timezone": "Asia/Riyadh"})
}

/// Hundredths as Salla writes them: sometimes a number, sometimes a text.
pub fn amount(hundredths: i64, id: i64) -> Value {
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    if id % 3 == 0 {
        return Value::String(text);
    }
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

impl Order {
    /// The slug of the status.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        STATUSES[self.status].0
    }

    /// The id of the customer who placed the order. An order that shows no customer also has one.
    #[must_use]
    pub fn customer_id(&self) -> i64 {
        1_473_353_380 + self.id % 1000
    }

    /// All of the order.
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
            "can_cancel": false, "can_reorder": true, "draft": self.draft, "read": kind % 2 == 0,
            "is_pending_payment": self.status == 0,
            "pending_payment_ends_at": 0,
            "total_weight": "٠٫٥١ كجم",
            "source": "store", "source_details": {"type": "direct", "device": "mobile", "ip": "198.51.100.7"},
            "customer": {
                "id": self.customer_id(), "first_name": buyer, "last_name": "العتيبي", "city": city, "country": "السعودية",
                "country_code": "SA", "birthday": {}, "location": "null", "mobile": 500_000_000 + self.customer_id() % 100_000_000,
                "mobile_code": "+966", "email": format!("customer-{}@example.com", self.customer_id()),
            },
            "receiver": {"name": buyer, "note": self.note, "phone": format!("966{}", 500_000_000 + self.customer_id() % 100_000_000)},
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

    /// What the documented list shows of it at `now`.
    #[must_use]
    pub fn summary(&self, now: DateTime<Utc>) -> Value {
        let mut summary = self.json();
        if let Some(fields) = summary.as_object_mut() {
            fields.retain(|name, _| SUMMARY.contains(&name.as_str()));
            let left = (self.created_at.timestamp() + 172_800 - now.timestamp()).max(0);
            fields.insert("pending_payment_ends_at".to_owned(), json!(left));
            fields.insert("features".to_owned(), json!({"digitalable": false, "shippable": true}));
            if let Some(item) = fields.get_mut("items").and_then(|items| items.get_mut(0)) {
                item["thumbnail"] = json!(format!("https://cdn.example/{}?t={}", self.id, now.timestamp()));
            }
        }
        summary
    }

    /// The details at `now`, as the order's own address shows them. Another address has the items. Each answer has
    /// newly signed links.
    #[must_use]
    pub fn detail(&self, now: DateTime<Utc>) -> Value {
        let mut detail = self.json();
        if let Some(fields) = detail.as_object_mut() {
            fields.remove("total");
            fields.insert("items".to_owned(), Value::Null);
            fields.insert("currency".to_owned(), json!(self.currency));
            let rating = format!("https://shop.example/rate/{}?signature={}", self.id, now.timestamp_micros());
            fields.insert("urls".to_owned(), json!({"customer": "https://shop.example/orders", "rating": rating}));
        }
        detail
    }
}
