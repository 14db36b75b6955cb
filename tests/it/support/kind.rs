//! Kinds of record, so that one definition of a suite tries each of them.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use salla_reconciler::{
    domain::Resource,
    simulator::{Customer, Item, Order, OrderStatus, Product, Shop},
};
use sea_orm::QueryResult;
use serde_json::Value;

/// A kind of record on both sides.
pub trait Kind: Item + Clone + PartialEq {
    const RESOURCE: Resource;

    /// Where the platform keeps them, and in which column Salla's id stands.
    const TABLE: &'static str;
    const ID: &'static str;

    /// Whether Salla says when one was last changed.
    const DATED: bool = true;

    /// The values of the columns that only this kind has.
    fn columns(&self) -> Vec<(&'static str, Cell)>;

    /// Whether it is to be held: Salla lists no drafts.
    fn is_to_be_held(&self) -> bool {
        true
    }

    /// The payload that Salla sends; `documented`: as the record's own address shows it if lists hold summaries.
    fn shown(&self, documented: bool) -> Value;

    /// What a webhook brings of it.
    fn payload(&self) -> Value {
        self.shown(false)
    }

    /// A column that holds a text, which a change changes.
    const WORD: &'static str;

    /// What belongs into that column.
    fn word(&self) -> String;

    /// A number of the record's that its payload shows.
    fn note(&self) -> i64;

    /// That number in a payload.
    fn note_in(payload: &Value) -> i64;

    /// Whether a list shows no more than a summary of it, by which `note` cannot be seen to change.
    fn is_summarised(&self, documented: bool) -> bool;

    /// Changes nothing but `note`, if that is something that happens.
    fn whisper(shop: &mut Shop, id: i64, at: DateTime<Utc>);
}

/// A value of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Number(Option<i64>),
    Text(Option<String>),
    Amount(Option<Decimal>),
    Instant(Option<DateTime<Utc>>),
    Flag(Option<bool>),
}

impl Cell {
    /// What stands in a column where this belongs.
    pub fn held(&self, row: &QueryResult, column: &str) -> Self {
        match self {
            Self::Number(_) => Self::Number(row.try_get("", column).unwrap()),
            Self::Text(_) => Self::Text(row.try_get("", column).unwrap()),
            Self::Instant(_) => Self::Instant(row.try_get("", column).unwrap()),
            Self::Flag(_) => Self::Flag(row.try_get("", column).unwrap()),
            Self::Amount(_) => {
                let text: Option<String> = row.try_get("", column).unwrap();
                Self::Amount(text.map(|text| text.parse().unwrap()))
            }
        }
    }

    /// As a parameter; an amount goes as a text.
    pub fn value(&self) -> sea_orm::Value {
        match self.clone() {
            Self::Number(number) => number.into(),
            Self::Text(text) => text.into(),
            Self::Instant(instant) => instant.into(),
            Self::Flag(flag) => flag.into(),
            Self::Amount(amount) => amount.map(|amount| amount.to_string()).into(),
        }
    }
}

/// An amount as the simulator writes it.
fn decimal(value: &Value) -> Option<Decimal> {
    match value {
        Value::String(text) => Some(text.parse().unwrap()),
        Value::Number(number) => Some(number.to_string().parse().unwrap()),
        _ => None,
    }
}

fn text(value: &Value) -> Cell {
    Cell::Text(value.as_str().map(str::to_owned))
}

impl Kind for Order {
    const RESOURCE: Resource = Resource::Orders;
    const TABLE: &'static str = "orders";
    const ID: &'static str = "salla_order_id";

    fn columns(&self) -> Vec<(&'static str, Cell)> {
        vec![
            ("reference_id", Cell::Number(Some(self.reference_id))),
            ("status", Cell::Text(Some(self.slug().to_owned()))),
            ("currency", Cell::Text(Some(self.currency.to_owned()))),
            ("total_amount", Cell::Amount(Some(Decimal::new(self.total, 2)))),
            ("salla_created_at", Cell::Instant(Some(self.created_at))),
        ]
    }

    fn is_to_be_held(&self) -> bool {
        !self.draft
    }

    fn shown(&self, documented: bool) -> Value {
        if documented { self.detail(Utc::now()) } else { self.json() }
    }

    const WORD: &'static str = "status";

    fn word(&self) -> String {
        self.slug().to_owned()
    }

    fn note(&self) -> i64 {
        i64::from(self.note)
    }

    fn note_in(payload: &Value) -> i64 {
        payload["receiver"]["note"].as_i64().unwrap()
    }

    fn is_summarised(&self, documented: bool) -> bool {
        documented && self.note > 0
    }

    fn whisper(shop: &mut Shop, id: i64, at: DateTime<Utc>) {
        shop.whisper(id, at);
    }
}

impl Kind for Product {
    const RESOURCE: Resource = Resource::Products;
    const TABLE: &'static str = "products";
    const ID: &'static str = "salla_product_id";

