//! The single records of the drift of a period.

use sea_orm::{DbErr, FromQueryResult, Value};

use super::drift::{ended, values};
use crate::{
    domain::{MerchantId, RunId},
    reconcile::ports::{CorrectedRecord, DriftFilter},
    store::{
        Store,
        entity::{discrepancy, read},
    },
};

impl Store {
    pub(super) async fn corrected_records_once(
        &self,
        filter: DriftFilter,
        (after, limit): (i64, u64),
    ) -> Result<Vec<CorrectedRecord>, DbErr> {
        let values: Vec<Value> = values(filter);
        let sql = format!(
            "SELECT d.* FROM discrepancies d JOIN runs r ON r.id = d.run_id \
             WHERE {ended} AND d.kind IN ('missing', 'stale') AND NOT d.backfill AND d.id > ${place} \
             ORDER BY d.id LIMIT {limit}",
            ended = ended(filter),
            place = values.len() + 1,
        );
        use sea_orm::ConnectionTrait as _;
        let rows = self.db.query_all_raw(self.statement(&sql, values.into_iter().chain([after.into()]))).await?;
        let record = |row| {
            let row = discrepancy::Model::from_query_result(row, "")?;
            let (id, merchant_id, run_id): (i64, _, RunId) = (row.id, MerchantId(row.merchant_id), row.run_id);
            Ok(CorrectedRecord { id, merchant_id, run_id, found: read(row)? })
        };
        rows.iter().map(record).collect()
    }
}
