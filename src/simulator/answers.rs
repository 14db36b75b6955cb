//! Answers for lists of records and for single records: the check of the token, the faults, and the answer.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use parking_lot::Mutex;
use serde_json::json;

use super::{
    fault::{Fault, NO_TEXT},
    item::{Item, Params},
    limit::Announces,
    order_items,
    pages::{detail, page},
    shop::Order,
    world::{Seen, World},
};

/// A request for records.
struct Asked {
    merchant_id: i64,
    kind: Kind,
    id: Option<i64>,
    query: Params,
}

/// How one kind of record is answered for.
#[derive(Clone, Copy)]
struct Kind {
    list: &'static str,
    scope: &'static str,
    page: fn(&World, i64, &Params, usize) -> Result<String, Fault>,
    detail: fn(&World, i64, i64) -> Result<String, Fault>,
}

impl Kind {
    fn of<I: Item>() -> Self {
        Self { list: I::LIST, scope: I::SCOPE, page: page::<I>, detail: detail::<I> }
    }
}

impl Asked {
    /// The right answer; `pages_back`: to the request for an earlier page.
    fn right(&self, world: &World, pages_back: usize) -> Result<String, Fault> {
        let number = self.query.get("page").and_then(|text| text.parse().ok()).unwrap_or(1usize);
        match self.id {
            Some(id) => (self.kind.detail)(world, self.merchant_id, id),
            None => (self.kind.page)(world, self.merchant_id, &self.query, number.saturating_sub(pages_back).max(1)),
        }
    }
}

/// Answers a request for a page.
pub async fn list<I: Item>(
    State(world): State<Arc<Mutex<World>>>,
    Query(query): Query<Params>,
    headers: HeaderMap,
) -> Response {
    ask(&world, Kind::of::<I>(), None, query, &headers).await
}

/// Answers a request for a record.
pub async fn one<I: Item>(
    State(world): State<Arc<Mutex<World>>>,
    Path(id): Path<i64>,
    Query(query): Query<Params>,
    headers: HeaderMap,
) -> Response {
    ask(&world, Kind::of::<I>(), Some(id), query, &headers).await
}

/// Tells whose a token is.
pub async fn user_info(State(world): State<Arc<Mutex<World>>>, headers: HeaderMap) -> Response {
    let status = world.lock().owner_status.and_then(|status| StatusCode::from_u16(status).ok());
    if let Some(status) = status {
        return status.into_response();
    }
    match bearer(&world.lock(), &headers) {
        Some(id) => {
            json_response(json!({"id": 7, "name": "a user", "merchant": {"id": id, "name": "a shop"}}).to_string())
        }
        None => refusal("The access token is invalid"),
    }
}

/// Answers a request for an order's lines.
pub async fn lines(
    State(world): State<Arc<Mutex<World>>>,
    Query(query): Query<Params>,
    headers: HeaderMap,
) -> Response {
    let kind = Kind { list: order_items::LIST, detail: order_items::of_order, ..Kind::of::<Order>() };
    let id = query.get("order_id").and_then(|text| text.parse().ok()).unwrap_or(0);
    ask(&world, kind, Some(id), query, &headers).await
}

async fn ask(world: &Arc<Mutex<World>>, kind: Kind, id: Option<i64>, query: Params, headers: &HeaderMap) -> Response {
    let date = text(&httpdate::fmt_http_date(world.lock().now().into()));
    let known = bearer(&world.lock(), headers);
    let mut response = match known {
        Some(merchant_id) => admitted(world, &Asked { merchant_id, kind, id, query }).await,
        None => refusal("The access token is invalid"),
    };
    response.headers_mut().insert(header::DATE, date);
    response
}

/// Answers a request that came with a store's token.
async fn admitted(world: &Arc<Mutex<World>>, asked: &Asked) -> Response {
    let (fault, limited, rate) = admit(&mut world.lock(), asked);
    let mut response = match (fault, limited) {
        (Some(fault), _) => fail(world, asked, fault).await,
        (None, Some(seconds)) => answer(&Fault::too_many(&seconds.to_string())),
        (None, None) if world.lock().lacks(asked.merchant_id, asked.kind.scope) => {
            let scope = asked.kind.scope;
            refusal(&format!("The access token should have access to one of those scopes: {scope}"))
        }
        (None, None) => asked.right(&world.lock(), 0).map_or_else(|refusal| answer(&refusal), json_response),
    };
    world.lock().turn();
    for (name, value) in rate {
        response.headers_mut().insert(name, value);
    }
    response
}