    fn columns(&self) -> Vec<(&'static str, Cell)> {
        let json = self.json();
        vec![
            ("name", text(&json["name"])),
            ("sku", text(&json["sku"])),
            ("product_type", text(&json["type"])),
            ("status", Cell::Text(Some(self.word()))),
            ("currency", Cell::Text(Some("SAR".to_owned()))),
            ("price_amount", Cell::Amount(Some(Decimal::new(self.price, 2)))),
            ("sale_price_amount", Cell::Amount(decimal(&json["sale_price"]["amount"]))),
            ("cost_amount", Cell::Amount(decimal(&json["cost_price"]))),
            ("quantity", Cell::Number(Some(self.quantity))),
            ("is_available", Cell::Flag(Some(self.status == 0))),
        ]
    }

    fn shown(&self, _: bool) -> Value {
        self.json()
    }

    const WORD: &'static str = "status";

    fn word(&self) -> String {
        self.status_word().to_owned()
    }

    fn note(&self) -> i64 {
        self.quantity
    }

    fn note_in(payload: &Value) -> i64 {
        let quantity = &payload["quantity"];
        quantity.as_i64().or_else(|| quantity.as_str()?.parse().ok()).unwrap()
    }

    fn is_summarised(&self, _: bool) -> bool {
        false
    }

    fn whisper(shop: &mut Shop, id: i64, at: DateTime<Utc>) {
        Self::change(shop, id, at);
    }
}

impl Kind for Customer {
    const RESOURCE: Resource = Resource::Customers;
    const TABLE: &'static str = "customers";
    const ID: &'static str = "salla_customer_id";

    fn columns(&self) -> Vec<(&'static str, Cell)> {
        let json = self.json();
        let mobile = json["mobile"]
            .as_i64()
            .map_or_else(|| text(&json["mobile"]), |mobile| Cell::Text(Some(mobile.to_string())));
        let born = json["birthday"]["date"].as_str().map(|born| born[..10].to_owned());
        let country = json["country"].as_str().filter(|country| *country != "null").map(str::to_owned);
        vec![
            ("first_name", text(&json["first_name"])),
            ("last_name", text(&json["last_name"])),
            ("email", text(&json["email"])),
            ("mobile", mobile),
            ("mobile_code", text(&json["mobile_code"])),
            ("gender", text(&json["gender"])),
            ("birthday", Cell::Text(born)),
            ("city", text(&json["city"])),
            ("country", Cell::Text(country)),
            ("country_code", text(&json["country_code"])),
            ("currency", text(&json["currency"])),
            ("language", text(&json["lang"])),
            ("salla_created_at", Cell::Instant(Some(self.created_at))),
        ]
    }

    fn shown(&self, _: bool) -> Value {
        self.json()
    }

    const WORD: &'static str = "city";

    fn word(&self) -> String {
        self.city_name().to_owned()
    }

    fn note(&self) -> i64 {
        self.points
    }

    fn note_in(payload: &Value) -> i64 {
        payload["total_points"].as_i64().unwrap()
    }

    fn is_summarised(&self, _: bool) -> bool {
        false
    }

    fn whisper(shop: &mut Shop, id: i64, at: DateTime<Utc>) {
        Self::change(shop, id, at);
    }
}

impl Kind for OrderStatus {
    const RESOURCE: Resource = Resource::OrderStatuses;
    const TABLE: &'static str = "order_statuses";
    const ID: &'static str = "salla_status_id";
    const DATED: bool = false;

    fn columns(&self) -> Vec<(&'static str, Cell)> {
        let json = self.json();
        let original = &json["original"]["id"];
        let original = original.as_i64().or_else(|| original.as_str()?.parse().ok());
        vec![
            ("name", Cell::Text(Some(self.name()))),
            ("slug", text(&json["slug"])),
            ("status_type", text(&json["type"])),
            ("parent_id", Cell::Number(json["parent"]["id"].as_i64())),
            ("original_id", Cell::Number(original)),
        ]
    }

    fn shown(&self, _: bool) -> Value {
        self.json()
    }

    const WORD: &'static str = "name";

    fn word(&self) -> String {
        self.name()
    }

    fn note(&self) -> i64 {
        self.json()["name"].as_str().unwrap().split(' ').next_back().unwrap().parse().unwrap()
    }

    fn note_in(payload: &Value) -> i64 {
        payload["name"].as_str().unwrap().split(' ').next_back().unwrap().parse().unwrap()
    }

    fn is_summarised(&self, _: bool) -> bool {
        false
    }

    fn whisper(shop: &mut Shop, id: i64, at: DateTime<Utc>) {
        Self::change(shop, id, at);
    }
}

/// Ids of a store's, in no order.
pub fn any_id<K: Kind>(shop: &Shop, pick: impl FnOnce(usize) -> usize) -> Option<i64> {
    let all = K::all(shop);
    (!all.is_empty()).then(|| all[pick(all.len())].id())
}
