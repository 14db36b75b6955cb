//! The Salla that is asked: pages that lie ready, and a count of how often it was.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::Utc;
use tokio::net::TcpListener;

use crate::{
    night::{Shape, TOKEN},
    pages::Lists,
};

struct World {
    stores: Vec<Lists>,
    changed: AtomicBool,
    requests: AtomicU64,
}

/// Serves until its stdin ends; the first line of its output is its address.
pub async fn serve(shape: Shape) {
    let now = Utc::now();
    let stores = shape.merchants().map(|merchant| Lists::of(merchant, shape.orders, shape.sorts, now)).collect();
    let world = World { stores, changed: AtomicBool::new(false), requests: 0.into() };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/admin/v2/orders", get(page))
        .route("/changed", post(change))
        .route("/requests", get(requests))
        .with_state(Arc::new(world));
    let (mut stdin, mut sink) = (tokio::io::stdin(), tokio::io::sink());
    tokio::select! {
        served = axum::serve(listener, router) => served.unwrap(),
        _ = tokio::io::copy(&mut stdin, &mut sink) => {}
    }
}

async fn page(
    State(world): State<Arc<World>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let page = asked(&world, &query, &headers);
    world.requests.fetch_add(1, Ordering::Relaxed);
    let Some(page) = page else { return StatusCode::UNPROCESSABLE_ENTITY.into_response() };
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    ([(header::CONTENT_TYPE, "application/json".to_owned()), (header::DATE, date)], Body::from(page)).into_response()
}

fn asked(world: &World, query: &HashMap<String, String>, headers: &HeaderMap) -> Option<Bytes> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.strip_prefix(TOKEN)?;
    let store = world.stores.get(token.parse::<usize>().ok()?.checked_sub(1)?)?;
    let list = if world.changed.load(Ordering::Relaxed) { &store.after } else { &store.before };
    let by_change = list.by_change.as_ref().filter(|_| query.get("sort_by").is_some_and(|by| by == "updated_at-desc"));
    let pages = by_change.unwrap_or(&list.usual);
    pages.get(query.get("page")?.parse::<usize>().ok()?.checked_sub(1)?).cloned()
}

/// From now on it is as it will be, or as it was before.
async fn change(State(world): State<Arc<World>>, body: String) {
    world.changed.store(body == "true", Ordering::Relaxed);
}

/// How often it was asked for records since somebody last looked.
async fn requests(State(world): State<Arc<World>>) -> String {
    world.requests.swap(0, Ordering::Relaxed).to_string()
}
