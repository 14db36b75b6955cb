//! What is asked of the queue over HTTP: a run, once however often the request is sent, and a run's end.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::{
    Api,
    access::Caller,
    problem::Problem,
    runs::{Answer, bad_request, no_merchant, no_run, run_id},
};
use crate::{
    domain::{MerchantId, MerchantState, Request, Resource, Resources, Run, RunId, Trigger},
    json_object::Object,
    reconcile::ports::{EnqueueOutcome, IdempotencyKey, NewRun, RunStore},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What `POST /runs` takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"merchant_id": 1001, "since": "2026-11-20T00:00:00Z", "dry_run": true}))]
pub struct Create {
    merchant_id: MerchantId,
    /// Where the window begins; otherwise at the last success, and at least the lookback ago. Not with `full`.
    since: Option<DateTime<Utc>>,
    /// Where it ends; otherwise now.
    until: Option<DateTime<Utc>>,
    /// Read all records instead of a window.
    #[serde(default)]
    full: bool,
    /// Show the differences, and write no record.
    #[serde(default)]
    dry_run: bool,
    /// Which kinds of record; otherwise those that `reconcile.resources` names. At least one.
    #[schema(nullable = false, min_items = 1)]
    resources: Option<Vec<Resource>>,
}

/// Asks for a run.
#[utoipa::path(post, path = "/runs", operation_id = "create_run", tag = "runs", request_body = Create,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        nullable = false, example = "nightly-2026-11-25",
        description = "The same caller's same request, sent again within a day, is answered with the run that it made")),
    responses(
    (status = 202, description = "It waits in the queue, or the same request made it before", body = Run, headers(
        ("Location" = String, description = "The run's address"),
        ("Idempotency-Replayed" = Option<bool>, description = "true: the same request made it before"))),
    (status = 400, description = "A body or a key that cannot be read"),
    (status = 404, description = "No merchant has this id"),
    (status = 409, description = "The merchant has a run that is queued or running, `run_id`; or its app is uninstalled"),
    (status = 413, description = "A body of more than 64 KiB"),
    (status = 422, description = "A window that has nothing in it; or the key was sent with another request")))]
pub async fn create<L: RunStore>(
    State(api): State<Arc<Api<L>>>,
    Extension(Caller(by)): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let create = read(&body)?;
    if api.draining.is_cancelled() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "shutting down"));
    }
    if create.full && create.since.is_some() {
        return Err(bad_request("full takes the whole history, and since a part of it: give one of them"));
    }
    let resources: Resources = create.resources.iter().flatten().copied().collect();
    if create.resources.is_some() && resources.is_empty() {
        return Err(bad_request("resources names no kind of record: leave it out for those that are configured"));
    }
    let Create { since, until, full, dry_run, .. } = create;
    let request = Request { since, until, full, dry_run, resources };
    request
        .validate(api.store.now().await?)
        .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    let key = idempotency_key(&headers, create.merchant_id, &request)?;
    let new = NewRun { merchant: create.merchant_id, trigger: Trigger::Http, request, by, key };
    match api.store.enqueue(new).await? {
        EnqueueOutcome::Queued(id) => {
            api.wake.notify_one();
            accepted(&api, id).await
        }
        EnqueueOutcome::Replayed(id) => {
            let mut answer = accepted(&api, id).await?;
            answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(answer)
        }
        EnqueueOutcome::KeyTaken => {
            let detail = "this Idempotency-Key was sent with another request; take a new one";
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
        }
        EnqueueOutcome::Active(id) => {
            Err(Problem::new(StatusCode::CONFLICT, format!("run {id} of this merchant is queued or running"))
                .with("run_id", id.to_string()))
        }
        EnqueueOutcome::UnknownMerchant => Err(no_merchant(create.merchant_id)),
        EnqueueOutcome::Uninstalled => Err(Problem::new(StatusCode::CONFLICT, MerchantState::Uninstalled.advice())),
    }
}

/// What is wrong with a body is told by the member it is wrong with.
fn read(body: &[u8]) -> Result<Create, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let Object(read) =
        serde_path_to_error::deserialize(&mut json).map_err(|error| match error.path().to_string().as_str() {
            member @ ("since" | "until") => {
                bad_request(format!("{member} is no instant in RFC 3339, such as 2026-11-20T00:00:00Z"))
            }
            _ => bad_request(format!("the body is not what a run takes: {}", error.inner())),
        })?;
    json.end().map_err(|error| bad_request(format!("the body is not what a run takes: {error}")))?;
    Ok(read)
}

async fn accepted<L: RunStore>(api: &Api<L>, id: RunId) -> Answer {
    let run = api.store.run(id).await?.ok_or_else(no_run)?;
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

/// Asks for a run's end: at once where it waits, else at its next page.
#[utoipa::path(post, path = "/runs/{id}/cancel", operation_id = "cancel_run", tag = "runs",
    params(("id" = Uuid, Path, description = "The run's id")), responses(
    (status = 202, description = "It was asked to end"),
    (status = 400, description = "An address that cannot be read"),
    (status = 404, description = "No run has this id"),
    (status = 409, description = "It has ended already"),
    (status = 413, description = "A body of more than 64 KiB")))]
pub async fn cancel<L: RunStore>(
    State(api): State<Arc<Api<L>>>,
    Extension(Caller(by)): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer {
    match api.store.cancel(run_id(&id)?, &by).await? {
        Some(true) => Ok(StatusCode::ACCEPTED.into_response()),
        Some(false) => Err(Problem::new(StatusCode::CONFLICT, "the run has ended")),
        None => Err(no_run()),
    }
}
