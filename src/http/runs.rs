//! The ledger over HTTP.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Api, access::Caller, problem::Problem};
use crate::{
    domain::{MerchantId, MerchantState, Request, RunId, RunStatus, Trigger},
    reconcile::ports::{Enqueued, IdempotencyKey, Ledger, NewRun, RunFilter},
};

pub(super) type Answer = Result<Response, Problem>;

pub(super) const DEFAULT_LIMIT: u64 = 50;
pub(super) const MAX_LIMIT: u64 = 500;
const MAX_DISCREPANCIES: u64 = 1000;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What `GET /runs` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    merchant_id: Option<i64>,
    status: Option<RunStatus>,
    limit: Option<u64>,
    cursor: Option<RunId>,
}

/// `GET /runs`: newest first.
pub async fn list<L: Ledger>(
    State(api): State<Arc<Api<L>>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(bad_request(format!("limit lies between 1 and {MAX_LIMIT}")));
    }
    let filter = RunFilter {
        merchant: query.merchant_id.map(MerchantId),
        status: query.status,
        before: query.cursor,
        limit: limit + 1,
    };
    let mut runs = api.ledger.runs(filter).await?;
    let more = u64::try_from(runs.len()).unwrap_or(u64::MAX) > limit;
    if more {
        runs.pop();
    }
    let next_cursor = runs.last().filter(|_| more).map(|run| run.run_id);
    Ok(Json(json!({"runs": runs, "next_cursor": next_cursor})).into_response())
}

/// `GET /runs/{id}`.
pub async fn show<L: Ledger>(State(api): State<Arc<Api<L>>>, Path(id): Path<String>) -> Answer {
    let run = api.ledger.run(run_id(&id)?).await?;
    run.map(|run| Json(run).into_response()).ok_or_else(no_run)
}

/// What `GET /runs/{id}/discrepancies` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    limit: Option<u64>,
    cursor: Option<u64>,
}

/// `GET /runs/{id}/discrepancies`: in the order in which they were found, a thousand at a time.
pub async fn discrepancies<L: Ledger>(
    State(api): State<Arc<Api<L>>>,
    Path(id): Path<String>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Answer {
    let Query(page) = query.map_err(|error| bad_request(error.body_text()))?;
    let limit = page.limit.unwrap_or(MAX_DISCREPANCIES);
    if !(1..=MAX_DISCREPANCIES).contains(&limit) {
        return Err(bad_request(format!("limit lies between 1 and {MAX_DISCREPANCIES}")));
    }
    let id = run_id(&id)?;
    if api.ledger.run(id).await?.is_none() {
        return Err(no_run());
    }
    let skip = page.cursor.unwrap_or(0);
    let mut found = api.ledger.discrepancies(id, skip, limit + 1).await?;
    let more = found.len() as u64 > limit;
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next_cursor = more.then_some(skip + limit);
    Ok(Json(json!({"discrepancies": found, "next_cursor": next_cursor})).into_response())
}

/// What `POST /runs` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    merchant_id: MerchantId,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
    #[serde(default)]
    full: bool,
    #[serde(default)]
    dry_run: bool,
}

/// `POST /runs`.
pub async fn create<L: Ledger>(
    State(api): State<Arc<Api<L>>>,
    Extension(Caller(by)): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let create: Create = serde_json::from_slice(&body)
        .map_err(|error| bad_request(format!("the body is not what a run takes: {error}")))?;
    if api.draining.is_cancelled() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "shutting down"));
    }
    if create.full && create.since.is_some() {
        return Err(bad_request("full takes the whole history, and since a part of it: give one of them"));
    }
    let request = Request { since: create.since, until: create.until, full: create.full, dry_run: create.dry_run };
    request
        .validate(api.ledger.now().await?)
        .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    let key = idempotency_key(&headers, create.merchant_id, &request)?;
    let new = NewRun { merchant: create.merchant_id, trigger: Trigger::Http, request, by, key };
    match api.ledger.enqueue(new).await? {
        Enqueued::Queued(id) => {
            api.wake.notify_one();
            accepted(&api, id).await
        }
        Enqueued::Replayed(id) => {
            let mut answer = accepted(&api, id).await?;
            answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(answer)
        }
        Enqueued::KeyTaken => {
            let detail = "this Idempotency-Key was sent with another request; take a new one";
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
        }
        Enqueued::Active(id) => {
            Err(Problem::new(StatusCode::CONFLICT, format!("run {id} of this merchant is queued or running"))
                .with("run_id", id.to_string()))
        }
        Enqueued::UnknownMerchant => Err(no_merchant(create.merchant_id)),
        Enqueued::Retired => Err(Problem::new(StatusCode::CONFLICT, MerchantState::Retired.advice())),
    }
}

async fn accepted<L: Ledger>(api: &Api<L>, id: RunId) -> Answer {
    let run = api.ledger.run(id).await?.ok_or_else(no_run)?;
    let location = [(header::LOCATION, format!("/runs/{id}"))];
    Ok((StatusCode::ACCEPTED, location, Json(run)).into_response())
}

/// The key, if there is one. Requests are the same when they ask for the same, however they are spelt.
fn idempotency_key(
    headers: &HeaderMap,
    merchant: MerchantId,
    request: &Request,
) -> Result<Option<IdempotencyKey>, Problem> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = given.next() else {
        return Ok(None);
    };
    let fits = (1..=255).contains(&key.len()) && key.as_bytes().iter().all(u8::is_ascii_graphic);
    let key = key.to_str().ok().filter(|_| fits && given.next().is_none());
    let key = key.ok_or_else(|| bad_request("Idempotency-Key has 1 to 255 visible ASCII characters"))?;
    let body = Sha256::digest(json!([merchant, request]).to_string()).into();
    Ok(Some(IdempotencyKey { key: key.to_owned(), body }))
}

/// `POST /runs/{id}/cancel`.
pub async fn cancel<L: Ledger>(
    State(api): State<Arc<Api<L>>>,
    Extension(Caller(by)): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer {
    match api.ledger.cancel(run_id(&id)?, &by).await? {
        Some(true) => Ok(StatusCode::ACCEPTED.into_response()),
        Some(false) => Err(Problem::new(StatusCode::CONFLICT, "the run has ended")),
        None => Err(no_run()),
    }
}

fn run_id(text: &str) -> Result<RunId, Problem> {
    text.parse().map_err(|_| no_run())
}

pub(super) fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

fn no_run() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no run of that id")
}

pub(super) fn no_merchant(id: MerchantId) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("no merchant {id} is registered"))
}
