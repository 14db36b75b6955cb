//! What the stores sell: orders of 3 to 4 KB, as pages that lie ready.

use std::cmp::Reverse;

use axum::body::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use salla_reconciler::simulator::Shop;
use serde_json::{Value, json};

/// As the programs ask for them.
pub const PAGE_SIZE: usize = 50;

/// The daemon refuses a list with more pages.
const MOST_PAGES: usize = 19_000;

/// Rows a page, of a store with so many orders.
pub fn page_size(orders: usize) -> usize {
    PAGE_SIZE.max(orders.div_ceil(MOST_PAGES))
}

/// Of the orders, one in so many changes.
const CHANGES: usize = 20;

const GOODS: [&str; 6] = [
    "قميص قطني أبيض بأكمام طويلة",
    "عطر العود الملكي ٥٠ مل",
    "سماعات لاسلكية بعزل الضوضاء",
    "تمر سكري فاخر من القصيم",
    "Leather wallet, handmade, with a coin pocket",
    "Running shoes for trails, waterproof",
];
const CITIES: [&str; 5] = ["الرياض", "جدة", "الدمام", "أبها", "المدينة المنورة"];

/// The lists of a merchant, before and after some of its orders changed.
pub struct Lists {
    pub before: List,
    pub after: List,
}

/// The pages of a list, in each order that the server knows.
pub struct List {
    /// Where the request names no order.
    pub usual: Vec<Bytes>,
    /// With `sort_by=updated_at-desc`; `None`: the server ignores it.
    pub by_change: Option<Vec<Bytes>>,
}

impl Lists {
    /// `sorts`: the server honours `sort_by`, and otherwise lists the newest order first. The other server always lists the
    /// last changed order last.
    pub fn of(merchant_id: i64, orders: usize, sorts: bool, now: DateTime<Utc>) -> Self {
        let mut shop = Shop::seeded(merchant_id, orders, now - TimeDelta::hours(1));
        let before = List::of(&mut shop, sorts);
        let mut rng = StdRng::seed_from_u64(merchant_id.cast_unsigned());
        let first = rng.random_range(0..CHANGES);
        let changing: Vec<i64> = shop.orders.iter().skip(first).step_by(CHANGES).map(|order| order.id).collect();
        for id in changing {
            shop.touch(id, now);
        }
        Self { before, after: List::of(&mut shop, sorts) }
    }
}

impl List {
    fn of(shop: &mut Shop, sorts: bool) -> Self {
        shop.orders.sort_by_key(|order| (order.updated_at, order.id));
        if !sorts {
            return Self { usual: pages(shop), by_change: None };
        }
        shop.orders.reverse();
        let by_change = Some(pages(shop));
        shop.orders.sort_by_key(|order| Reverse((order.created_at, order.id)));
        Self { usual: pages(shop), by_change }
    }
}

fn pages(shop: &Shop) -> Vec<Bytes> {
    let (total, size) = (shop.orders.len(), page_size(shop.orders.len()));
    let (pages, chunks) = (total.div_ceil(size), shop.orders.chunks(size).enumerate());
    chunks
        .map(|(at, orders)| {
            let rows: Vec<String> = orders.iter().map(|order| whole(order.id, order.json()).to_string()).collect();
            let pagination = json!({
                "count": rows.len(), "total": total, "perPage": size, "currentPage": at + 1, "totalPages": pages,
                "links": if at + 1 < pages { json!({"next": "elsewhere"}) } else { json!([]) },
            });
            let rows = rows.join(",");
            format!(r#"{{"status":200,"success":true,"data":[{rows}],"pagination":{pagination}}}"#).into()
        })
        .collect()
}

/// With what is bought and where it goes, which is the most of an order and never changes.
fn whole(id: i64, mut order: Value) -> Value {
    let mut rng = StdRng::seed_from_u64(id.cast_unsigned());
    let items: Vec<Value> = (0..rng.random_range(2..4)).map(|_| item(&mut rng)).collect();
    order["items"] = items.into();
    order["shipping"] = json!({
        "id": rng.random_range(1_000_000..9_999_999), "company": "aramex", "logo": "",
        "address": {
            "country": "السعودية", "country_code": "SA", "city": CITIES[rng.random_range(0..CITIES.len())],
            "shipping_address": format!("شارع {} حي {}", rng.random_range(1..400), rng.random_range(1..90)),
            "street_number": rng.random_range(1..9999).to_string(), "block": "النخيل", "postal_code": "13241",
            "geo_coordinates": {"lat": rng.random_range(16.0..32.0), "lng": rng.random_range(34.0..55.0)},
        },
        "shipment_reference": format!("{:016x}", rng.random::<u64>()),
    });
    order["urls"] = json!({
        "customer": format!("https://store.example/orders/{:032x}", rng.random::<u128>()),
        "admin": format!("https://s.example/orders/order/{:032x}", rng.random::<u128>()),
    });
    order
}

fn item(rng: &mut StdRng) -> Value {
    let (product, price) = (rng.random_range(100_000_000..999_999_999), rng.random_range(1_000..90_000));
    let money = |hundredths: i64| json!({"amount": hundredths as f64 / 100.0, "currency": "SAR"});
    json!({
        "id": rng.random_range(1_000_000_000..2_000_000_000i64),
        "name": GOODS[rng.random_range(0..GOODS.len())], "sku": format!("SKU-{product}"), "product_id": product,
        "quantity": rng.random_range(1..5), "currency": "SAR", "weight": "0.25", "weight_label": "٢٥٠ جم",
        "amounts": {
            "price_without_tax": money(price), "total_discount": money(0),
            "tax": {"percent": "15.00", "amount": money(price * 15 / 100)}, "total": money(price * 115 / 100),
        },
        "notes": "", "options": [{"id": product + 1, "name": "المقاس", "value": "كبير"}], "images": [], "codes": [],
        "thumbnail": format!("https://cdn.example/{:032x}.jpg", rng.random::<u128>()),
    })
}
