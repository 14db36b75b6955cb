//! `GET /admin/v2/orders`: the list, filtered by `updated_at_min`, oldest change first.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use futures::stream;
use parking_lot::Mutex;
use serde_json::json;

use super::{
    fault::Fault,
    shop::Order,
    world::{Seen, World},
};

/// Answers a request for a page.
pub async fn list(
    State(world): State<Arc<Mutex<World>>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let date = text(&httpdate::fmt_http_date(world.lock().now().into()));
    let known = bearer(&world.lock(), &headers);
    let mut response = match known {
        Some(merchant_id) => admitted(&world, merchant_id, &query).await,
        None => refusal("The access token is invalid"),
    };
    response.headers_mut().insert(header::DATE, date);
    response
}

/// Answers a request that came with a store's token.
async fn admitted(world: &Arc<Mutex<World>>, merchant_id: i64, query: &HashMap<String, String>) -> Response {
    let (fault, limited, rate) = admit(&mut world.lock(), merchant_id, query);
    let number = query.get("page").and_then(|text| text.parse().ok()).unwrap_or(1usize);
    let mut response = match fault {
        Some(fault) => fail(world, merchant_id, query, number, fault).await,
        None if limited => answer(&Fault::too_many("1")),
        None => json_response(page(&world.lock(), merchant_id, query, number)),
    };
    for (name, value) in rate {
        response.headers_mut().insert(name, value);
    }
    response
}

type Rate = Vec<(&'static str, HeaderValue)>;

/// Takes note of a request, and decides what becomes of it.
fn admit(world: &mut World, merchant_id: i64, query: &HashMap<String, String>) -> (Option<Fault>, bool, Rate) {
    let at = world.now();
    world.seen.push(Seen { merchant_id, query: query.clone(), at });
    let mut rate = Rate::new();
    let mut limited = false;
    if let Some(limit) = world.limit {
        let spent = world.spent(merchant_id);
        limited = spent > limit;
        if limited {
            world.violations.push(format!("store {merchant_id}: {spent} requests in a minute, {limit} allowed"));
        }
        rate.push(("x-ratelimit-limit", text(&limit.to_string())));
        rate.push(("x-ratelimit-remaining", text(&limit.saturating_sub(spent).to_string())));
        rate.push(("x-ratelimit-reset", text(&(at.timestamp() + 60).to_string())));
    }
    (world.next_fault(merchant_id), limited, rate)
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}

fn bearer(world: &World, headers: &HeaderMap) -> Option<i64> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let shop = world.shops.values().find(|shop| shop.access_token == token && !shop.revoked);
    shop.map(|shop| shop.merchant_id)
}

pub fn refusal(message: &str) -> Response {
    let body = json!({"status": 401, "success": false, "error": {"code": "Unauthorized", "message": message}});
    (StatusCode::UNAUTHORIZED, json_response(body.to_string())).into_response()
}

fn json_response(body: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The page as Salla writes it.
fn page(world: &World, merchant_id: i64, query: &HashMap<String, String>, number: usize) -> String {
    let Some(shop) = world.shops.get(&merchant_id) else {
        return String::new();
    };
    let since: Option<DateTime<Utc>> =
        query.get("updated_at_min").filter(|_| world.honours_filter).and_then(|text| text.parse().ok());
    let mut orders: Vec<&Order> =
        shop.orders.iter().filter(|order| since.is_none_or(|since| order.updated_at >= since)).collect();
    orders.sort_by_key(|order| (order.updated_at, order.id));
    if world.newest_first {
        orders.reverse();
    }
    let rows: Vec<String> =
        orders.iter().map(|order| order.json().to_string()).chain(shop.raw_rows.iter().cloned()).collect();
    let asked = query.get("per_page").and_then(|text| text.parse().ok()).unwrap_or(15usize);
    let per_page = asked.clamp(1, world.page_cap);
    let total_pages = rows.len().div_ceil(per_page);
    let shown: Vec<&str> =
        rows.iter().skip(number.saturating_sub(1) * per_page).take(per_page).map(String::as_str).collect();
    let pagination = json!({
        "count": shown.len(), "total": rows.len(), "perPage": per_page,
        "currentPage": number, "totalPages": total_pages, "links": if number < total_pages { json!({"next": "elsewhere"}) } else { json!([]) },
    });
    format!(r#"{{"status":200,"success":true,"data":[{}],"pagination":{pagination}}}"#, shown.join(","))
}

async fn fail(
    world: &Arc<Mutex<World>>,
    merchant_id: i64,
    query: &HashMap<String, String>,
    number: usize,
    fault: Fault,
) -> Response {
    let right = |number| page(&world.lock(), merchant_id, query, number);
    match fault {
        Fault::Answer { .. } => answer(&fault),
        Fault::Truncated => {
            let mut body = right(number).into_bytes();
            body.truncate(body.len() / 2);
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Fault::CutOff => {
            let mut half = right(number).into_bytes();
            half.truncate(half.len() / 2);
            let cut = Err(std::io::Error::other("cut off"));
            let body = Body::from_stream(stream::iter([Ok(Bytes::from(half)), cut]));
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Fault::Hang(pause) => {
            tokio::time::sleep(pause).await;
            json_response(right(number))
        }
        Fault::Endless => {
            let drip = stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Some((Ok::<_, Infallible>(Bytes::from_static(&[b' '; 1 << 16])), ()))
            });
            ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(drip)).into_response()
        }
        Fault::PreviousPage => json_response(right(number.saturating_sub(1).max(1))),
        Fault::TokenEnded => refusal("The access token is invalid"),
    }
}

pub fn answer(fault: &Fault) -> Response {
    let Fault::Answer { status, headers, body } = fault else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut response = body.clone().into_response();
    *response.status_mut() = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        response.headers_mut().insert(*name, text(value));
    }
    response
}
