//! The report over a period.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::IntoResponse,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    problem::Problem,
    runs::{Answer, bad_request, no_merchant},
};
use crate::{
    domain::{Drift, MerchantId, Period},
    reconcile::{
        self,
        ports::{DriftFilter, RunStore},
    },
};

/// What `GET /report` takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReportQuery {
    /// Only this merchant.
    #[param(nullable = false, example = 1001)]
    merchant_id: Option<i64>,
    /// Start of the period. Default: 30 days before its end.
    #[param(nullable = false, example = "2026-10-01T00:00:00Z")]
    since: Option<DateTime<Utc>>,
    /// End. Default: now.
    #[param(nullable = false, example = "2026-11-01T00:00:00Z")]
    until: Option<DateTime<Utc>>,
}

/// The drift over a period.
#[derive(Debug, Serialize, ToSchema)]
pub struct Report {
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    merchants: Vec<Drift>,
}

/// Shows the drift of each merchant, the largest first.
#[utoipa::path(get, path = "/report", operation_id = "report", tag = "report", params(ReportQuery), responses(
    (status = 200, description = "The drift", body = Report),
    (status = 400, description = "Unknown or invalid query parameter"),
    (status = 404, description = "No merchant has this id"),
    (status = 422, description = "The period is empty")))]
pub async fn show<L: RunStore>(
    State(api): State<Arc<Api<L>>>,
    query: Result<Query<ReportQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let period = Period::new(query.since, query.until, api.store.now().await?)
        .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    let merchant = query.merchant_id.map(MerchantId);
    match (reconcile::report(&api.store, DriftFilter { merchant, period }).await?, merchant) {
        (None, Some(merchant)) => Err(no_merchant(merchant)),
        (drift, _) => {
            let merchants = drift.unwrap_or_default();
            Ok(Json(Report { since: period.since, until: period.until, merchants }).into_response())
        }
    }
}