type Rate = Vec<(&'static str, HeaderValue)>;

/// Takes note of a request, and decides what becomes of it: a fault, or, after so many seconds, another try.
fn admit(world: &mut World, asked: &Asked) -> (Option<Fault>, Option<i64>, Rate) {
    let (at, merchant_id) = (world.now(), asked.merchant_id);
    world.seen.push(Seen { merchant_id, list: asked.kind.list, id: asked.id, query: asked.query.clone(), at });
    let (mut rate, mut limited) = (Rate::new(), None);
    if let Some(limit) = world.limit {
        let verdict = world.spend(merchant_id, limit);
        limited = (!verdict.admitted).then_some(verdict.retry_after);
        if limit.announces != Announces::Nothing {
            rate.push(("x-ratelimit-limit", text(&limit.per_minute.to_string())));
            rate.push(("x-ratelimit-remaining", text(&verdict.remaining.to_string())));
        }
        if limit.announces == Announces::All {
            rate.push(("x-ratelimit-reset", text(&verdict.reset.timestamp().to_string())));
        }
    }
    limited = limited.or(world.spend_address(asked.kind.list));
    let broken = asked.id.and_then(|id| {
        let shop = world.shops.get(&merchant_id)?;
        let broken = if asked.kind.list == order_items::LIST { &shop.broken_lines } else { &shop.broken };
        broken.get(&id).cloned()
    });
    (broken.or_else(|| world.next_fault(merchant_id)), limited, rate)
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
    let mut bytes = body.into_bytes();
    let mark = NO_TEXT.to_string().into_bytes();
    while let Some(at) = bytes.windows(mark.len()).position(|window| window == mark) {
        bytes.splice(at..at + mark.len(), [0xd9]);
    }
    ([(header::CONTENT_TYPE, "application/json")], bytes).into_response()
}

async fn fail(world: &Arc<Mutex<World>>, asked: &Asked, fault: Fault) -> Response {
    let right = || asked.right(&world.lock(), 0).unwrap_or_default();
    match fault {
        Fault::Answer { .. } => answer(&fault),
        Fault::Truncated => {
            let mut body = right().into_bytes();
            body.truncate(body.len() / 2);
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Fault::CutOff => cut_off(right().into()),
        Fault::Hang(pause) => {
            tokio::time::sleep(pause).await;
            asked.right(&world.lock(), 0).map_or_else(|refusal| answer(&refusal), json_response)
        }
        Fault::Hold(gate) => {
            gate.wait().await;
            asked.right(&world.lock(), 0).map_or_else(|refusal| answer(&refusal), json_response)
        }
        Fault::Endless => {
            let drip = stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Some((Ok::<_, Infallible>(Bytes::from_static(&[b' '; 1 << 16])), ()))
            });
            ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(drip)).into_response()
        }
        Fault::PreviousPage => asked.right(&world.lock(), 1).map_or_else(|refusal| answer(&refusal), json_response),
        Fault::FirstPage => {
            asked.right(&world.lock(), usize::MAX).map_or_else(|refusal| answer(&refusal), json_response)
        }
        Fault::TokenEnded => refusal("The access token is invalid"),
    }
}

/// The first half of a body, and then the connection is cut.
pub fn cut_off(body: Bytes) -> Response {
    let half = body.slice(..body.len() / 2);
    let cut = Err(std::io::Error::other("cut off"));
    let body = Body::from_stream(stream::iter([Ok::<Bytes, _>(half), cut]));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

pub fn answer(fault: &Fault) -> Response {
    let (status, headers, body) = match fault {
        Fault::Answer { status, headers, body } => (status, headers, body),
        Fault::CutOff => return cut_off(Bytes::from_static(b"{}")),
        _ => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    let mut response = body.clone().into_response();
    *response.status_mut() = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        response.headers_mut().insert(*name, text(value));
    }
    response
}
