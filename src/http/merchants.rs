//! The register over HTTP. No answer shows a token, and no error quotes what was sent.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::IntoResponse,
};
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::{IntoParams, ToSchema};

use super::{
    Onboarding,
    access::Caller,
    paging::{MAX_LIMIT, Paging},
    problem::Problem,
    runs::{Answer, bad_request, no_merchant},
};
use crate::{
    domain::{Merchant, MerchantId, MerchantState, Transition},
    json_object::Object,
    reconcile::ports::{Actor, Changed, MerchantFilter, MerchantRegistry, Registration, Tokens, Unusable},
};

const DEFAULT_LIMIT: u64 = 100;

/// What `GET /merchants` takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only merchants in this state.
    #[param(nullable = false)]
    state: Option<MerchantState>,
    /// Maximum number of merchants. Default: 100.
    #[param(minimum = 1, maximum = 500, nullable = false)]
    limit: Option<u64>,
    /// The `next_cursor` of the previous page.
    #[param(nullable = false)]
    cursor: Option<MerchantId>,
}

/// One page of merchants.
#[derive(Debug, Serialize, ToSchema)]
pub struct MerchantPage {
    merchants: Vec<Merchant>,
    /// Cursor of the next page; null on the last page.
    next_cursor: Option<MerchantId>,
}

/// Lists merchants by id.
#[utoipa::path(get, path = "/merchants", operation_id = "list_merchants", tag = "merchants", params(ListQuery), responses(
    (status = 200, description = "One page", body = MerchantPage),
    (status = 400, description = "Invalid query parameter")))]
pub async fn list<R: MerchantRegistry>(
    State(onboarding): State<Arc<Onboarding<R>>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let paging = Paging::new(query.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let filter = MerchantFilter { state: query.state, after: query.cursor, limit: paging.ask_for() };
    let mut merchants = onboarding.register.list(filter).await?;
    let next_cursor = paging.cut(&mut merchants, |merchant| merchant.merchant_id);
    Ok(Json(MerchantPage { merchants, next_cursor }).into_response())
}

/// Shows a merchant.
#[utoipa::path(get, path = "/merchants/{id}", operation_id = "show_merchant", tag = "merchants",
    params(("id" = i64, Path, description = "Merchant id", example = 1001)), responses(
    (status = 200, description = "The merchant", body = Merchant),
    (status = 400, description = "The id is not a number"),
    (status = 404, description = "No merchant has this id")))]
pub async fn show<R: MerchantRegistry>(State(onboarding): State<Arc<Onboarding<R>>>, Path(id): Path<String>) -> Answer {
    let id = merchant_id(&id)?;
    let merchant = onboarding.register.merchant(id).await?;
    merchant.map(|merchant| Json(merchant).into_response()).ok_or_else(|| no_merchant(id))
}

/// Body of `PUT /merchants/{id}`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "A shop", "access_token": "access-token", "refresh_token": "refresh-token", "expires_at": "2026-12-09T00:00:00Z"}))]
pub struct Put {
    /// Name of the merchant. Without it, the present name stays.
    #[schema(max_length = 200)]
    name: Option<String>,
    /// Access token.
    #[schema(value_type = String, min_length = 1, max_length = 8192, pattern = "^[!-~]+$", write_only)]
    access_token: SecretString,
    /// Refresh token. Without it, the access token is used until it expires.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 8192, pattern = "^[!-~]+$", write_only)]
    refresh_token: Option<SecretString>,
    /// Expiry of the access token. Without it, the token is refreshed only after Salla refuses it.
    expires_at: Option<DateTime<Utc>>,
}

/// Body of `PUT /merchants/{id}/token`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"access_token": "access-token", "expires_at": "2026-12-09T00:00:00Z"}))]
pub struct PutToken {
    /// Access token.
    #[schema(value_type = String, min_length = 1, max_length = 8192, pattern = "^[!-~]+$", write_only)]
    access_token: SecretString,
    /// Refresh token. Leave it out if the platform refreshes: Salla revokes both tokens if a refresh token is used twice.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 8192, pattern = "^[!-~]+$", write_only)]
    refresh_token: Option<SecretString>,
    /// Expiry of the access token.
    expires_at: Option<DateTime<Utc>>,
}

/// Replaces only the tokens of a merchant, for platforms that refresh them. A paused merchant stays paused. A merchant that needs
/// authorization becomes active. Without a refresh token, a stored one is removed.
#[utoipa::path(put, path = "/merchants/{id}/token", operation_id = "put_token", tag = "merchants", request_body = PutToken,
    params(("id" = i64, Path, description = "Merchant id", example = 1001)), responses(
    (status = 200, description = "The tokens were replaced", body = Merchant),
    (status = 400, description = "The id is not a number, or the body is invalid"),
    (status = 404, description = "No merchant has this id"),
    (status = 409, description = "Not possible in this state; `detail` says what to do"),
    (status = 413, description = "The body is larger than 64 KiB"),
    (status = 422, description = "The token is invalid or belongs to another merchant")))]
pub async fn put_token<R: MerchantRegistry>(
    State(onboarding): State<Arc<Onboarding<R>>>,
    Extension(Caller(by)): Extension<Caller>,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let id = merchant_id(&id)?;
    let put: PutToken = read(&body, "{\"access_token\", \"refresh_token\", \"expires_at\"}")?;
    let tokens = Tokens::new(put.access_token, put.refresh_token, put.expires_at).map_err(unusable)?;
    answer(id, onboarding.register.replace_tokens(id, &tokens, &by).await?)
}

