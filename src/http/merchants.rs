//! The register over HTTP. Tokens go in and never out, and no error quotes what was sent.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use super::{
    Onboarding,
    problem::Problem,
    runs::{Answer, bad_request, no_merchant},
};
use crate::{
    domain::{Change, MerchantId, MerchantState},
    reconcile::ports::{Changed, MerchantFilter, Register, Registration, Tokens, Unusable},
};

const DEFAULT_LIMIT: u64 = 100;
const MAX_LIMIT: u64 = 500;

/// The register's routes.
pub fn routes<R: Register, S>(onboarding: Arc<Onboarding<R>>) -> Router<S> {
    Router::new()
        .route("/merchants", get(list::<R>))
        .route("/merchants/{id}", get(show::<R>).put(put::<R>))
        .route("/merchants/{id}/pause", post(pause::<R>))
        .route("/merchants/{id}/resume", post(resume::<R>))
        .with_state(onboarding)
}

/// What `GET /merchants` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    state: Option<MerchantState>,
    limit: Option<u64>,
    cursor: Option<MerchantId>,
}

/// `GET /merchants`: by their ids.
pub async fn list<R: Register>(
    State(onboarding): State<Arc<Onboarding<R>>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(bad_request(format!("limit lies between 1 and {MAX_LIMIT}")));
    }
    let filter = MerchantFilter { state: query.state, after: query.cursor, limit: limit + 1 };
    let mut merchants = onboarding.register.list(filter).await?;
    let more = merchants.len() as u64 > limit;
    if more {
        merchants.pop();
    }
    let next_cursor = merchants.last().filter(|_| more).map(|merchant| merchant.merchant_id);
    Ok(Json(json!({"merchants": merchants, "next_cursor": next_cursor})).into_response())
}

/// `GET /merchants/{id}`.
pub async fn show<R: Register>(State(onboarding): State<Arc<Onboarding<R>>>, Path(id): Path<String>) -> Answer {
    let id = merchant_id(&id)?;
    let merchant = onboarding.register.merchant(id).await?;
    merchant.map(|merchant| Json(merchant).into_response()).ok_or_else(|| no_merchant(id))
}

/// What `PUT /merchants/{id}` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    name: Option<String>,
    access_token: SecretString,
    refresh_token: Option<SecretString>,
    expires_at: Option<DateTime<Utc>>,
}

/// `PUT /merchants/{id}`: registers a store, or replaces its name and tokens.
pub async fn put<R: Register>(
    State(onboarding): State<Arc<Onboarding<R>>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    let id = merchant_id(&id)?;
    // The error may quote what stands there, which may be a token.
    let put: Put = serde_json::from_slice(&body).map_err(|error| {
        bad_request(format!(
            "the body is not a merchant, {{\"name\", \"access_token\", \"refresh_token\", \"expires_at\"}} (line {}, column {})",
            error.line(),
            error.column()
        ))
    })?;
    let unusable = |error: Unusable| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
    let tokens = Tokens::new(put.access_token, put.refresh_token, put.expires_at).map_err(unusable)?;
    let registration = Registration::new(id, put.name, tokens).map_err(unusable)?;
    let registered = onboarding.register.register(&registration).await?;
    tracing::info!(merchant.id = id.0, new = registered.new, "merchant registered over HTTP");
    Ok(if registered.new {
        let location = [(header::LOCATION, format!("/merchants/{id}"))];
        (StatusCode::CREATED, location, Json(registered.merchant)).into_response()
    } else {
        Json(registered.merchant).into_response()
    })
}

/// `POST /merchants/{id}/pause`.
pub async fn pause<R: Register>(State(onboarding): State<Arc<Onboarding<R>>>, Path(id): Path<String>) -> Answer {
    change(&onboarding.register, &id, Change::Pause).await
}

/// `POST /merchants/{id}/resume`.
pub async fn resume<R: Register>(State(onboarding): State<Arc<Onboarding<R>>>, Path(id): Path<String>) -> Answer {
    change(&onboarding.register, &id, Change::Resume).await
}

async fn change<R: Register>(register: &R, id: &str, change: Change) -> Answer {
    let id = merchant_id(id)?;
    match register.change(id, change).await? {
        Changed::Now(merchant) => Ok(Json(merchant).into_response()),
        Changed::Impossible(obstacle) => Err(Problem::new(StatusCode::CONFLICT, obstacle.to_string())),
        Changed::Unknown => Err(no_merchant(id)),
    }
}

fn merchant_id(text: &str) -> Result<MerchantId, Problem> {
    text.parse().map_err(|_| bad_request("a merchant's id is a number"))
}
