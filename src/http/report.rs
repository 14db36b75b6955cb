//! The report over a period.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::IntoResponse,
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;

use super::{
    Api,
    problem::Problem,
    runs::{Answer, bad_request, no_merchant},
};
use crate::{
    domain::{MerchantId, Period},
    reconcile::{
        self,
        ports::{DriftFilter, Ledger},
    },
};

/// What `GET /report` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportQuery {
    merchant_id: Option<i64>,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
}

/// `GET /report`: each merchant's drift, the largest first.
pub async fn show<L: Ledger>(
    State(api): State<Arc<Api<L>>>,
    query: Result<Query<ReportQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let period = Period::new(query.since, query.until, api.ledger.now().await?)
        .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    let merchant = query.merchant_id.map(MerchantId);
    match (reconcile::report(&api.ledger, DriftFilter { merchant, period }).await?, merchant) {
        (None, Some(merchant)) => Err(no_merchant(merchant)),
        (drift, _) => {
            let merchants = drift.unwrap_or_default();
            Ok(Json(json!({"since": period.since, "until": period.until, "merchants": merchants})).into_response())
        }
    }
}
