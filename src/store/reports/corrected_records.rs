//! The single records of the drift of a period.

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult};

use super::drift::values;
use crate::{
    domain::MerchantId,
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
        after: i64,
        limit: u64,
    ) -> Result<Vec<CorrectedRecord>, DbErr> {
        let period = values(filter);
        let sql = format!(
            "WITH {found} SELECT d.* FROM found f JOIN discrepancies d ON d.id = f.id \
             WHERE f.nth = 1 AND f.rewritten = 0 AND f.backfill = 0 AND f.kind IN ('missing', 'stale') AND f.id > ${place} \
             ORDER BY d.id LIMIT {limit}",
            found = self.distinct_found(filter),
            place = period.len() + 1,
        );
        let rows = self.db.query_all_raw(self.statement(&sql, period.into_iter().chain([after.into()]))).await?;
        let record = |row| {
            let row = discrepancy::Model::from_query_result(row, "")?;
            let (id, merchant_id, run_id) = (row.id, MerchantId(row.merchant_id), row.run_id);
            Ok(CorrectedRecord { id, merchant_id, run_id, found: read(row)? })
        };
        rows.iter().map(record).collect()
    }
}
