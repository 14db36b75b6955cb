//! The report over a period, the same for the command and the API.

use crate::{
    domain::Drift,
    reconcile::ports::{DatabaseError, DriftFilter, RunHistory},
};

/// The drift of those whom `filter` names. A merchant that is named has an answer even where no run looked;
/// `None`: unknown.
///
/// # Errors
/// When the database refuses.
pub async fn report<L: RunHistory>(queue: &L, filter: DriftFilter) -> Result<Option<Vec<Drift>>, DatabaseError> {
    let drift = queue.drift(filter).await?;
    let Some(named) = filter.merchant.filter(|_| drift.is_empty()) else {
        return Ok(Some(drift));
    };
    let merchants = queue.merchants().await?;
    let merchant = merchants.into_iter().find(|merchant| merchant.merchant_id == named);
    Ok(merchant.map(|merchant| vec![Drift::none(named, merchant.name, filter.period)]))
}
