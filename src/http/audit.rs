//! Who did what.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    response::IntoResponse,
};
use serde::Deserialize;
use serde_json::json;

use super::{
    Api,
    runs::{Answer, DEFAULT_LIMIT, MAX_LIMIT, bad_request},
};
use crate::reconcile::ports::Ledger;

/// What `GET /audit` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    limit: Option<u64>,
    cursor: Option<i64>,
}

/// `GET /audit`: newest first.
pub async fn list<L: Ledger>(
    State(api): State<Arc<Api<L>>>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(bad_request(format!("limit lies between 1 and {MAX_LIMIT}")));
    }
    let mut entries = api.ledger.audit(query.cursor, limit + 1).await?;
    let more = entries.len() as u64 > limit;
    entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next_cursor = entries.last().filter(|_| more).map(|entry| entry.id);
    Ok(Json(json!({"entries": entries, "next_cursor": next_cursor})).into_response())
}
