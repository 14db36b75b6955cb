//! Customers of stores, as Salla writes them: a mobile number is a number, and a birthday may be an empty object.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use rand::RngExt;
use serde_json::{Value, json};

use super::{
    item::{Item, Params},
    pages::within,
    shapes::{date, day},
    shop::{Shop, whole_seconds},
    world::World,
};

const NAMES: [(&str, &str); 5] =
    [("نورة", "العتيبي"), ("عبدالله", "الحربي"), ("ريم", "الشهري"), ("Omar", "Haddad"), ("سلمان", "القحطاني")];
const CITIES: [&str; 4] = ["الرياض", "جدة", "الدمام", "أبها"];

/// A customer of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    /// Unique within the store, and in no order.
    pub id: i64,
    /// When the customer signed up.
    pub created_at: DateTime<Utc>,
    /// When the record was last changed; whole seconds.
    pub updated_at: DateTime<Utc>,
    /// An index into the cities.
    pub city: usize,
    /// The points of the customer.
    pub points: i64,
}

impl Customer {
    /// The name of the city.
    #[must_use]
    pub fn city_name(&self) -> &'static str {
        CITIES[self.city]
    }

    /// All of the customer.
    #[must_use]
    pub fn json(&self) -> Value {
        let kind = usize::try_from(self.id).unwrap_or(0);
        let (first, last) = NAMES[kind % NAMES.len()];
        let mobile = 500_000_000 + self.id % 100_000_000;
        let born = NaiveDate::from_ymd_opt(1970, 1, 1)
            .and_then(|day| day.checked_add_signed(TimeDelta::days(self.id % 12_000)));
        let birthday = born.map_or_else(
            || json!({}),
            |born| json!({"date": format!("{born} 00:00:00.000000"), "timezone_type": 3, "timezone": "Asia/Riyadh"}),
        );
        json!({
            "id": self.id, "first_name": first, "last_name": last, "full_name": format!("{first} {last}"),
            "mobile": if kind % 2 == 0 { json!(mobile) } else { json!(mobile.to_string()) },
            "mobile_code": if kind % 3 == 0 { "966" } else { "+966" },
            "email": format!("customer-{}@example.com", self.id),
            "urls": {"customer": "https://shop.example/profile", "admin": format!("https://admin.example/customers/{}", self.id)},
            "avatar": "https://cdn.example/avatar.webp", "gender": if kind % 5 == 0 { Value::Null } else { json!("female") },
            "birthday": match kind % 3 { 0 => json!({}), 1 => Value::Null, _ => birthday },
            "city": self.city_name(), "country": if kind % 7 == 0 { "null" } else { "السعودية" }, "country_code": "SA",
            "currency": "SAR", "lang": "ar", "location": if kind % 2 == 0 { "null".to_owned() } else { format!("شارع العليا {}", self.id % 90) },
            "groups": [], "total_points": self.points,
            "created_at": date(self.created_at), "updated_at": date(self.updated_at),
        })
    }
}

impl Shop {
    /// The store, with `customers` customers of the ninety days before `now`.
    #[must_use]
    pub fn visited(mut self, customers: usize, now: DateTime<Utc>) -> Self {
        for _ in 0..customers {
            let at = now - TimeDelta::seconds(self.rng.random_range(2 * 86400..90 * 86400));
            Customer::add(&mut self, at);
        }
        self
    }
}

impl Item for Customer {
    const LIST: &'static str = "customers";

    const SCOPE: &'static str = "customers.read";

    fn all(shop: &Shop) -> &[Self] {
        &shop.customers
    }

    fn all_mut(shop: &mut Shop) -> &mut Vec<Self> {
        &mut shop.customers
    }

    fn raw(shop: &Shop) -> &[String] {
        &shop.raw_customers
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

    fn is_listed(&self, world: &World, _: &Shop, query: &Params) -> bool {
        let day_of = |name| -> Option<NaiveDate> { query.get(name).and_then(|text| text.parse().ok()) };
        within(world.day_bounds, day(self.created_at), day_of("date_from"), day_of("date_to"))
    }

    fn row(&self, _: &World, _: &Shop) -> String {
        self.json().to_string()
    }

    fn single(&self, _: &World, _: &Shop) -> String {
        self.json().to_string()
    }

    fn add(shop: &mut Shop, at: DateTime<Utc>) -> i64 {
        let (at, number) = (whole_seconds(at), shop.next_number());
        let id = 2_075_000_000 + (number * 2_654_435_761 + shop.merchant_id) % (1 << 29);
        let (city, points) = (shop.rng.random_range(0..CITIES.len()), shop.rng.random_range(0..500));
        shop.customers.push(Self { id, created_at: at, updated_at: at, city, points });
        id
    }

    fn change(shop: &mut Shop, id: i64, at: DateTime<Utc>) {
        let collected = shop.rng.random_range(1..50);
        if let Some(customer) = shop.customers.iter_mut().find(|customer| customer.id == id) {
            customer.points += collected;
            customer.city = (customer.city + 1) % CITIES.len();
            customer.updated_at = whole_seconds(at).max(customer.updated_at + TimeDelta::seconds(1));
        }
    }
}
