//! A store and its orders, and what happens to them.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    customers::Customer,
    fault::{Breakage, Fault},
    item::{Item, Params},
    order_statuses::OrderStatus,
    pages::within,
    products::Product,
    shapes::day,
    webhooks::Webhook,
    world::World,
};

pub(super) const STATUSES: [(&str, &str); 8] = [
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
    /// Not placed yet: in no list.
    pub draft: bool,
    /// Shown by the details only; raised by what no summary shows.
    pub note: u32,
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
    /// What it sells.
    pub products: Vec<Product>,
    /// Rows that are listed as they stand here, behind the products.
    pub raw_products: Vec<String>,
    /// The statuses that it gives its orders.
    pub order_statuses: Vec<OrderStatus>,
    /// Rows that are listed as they stand here, behind the statuses.
    pub raw_order_statuses: Vec<String>,
    /// Who buys.
    pub customers: Vec<Customer>,
    /// Rows that are listed as they stand here, behind the customers.
    pub raw_customers: Vec<String>,
    /// What goes wrong with each request for one record, whatever its kind, by its id.
    pub broken: HashMap<i64, Fault>,
    /// How records break the answers that show them, by id, for every kind.
    pub breaks: HashMap<i64, Breakage>,
    /// What goes wrong with each request for an order's lines, by its id.
    pub broken_lines: HashMap<i64, Fault>,
    /// Scopes that the app was not given.
    pub withheld: Vec<&'static str>,
    /// The server treats this store as its public documentation says: see [`World::documented`].
    pub documented: bool,
    /// Orders that the list shows as they once were.
    pub stale: HashMap<i64, Order>,
    numbered: i64,
    pub(super) access_token: String,
    pub(super) refresh_token: String,
    pub(super) revoked: bool,
    pub(super) rng: StdRng,
}

impl Shop {
    /// A store with `orders` orders of the ninety days before `now`, the same for the same id.
    #[must_use]
    pub fn seeded(merchant_id: i64, orders: usize, now: DateTime<Utc>) -> Self {
        Self::with_seed(merchant_id, orders, now, u64::try_from(merchant_id).unwrap_or(0))
    }

    /// A store with `orders` orders of the ninety days before `now`, the same for the same seed.
    #[must_use]
    pub fn with_seed(merchant_id: i64, orders: usize, now: DateTime<Utc>, seed: u64) -> Self {
        let mut shop = Self {
            merchant_id,
            name: format!("متجر التجربة {merchant_id}"),
            orders: Vec::with_capacity(orders),
            raw_rows: Vec::new(),
            products: Vec::new(),
            raw_products: Vec::new(),
            order_statuses: Vec::new(),
            raw_order_statuses: Vec::new(),
            customers: Vec::new(),
            raw_customers: Vec::new(),
            broken: HashMap::new(),
            breaks: HashMap::new(),
            broken_lines: HashMap::new(),
            withheld: Vec::new(),
            documented: false,
            stale: HashMap::new(),
            numbered: 0,
            access_token: format!("ory_at_{merchant_id}_1"),
            refresh_token: format!("ory_rt_{merchant_id}_1"),
            revoked: false,
            rng: StdRng::seed_from_u64(seed),
        };
        for _ in 0..orders {
            let created = now - TimeDelta::seconds(shop.rng.random_range(2 * 86400..90 * 86400));
            shop.place(created);
        }
        shop
    }

    /// Makes these the present tokens.
    pub fn set_tokens(&mut self, access: &str, refresh: &str) {
        access.clone_into(&mut self.access_token);
        refresh.clone_into(&mut self.refresh_token);
    }

    /// Places an order at `at`, and returns its id.
    pub fn place(&mut self, at: DateTime<Utc>) -> i64 {
        let at = whole_seconds(at);
        // An odd multiplier modulo a power of two: distinct, and scattered.
        let number = self.next_number();
        let id = 1_000_000_000 + (number * 2_654_435_761 + self.merchant_id) % (1 << 30);
        let order = Order {
            id,
            reference_id: 40_000_000 + number,
            created_at: at,
            updated_at: at,
            status: self.rng.random_range(0..3),
            total: self.rng.random_range(0..200_000),
            currency: CURRENCIES[self.rng.random_range(0..10usize).saturating_sub(6)],
            draft: false,
            note: 0,
        };
        self.orders.push(order);
        id
    }

