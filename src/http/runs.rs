//! The read routes of runs, discrepancies and the audit.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    paging::{MAX_LIMIT, Paging},
    problem::Problem,
};
use crate::{
    domain::{Found, MerchantId, Run, RunId, RunStatus},
    reconcile::ports::{RunFilter, RunStore},
};

pub(super) type Answer = Result<Response, Problem>;

pub(super) const DEFAULT_LIMIT: u64 = 50;
const MAX_DISCREPANCIES: u64 = 1000;

/// More discrepancies than a run can have.
const MAX_SKIP: u64 = 1 << 40;

/// What `GET /runs` takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only runs of this merchant.
    #[param(nullable = false, example = 1001)]
    merchant_id: Option<i64>,
    /// Only runs with this status.
    #[param(nullable = false, inline, example = "failed")]
    status: Option<RunStatus>,
    /// Maximum number of entries.
    #[param(nullable = false, minimum = 1, maximum = 500, default = 50)]
    limit: Option<u64>,
    /// The `next_cursor` of the previous page.
    #[param(nullable = false, value_type = Option<Uuid>)]
    cursor: Option<RunId>,
}

/// One page of runs.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunPage {
    runs: Vec<Run>,
    /// Cursor of the next page; null on the last page.
    #[schema(value_type = Option<Uuid>)]
    next_cursor: Option<RunId>,
}

/// Lists runs, the newest first.
#[utoipa::path(get, path = "/runs", operation_id = "list_runs", tag = "runs", params(ListQuery), responses(
    (status = 200, description = "One page", body = RunPage),
    (status = 400, description = "Unknown or invalid query parameter")))]
pub async fn list<L: RunStore>(
    State(api): State<Arc<Api<L>>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let paging = Paging::new(query.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let filter = RunFilter {
        merchant: query.merchant_id.map(MerchantId),
        status: query.status,
        before: query.cursor,
        limit: paging.ask_for(),
    };
    let mut runs = api.store.runs(filter).await?;
    let next_cursor = paging.cut(&mut runs, |run| run.run_id);
    Ok(Json(RunPage { runs, next_cursor }).into_response())
}

/// Shows a run.
#[utoipa::path(get, path = "/runs/{id}", operation_id = "show_run", tag = "runs",
    params(("id" = Uuid, Path, description = "Run id")), responses(
    (status = 200, description = "The run", body = Run),
    (status = 400, description = "Invalid run id"),
    (status = 404, description = "No run has this id")))]
pub async fn show<L: RunStore>(State(api): State<Arc<Api<L>>>, Path(id): Path<String>) -> Answer {
    let run = api.store.run(run_id(&id)?).await?;
    run.map(|run| Json(run).into_response()).ok_or_else(no_run)
}

/// What `GET /runs/{id}/discrepancies` takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Maximum number of entries.
    #[param(nullable = false, minimum = 1, maximum = 1000, default = 1000)]
    limit: Option<u64>,
    /// The `next_cursor` of the previous page.
    #[param(nullable = false, minimum = 0, maximum = 1_099_511_627_776_u64)]
    cursor: Option<u64>,
}

/// One page of discrepancies.
#[derive(Debug, Serialize, ToSchema)]
pub struct DiscrepancyPage {
    discrepancies: Vec<Found>,
    /// Cursor of the next page; null on the last page.
    next_cursor: Option<u64>,
}

/// Lists the discrepancies of a run, in the order in which it found them.
#[utoipa::path(get, path = "/runs/{id}/discrepancies", operation_id = "list_discrepancies", tag = "runs",
    params(("id" = Uuid, Path, description = "Run id"), PageQuery), responses(
    (status = 200, description = "One page", body = DiscrepancyPage),
    (status = 400, description = "Unknown or invalid query parameter"),
    (status = 404, description = "No run has this id")))]
pub async fn discrepancies<L: RunStore>(
    State(api): State<Arc<Api<L>>>,
    Path(id): Path<String>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Answer {
    let Query(page) = query.map_err(|error| bad_request(error.body_text()))?;
    let paging = Paging::new(page.limit, MAX_DISCREPANCIES, MAX_DISCREPANCIES)?;
    let skip = page.cursor.unwrap_or(0);
    if skip > MAX_SKIP {
        return Err(bad_request("cursor is not valid"));
    }
    let id = run_id(&id)?;
    if api.store.run(id).await?.is_none() {
        return Err(no_run());
    }
    let mut found = api.store.discrepancies(id, skip, paging.ask_for()).await?;
    let next_cursor = paging.cut(&mut found, |_| skip + paging.limit());
    Ok(Json(DiscrepancyPage { discrepancies: found, next_cursor }).into_response())
}

pub(super) fn run_id(text: &str) -> Result<RunId, Problem> {
    text.parse().map_err(|_| no_run())
}

pub(super) fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

pub(super) fn no_run() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no run has this id")
}

pub(super) fn no_merchant(id: MerchantId) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("no merchant {id} is registered"))
}
