//! Which orders are on which page, in which order, and one order's own answer.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};

use super::{
    shapes::day,
    shop::{Order, Shop},
    world::{DayBounds, ListOrder, World},
};

/// The page as Salla writes it; `None`: it lies beyond what can be read.
pub fn page(world: &World, merchant_id: i64, query: &HashMap<String, String>, number: usize) -> Option<String> {
    let shop = world.shops.get(&merchant_id)?;
    let rows = rows(world, shop, query);
    let asked = query.get("per_page").and_then(|text| text.parse().ok()).unwrap_or(15usize);
    let per_page = asked.clamp(1, world.page_cap);
    if number * per_page > world.row_window + per_page - 1 {
        return None;
    }
    let total_pages = rows.len().div_ceil(per_page);
    let shown = rows.iter().skip(number.saturating_sub(1) * per_page).take(per_page);
    let shown: Vec<String> = shown.map(|row| write(world, shop, *row)).collect();
    let pagination = json!({
        "count": shown.len(), "total": rows.len(), "perPage": per_page,
        "currentPage": number, "totalPages": total_pages, "links": if number < total_pages { json!({"next": "elsewhere"}) } else { json!([]) },
    });
    Some(format!(r#"{{"status":200,"success":true,"data":[{}],"pagination":{pagination}}}"#, shown.join(",")))
}

/// An order's own answer; `None`: there is none.
pub fn detail(world: &World, merchant_id: i64, id: i64) -> Option<String> {
    let shop = world.shops.get(&merchant_id)?;
    let raw = || shop.raw_rows.iter().find(|row| is_row_of(row, id)).cloned();
    let order = shop.orders.iter().find(|order| order.id == id);
    let shown = |order: &Order| if world.documented { order.detail(world.now()) } else { order.json() };
    let data = order.map(|order| shown(order).to_string()).or_else(raw)?;
    Some(format!(r#"{{"status":200,"success":true,"data":{data}}}"#))
}

fn is_row_of(row: &str, id: i64) -> bool {
    serde_json::from_str::<Value>(row).is_ok_and(|row| row["id"] == id)
}

/// A row of the list.
#[derive(Clone, Copy)]
enum Row<'a> {
    Order(&'a Order),
    Raw(&'a str),
}

fn write(world: &World, shop: &Shop, row: Row<'_>) -> String {
    match row {
        Row::Raw(text) => text.to_owned(),
        Row::Order(order) => {
            let order = shop.stale.get(&order.id).unwrap_or(order);
            let summary = world.documented && !world.whole_rows;
            if summary { order.summary(world.now()).to_string() } else { order.json().to_string() }
        }
    }
}

/// The list's rows, all of them, in its order.
fn rows<'a>(world: &World, shop: &'a Shop, query: &HashMap<String, String>) -> Vec<Row<'a>> {
    let instant = |name| -> Option<DateTime<Utc>> { query.get(name).and_then(|text| text.parse().ok()) };
    let day_of = |name| -> Option<NaiveDate> { query.get(name).and_then(|text| text.parse().ok()) };
    let since = instant("updated_at_min").filter(|_| world.honours_filter && !world.documented);
    let (from, to) = (day_of("from_date"), day_of("to_date"));
    let listed = |order: &&Order| {
        !order.draft
            && since.is_none_or(|since| order.updated_at >= since)
            && (!world.documented || within(world.day_bounds, day(order.created_at), from, to))
    };
    let mut orders: Vec<&Order> = shop.orders.iter().filter(listed).collect();
    let asked = query.get("sort_by").filter(|_| world.documented && world.honours_sort).and_then(|name| by_name(name));
    match asked.unwrap_or(world.list_order) {
        ListOrder::UpdatedAscending => orders.sort_by_key(|order| (order.updated_at, order.id)),
        ListOrder::UpdatedDescending => orders.sort_by_key(|order| std::cmp::Reverse((order.updated_at, order.id))),
        ListOrder::CreatedAscending => orders.sort_by_key(|order| (order.created_at, order.id)),
        ListOrder::CreatedDescending => orders.sort_by_key(|order| std::cmp::Reverse((order.created_at, order.id))),
        ListOrder::Id => orders.sort_by_key(|order| order.id),
        ListOrder::Scattered => orders.sort_by_key(|order| (order.id * 31 % 1009, order.id)),
    }
    orders.into_iter().map(Row::Order).chain(shop.raw_rows.iter().map(|text| Row::Raw(text))).collect()
}

fn within(bounds: DayBounds, at: NaiveDate, from: Option<NaiveDate>, to: Option<NaiveDate>) -> bool {
    let after = |from: NaiveDate| if bounds == DayBounds::Exclusive { from < at } else { from <= at };
    let before = |to: NaiveDate| if bounds == DayBounds::Inclusive { at <= to } else { at < to };
    from.is_none_or(after) && to.is_none_or(before)
}

fn by_name(name: &str) -> Option<ListOrder> {
    Some(match name {
        "updated_at-asc" => ListOrder::UpdatedAscending,
        "updated_at-desc" => ListOrder::UpdatedDescending,
        "created_at-asc" => ListOrder::CreatedAscending,
        "created_at-desc" => ListOrder::CreatedDescending,
        "id-asc" => ListOrder::Id,
        _ => return None,
    })
}
