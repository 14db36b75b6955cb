//! Who did what.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    paging::{MAX_LIMIT, Paging},
    runs::{Answer, DEFAULT_LIMIT, bad_request},
};
use crate::reconcile::ports::{Audited, RunStore};

/// What `GET /audit` takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Maximum number of entries.
    #[param(nullable = false, minimum = 1, maximum = 500, default = 50)]
    limit: Option<u64>,
    /// The `next_cursor` of the previous page.
    #[param(nullable = false)]
    cursor: Option<i64>,
}

/// One page of the audit.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditPage {
    entries: Vec<Audited>,
    /// Cursor of the next page; null on the last page.
    next_cursor: Option<i64>,
}

/// Lists audit entries of the last year, the newest first.
#[utoipa::path(get, path = "/audit", operation_id = "list_audit", tag = "audit", params(AuditQuery), responses(
    (status = 200, description = "One page", body = AuditPage),
    (status = 400, description = "Unknown or invalid query parameter")))]
pub async fn list<L: RunStore>(
    State(api): State<Arc<Api<L>>>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let paging = Paging::new(query.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let mut entries = api.store.audit(query.cursor, paging.ask_for()).await?;
    let next_cursor = paging.cut(&mut entries, |entry| entry.id);
    Ok(Json(AuditPage { entries, next_cursor }).into_response())
}
