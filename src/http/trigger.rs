//! The routes that queue and cancel runs. A repeated request with the same key queues one run.

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

/// Body of `POST /runs`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"merchant_id": 1001, "since": "2026-11-20T00:00:00Z", "dry_run": true}))]
pub struct Create {
    merchant_id: MerchantId,
    /// Start of the window. Default: the watermark, and at least `reconcile.lookback` ago. Not with `full`.
    since: Option<DateTime<Utc>>,
    /// End. Default: now.
    until: Option<DateTime<Utc>>,
    /// Read all records instead of a window.
    #[serde(default)]
    full: bool,
    /// Show the differences, and write no record.
    #[serde(default)]
    dry_run: bool,
    /// Kinds of record, at least one. Default: `reconcile.resources`.
    #[schema(nullable = false, min_items = 1)]
    resources: Option<Vec<Resource>>,
}

/// Queues a run.
#[utoipa::path(post, path = "/runs", operation_id = "create_run", tag = "runs", request_body = Create,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        nullable = false, example = "nightly-2026-11-25",
        description = "Repeating the request with this key within one day returns the run of the first request")),
    responses(
    (status = 202, description = "The run is queued; or the first request with this key queued it", body = Run, headers(
        ("Location" = String, description = "Address of the run"),
        ("Idempotency-Replayed" = Option<bool>, description = "true: an earlier request queued the run"))),
    (status = 400, description = "Invalid body or key"),
    (status = 404, description = "No merchant has this id"),
    (status = 409, description = "The merchant has a queued or running run, `run_id`; or it uninstalled the app"),
    (status = 413, description = "The body is larger than 64 KiB"),
    (status = 422, description = "The window is empty; or the key was used with another request")))]
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
        return Err(bad_request("full and since exclude each other"));
    }
    let resources: Resources = create.resources.iter().flatten().copied().collect();
    if create.resources.is_some() && resources.is_empty() {
        return Err(bad_request("resources is empty: omit it to use reconcile.resources"));
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
            let detail = "this Idempotency-Key was used with another request; use a new key";
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

/// The message for an invalid body names the member.
fn read(body: &[u8]) -> Result<Create, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let Object(read) =
        serde_path_to_error::deserialize(&mut json).map_err(|error| match error.path().to_string().as_str() {
            member @ ("since" | "until") => {
                bad_request(format!("{member} is not an RFC 3339 time, such as 2026-11-20T00:00:00Z"))
            }
            _ => bad_request(format!("the body is not valid: {}", error.inner())),
        })?;
    json.end().map_err(|error| bad_request(format!("the body is not valid: {error}")))?;
    Ok(read)
}

async fn accepted<L: RunStore>(api: &Api<L>, id: RunId) -> Answer {
    let run = api.store.run(id).await?.ok_or_else(no_run)?;
    let location = [(header::LOCATION, format!("/runs/{id}"))];
    Ok((StatusCode::ACCEPTED, location, Json(run)).into_response())
}

/// The idempotency key, if present. Requests with the same meaning are equal, also in another spelling.
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
    let key = key.ok_or_else(|| bad_request("Idempotency-Key must have 1 to 255 visible ASCII characters"))?;
    let body = Sha256::digest(json!([merchant, request]).to_string()).into();
    Ok(Some(IdempotencyKey { key: key.to_owned(), body }))
}

/// Cancels a run. A queued run ends at once, a running one at its next page.
#[utoipa::path(post, path = "/runs/{id}/cancel", operation_id = "cancel_run", tag = "runs",
    params(("id" = Uuid, Path, description = "Run id")), responses(
    (status = 202, description = "The run ends"),
    (status = 400, description = "Invalid run id"),
    (status = 404, description = "No run has this id"),
    (status = 409, description = "The run has already ended"),
    (status = 413, description = "The body is larger than 64 KiB")))]
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