    /// Counts what the store ever had.
    pub(super) fn next_number(&mut self) -> i64 {
        self.numbered += 1;
        self.numbered - 1
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

    /// Changes an order at `at` in what only its details show.
    pub fn whisper(&mut self, id: i64, at: DateTime<Utc>) {
        if let Some(order) = self.orders.iter_mut().find(|order| order.id == id) {
            order.note += 1;
            order.updated_at = whole_seconds(at).max(order.updated_at);
        }
    }

    /// Deletes an order.
    pub fn delete(&mut self, id: i64) {
        Order::remove(self, id);
    }

    /// Places, changes or, seldom, deletes an order, and returns the webhook that reports it.
    pub(super) fn trade(&mut self, now: DateTime<Utc>) -> Webhook {
        let dice = self.rng.random_range(0..100);
        let (event, id) = match self.any_id() {
            Some(id) if dice < 2 => ("order.deleted", id),
            Some(id) if dice < 70 => ("order.updated", id),
            _ => ("order.created", self.place(now)),
        };
        if event == "order.updated" {
            self.touch(id, now);
        }
        let order = self.orders.iter().find(|order| order.id == id).map(Order::json).unwrap_or_default();
        if event == "order.deleted" {
            self.delete(id);
        }
        Webhook::of_order(event, self.merchant_id, id, order, now)
    }

    /// Its present access and refresh tokens.
    #[must_use]
    pub fn tokens(&self) -> (&str, &str) {
        (&self.access_token, &self.refresh_token)
    }

    /// A random id of the store.
    pub fn any_id(&mut self) -> Option<i64> {
        let count = self.orders.len();
        (count > 0).then(|| self.orders[self.rng.random_range(0..count)].id)
    }
}

impl Item for Order {
    const LIST: &'static str = "orders";

    const SCOPE: &'static str = "orders.read";

    fn all(shop: &Shop) -> &[Self] {
        &shop.orders
    }

    fn all_mut(shop: &mut Shop) -> &mut Vec<Self> {
        &mut shop.orders
    }

    fn raw(shop: &Shop) -> &[String] {
        &shop.raw_rows
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

    fn is_listed(&self, world: &World, shop: &Shop, query: &Params) -> bool {
        let instant = |name| -> Option<DateTime<Utc>> { query.get(name).and_then(|text| text.parse().ok()) };
        let day_of = |name| -> Option<NaiveDate> { query.get(name).and_then(|text| text.parse().ok()) };
        let since = instant("updated_at_min").filter(|_| world.honours_filter && !world.is_documented(shop));
        let (from, to) = (day_of("from_date"), day_of("to_date"));
        !self.draft
            && since.is_none_or(|since| self.updated_at >= since)
            && (!world.is_documented(shop) || within(world.day_bounds, day(self.created_at), from, to))
    }

    fn row(&self, world: &World, shop: &Shop) -> String {
        let order = shop.stale.get(&self.id).unwrap_or(self);
        let summary = world.is_documented(shop) && !world.whole_rows;
        if summary { order.summary(world.now()).to_string() } else { order.json().to_string() }
    }

    fn single(&self, world: &World, shop: &Shop) -> String {
        let shown = if world.is_documented(shop) { self.detail(world.now()) } else { self.json() };
        shown.to_string()
    }

    fn add(shop: &mut Shop, at: DateTime<Utc>) -> i64 {
        shop.place(at)
    }

    fn change(shop: &mut Shop, id: i64, at: DateTime<Utc>) {
        shop.touch(id, at);
    }
}

pub(super) fn whole_seconds(at: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(at.timestamp(), 0).unwrap_or(at)
}