/// Reads a body. The error of the parser may quote a token, so that only its place is shown.
fn read<T: DeserializeOwned>(body: &[u8], expected: &str) -> Result<T, Problem> {
    let place = |error: serde_json::Error| format!("line {}, column {}", error.line(), error.column());
    let read = serde_json::from_slice(body).map(|Object(read)| read);
    read.map_err(|error| bad_request(format!("the body is not {expected} ({})", place(error))))
}

fn unusable(error: Unusable) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
}

/// Registers a merchant, or replaces its name and tokens. The merchant becomes active.
#[utoipa::path(put, path = "/merchants/{id}", operation_id = "put_merchant", tag = "merchants", request_body = Put,
    params(("id" = i64, Path, description = "Merchant id", example = 1001)), responses(
    (status = 200, description = "The merchant was updated", body = Merchant),
    (status = 201, description = "The merchant was created", body = Merchant, headers(
        ("Location" = String, description = "Address of the merchant"))),
    (status = 400, description = "The id is not a number, or the body is invalid"),
    (status = 413, description = "The body is larger than 64 KiB"),
    (status = 422, description = "The token is invalid or belongs to another merchant, or the name is too long")))]
pub async fn put<R: MerchantRegistry>(
    State(onboarding): State<Arc<Onboarding<R>>>,
    Extension(Caller(by)): Extension<Caller>,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let id = merchant_id(&id)?;
    let put: Put = read(&body, "a merchant {\"name\", \"access_token\", \"refresh_token\", \"expires_at\"}")?;
    let tokens = Tokens::new(put.access_token, put.refresh_token, put.expires_at).map_err(unusable)?;
    let registration = Registration::new(id, put.name, tokens).map_err(unusable)?;
    let registered = onboarding.register.register(&registration, &by).await?;
    Ok(if registered.new {
        let location = [(header::LOCATION, format!("/merchants/{id}"))];
        (StatusCode::CREATED, location, Json(registered.merchant)).into_response()
    } else {
        Json(registered.merchant).into_response()
    })
}

/// Pauses a merchant, and cancels its queued scheduled runs.
#[utoipa::path(post, path = "/merchants/{id}/pause", operation_id = "pause_merchant", tag = "merchants",
    params(("id" = i64, Path, description = "Merchant id", example = 1001)), responses(
    (status = 200, description = "The merchant", body = Merchant),
    (status = 400, description = "The id is not a number"),
    (status = 404, description = "No merchant has this id"),
    (status = 409, description = "Not possible in this state; `detail` says what to do"),
    (status = 413, description = "The body is larger than 64 KiB")))]
pub async fn pause<R: MerchantRegistry>(
    State(onboarding): State<Arc<Onboarding<R>>>,
    Extension(Caller(by)): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer {
    change(&onboarding.register, &id, Transition::Pause, &by).await
}

/// Resumes a merchant that is paused, waits for a rate limit, or has no subscription.
#[utoipa::path(post, path = "/merchants/{id}/resume", operation_id = "resume_merchant", tag = "merchants",
    params(("id" = i64, Path, description = "Merchant id", example = 1001)), responses(
    (status = 200, description = "The merchant", body = Merchant),
    (status = 400, description = "The id is not a number"),
    (status = 404, description = "No merchant has this id"),
    (status = 409, description = "Not possible in this state; `detail` says what to do"),
    (status = 413, description = "The body is larger than 64 KiB")))]
pub async fn resume<R: MerchantRegistry>(
    State(onboarding): State<Arc<Onboarding<R>>>,
    Extension(Caller(by)): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer {
    change(&onboarding.register, &id, Transition::Resume, &by).await
}

/// State of the global pause.
#[derive(Debug, Serialize, ToSchema)]
pub struct Pause {
    /// True during a global pause.
    #[schema(example = true)]
    paused: bool,
}

/// Starts a global pause: no run starts, and running runs are released at their cursors.
#[utoipa::path(post, path = "/merchants/pause", operation_id = "pause_all", tag = "merchants", responses(
    (status = 200, description = "The global pause is active", body = Pause),
    (status = 413, description = "The body is larger than 64 KiB")))]
pub async fn pause_all<R: MerchantRegistry>(
    State(onboarding): State<Arc<Onboarding<R>>>,
    Extension(Caller(by)): Extension<Caller>,
) -> Answer {
    onboarding.register.set_global_pause(true, &by).await?;
    Ok(Json(Pause { paused: true }).into_response())
}

/// Ends the global pause. The state of each merchant stays. A sweep that was due starts if it is within
/// `schedule.catch_up`.
#[utoipa::path(post, path = "/merchants/resume", operation_id = "resume_all", tag = "merchants", responses(
    (status = 200, description = "The global pause has ended", body = Pause),
    (status = 413, description = "The body is larger than 64 KiB")))]
pub async fn resume_all<R: MerchantRegistry>(
    State(onboarding): State<Arc<Onboarding<R>>>,
    Extension(Caller(by)): Extension<Caller>,
) -> Answer {
    onboarding.register.set_global_pause(false, &by).await?;
    Ok(Json(Pause { paused: false }).into_response())
}

async fn change<R: MerchantRegistry>(register: &R, id: &str, change: Transition, by: &Actor) -> Answer {
    let id = merchant_id(id)?;
    answer(id, register.change(id, change, by).await?)
}

fn answer(id: MerchantId, changed: Changed) -> Answer {
    match changed {
        Changed::Now(merchant) => Ok(Json(merchant).into_response()),
        Changed::Impossible(obstacle) => Err(Problem::new(StatusCode::CONFLICT, obstacle.to_string())),
        Changed::Unknown => Err(no_merchant(id)),
    }
}

pub(super) fn merchant_id(text: &str) -> Result<MerchantId, Problem> {
    text.parse().map_err(|_| bad_request("a merchant id is a number"))
}
