//! Which records are on which page, in which order, and one record's own answer.

use chrono::NaiveDate;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::{Value, json};

use super::{
    fault::Fault,
    item::{Item, Params},
    shop::Shop,
    world::{DayBounds, ListOrder, Ties, World},
};

/// The page as Salla writes it; an error also where it lies beyond what can be read.
pub fn page<I: Item>(world: &World, merchant_id: i64, query: &Params, number: usize) -> Result<String, Fault> {
    let beyond = || Fault::status(422);
    let shop = world.shops.get(&merchant_id).ok_or_else(beyond)?;
    let mut listed = listed::<I>(world, shop, query);
    let raw = I::raw(shop);
    let rows = listed.len() + raw.len();
    let asked = query.get("per_page").and_then(|text| text.parse().ok()).unwrap_or(15usize);
    let asked = if world.ignores_page_size { world.page_cap } else { asked };
    let per_page = if I::PAGED { asked.clamp(1, world.page_cap) } else { rows.max(1) };
    let number = if I::PAGED { number } else { 1 };
    if I::PAGED && number * per_page > world.row_window + per_page - 1 {
        return Err(beyond());
    }
    let total_pages = rows.div_ceil(per_page);
    match world.ties {
        Ties::ById => {}
        Ties::EachRequest => shuffle_ties(world, shop, query, &mut listed, world.seen.len()),
        Ties::EachPage => shuffle_ties(world, shop, query, &mut listed, number * 1_000 + per_page),
        Ties::EachPageNumber => shuffle_ties(world, shop, query, &mut listed, number),
    }
    let items = listed.into_iter().map(Row::Item).chain(raw.iter().map(Row::Raw));
    let shown: Vec<String> = items
        .skip(number.saturating_sub(1) * per_page)
        .take(per_page)
        .map(|row| match row {
            Row::Item(item) => broken(shop, item.id(), item.row(world, shop)),
            Row::Raw(text) => Ok(text.clone()),
        })
        .collect::<Result<_, Fault>>()?;
    if !I::PAGED {
        return Ok(format!(r#"{{"status":200,"success":true,"data":[{}]}}"#, shown.join(",")));
    }
    let mut pagination = json!({
        "count": shown.len(), "total": rows, "perPage": per_page,
        "currentPage": number, "totalPages": total_pages, "links": if number < total_pages { json!({"next": "elsewhere"}) } else { json!([]) },
    });
    if world.hides_totals {
        pagination = json!({"count": shown.len(), "perPage": per_page, "currentPage": number});
    }
    Ok(format!(r#"{{"status":200,"success":true,"data":[{}],"pagination":{pagination}}}"#, shown.join(",")))
}

/// A row, with what its record does to it.
fn broken(shop: &Shop, id: i64, row: String) -> Result<String, Fault> {
    shop.breaks.get(&id).map_or(Ok(row.clone()), |breakage| breakage.apply(&row))
}

/// A record's own answer.
pub fn detail<I: Item>(world: &World, merchant_id: i64, id: i64) -> Result<String, Fault> {
    let shop = world.shops.get(&merchant_id).ok_or_else(Fault::no_such_record)?;
    let raw = || I::raw(shop).iter().find(|row| is_row_of(row, id)).cloned();
    let data = I::all(shop).iter().find(|item| item.id() == id).map(|item| item.single(world, shop)).or_else(raw);
    let data = broken(shop, id, data.ok_or_else(Fault::no_such_record)?)?;
    Ok(format!(r#"{{"status":200,"success":true,"data":{data}}}"#))
}

fn is_row_of(row: &str, id: i64) -> bool {
    serde_json::from_str::<Value>(row).is_ok_and(|row| row["id"] == id)
}

/// A row of a list.
enum Row<'a, I> {
    Item(&'a I),
    Raw(&'a String),
}

/// What the list shows, all of it, in its order.
fn listed<'a, I: Item>(world: &World, shop: &'a Shop, query: &Params) -> Vec<&'a I> {
    let mut items: Vec<&I> = I::all(shop).iter().filter(|item| item.is_listed(world, shop, query)).collect();
    match order(world, shop, query) {
        ListOrder::UpdatedAscending => items.sort_by_key(|item| (item.updated_at(), item.id())),
        ListOrder::UpdatedDescending => items.sort_by_key(|item| std::cmp::Reverse((item.updated_at(), item.id()))),
        ListOrder::CreatedAscending => items.sort_by_key(|item| (item.created_at(), item.id())),
        ListOrder::CreatedDescending => items.sort_by_key(|item| std::cmp::Reverse((item.created_at(), item.id()))),
        ListOrder::Id => items.sort_by_key(|item| item.id()),
        ListOrder::Scattered => items.sort_by_key(|item| (item.id() * 31 % 1009, item.id())),
    }
    items
}

/// Puts records with one time stamp into an order that `salt` decides.
fn shuffle_ties<I: Item>(world: &World, shop: &Shop, query: &Params, items: &mut [&I], salt: usize) {
    let stamp = |item: &I| match order(world, shop, query) {
        ListOrder::UpdatedAscending | ListOrder::UpdatedDescending => Some(item.updated_at()),
        ListOrder::CreatedAscending | ListOrder::CreatedDescending => Some(item.created_at()),
        ListOrder::Id | ListOrder::Scattered => None,
    };
    for ties in items.chunk_by_mut(|one, other| stamp(one).is_some() && stamp(one) == stamp(other)) {
        ties.shuffle(&mut StdRng::seed_from_u64(salt as u64));
    }
}

fn order(world: &World, shop: &Shop, query: &Params) -> ListOrder {
    let honours_sort = if world.is_documented(shop) { world.honours_sort } else { world.sorts_filtered };
    let asked = query.get("sort_by").filter(|_| honours_sort).and_then(|name| by_name(name));
    asked.unwrap_or(world.list_order)
}

/// Whether a day lies between two others, as the server understands them.
pub fn within(bounds: DayBounds, at: NaiveDate, from: Option<NaiveDate>, to: Option<NaiveDate>) -> bool {
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
