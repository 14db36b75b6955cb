//! The stored state of the sorted list of each merchant.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, IdenStatic, Value};

use super::stored::Stored;
use crate::{
    domain::{MerchantId, Resource, ResourceRun, SortedList},
    reconcile::ports::{DatabaseError, SortedListRead},
    store::{
        Store,
        connection::{error::json, stamp::instant},
    },
};

impl Store {
    /// Of records that were created after `covered`, the details need not have been read. Runs read failed records again by
    /// their ids, so the age of their details does not count.
    pub(in crate::store) async fn read_sorted_list<R: Stored>(
        &self,
        merchant: MerchantId,
        covered: DateTime<Utc>,
    ) -> Result<SortedListRead, DatabaseError> {
        let is_older = R::CREATED_AT.as_ref().map(IdenStatic::as_str).map_or_else(String::new, |created| {
            format!("AND ({created} IS NULL OR {} < {})", self.dialect.age(created), self.dialect.age("$3"))
        });
        let sql = format!(
            "SELECT count(*) AS stored, \
             count(CASE WHEN f.salla_id IS NULL AND c.details_read_at IS NULL {is_older} THEN 1 END) AS unread, \
             min(CASE WHEN f.salla_id IS NULL THEN {read_at} END) AS details_since, \
             (SELECT sorted_list FROM watermarks WHERE merchant_id = $1 AND resource = $2) AS sorted_list \
             FROM {table} r LEFT JOIN order_detail_checks c ON c.merchant_id = r.merchant_id AND c.salla_order_id = r.{id} \
             LEFT JOIN failed_records f ON f.merchant_id = r.merchant_id AND f.resource = $2 AND f.salla_id = r.{id} \
             WHERE r.merchant_id = $1 AND r.deleted_at IS NULL",
            read_at = self.dialect.finite("c.details_read_at"),
            table = self.stored_source::<R>(),
            id = R::id_column(),
        );
        let values: [Value; 3] = [merchant.0.into(), R::RESOURCE.as_str().into(), covered.into()];
        let row = self.call(|| self.db.query_one_raw(self.statement(&sql, values.clone()))).await?;
        let nothing = || DatabaseError::Refused("a query for a count returned no row".into());
        self.sorted_list_of(&row.ok_or_else(nothing)?).map_err(|error| DatabaseError::Refused(error.into()))
    }

    fn sorted_list_of(&self, row: &sea_orm::QueryResult) -> Result<SortedListRead, DbErr> {
        let count = |column| row.try_get::<i64>("", column).map(i64::unsigned_abs);
        let details_since = if count("unread")? == 0 { instant(row, "details_since") } else { None };
        let list: Option<String> = row.try_get("", "sorted_list")?;
        // A state that another version wrote says nothing.
        let list = list.and_then(|list| serde_json::from_str(&list).ok()).unwrap_or_default();
        Ok(SortedListRead { list, stored: count("stored")?, details_since })
    }

    /// The ids of the oldest details and of some others.
    pub(in crate::store) async fn sample_ids<R: Stored>(
        &self,
        merchant: MerchantId,
        before: DateTime<Utc>,
        oldest: usize,
        drawn: usize,
    ) -> Result<Vec<i64>, DatabaseError> {
        let read_at = self.dialect.age("c.details_read_at");
        let sampled = |order: &str, count: usize| {
            format!(
                "SELECT id FROM (SELECT r.{id} AS id FROM {table} r JOIN order_detail_checks c \
                 ON c.merchant_id = r.merchant_id AND c.salla_order_id = r.{id} \
                 WHERE r.merchant_id = $1 AND r.deleted_at IS NULL AND c.list_fingerprint <> '' \
                 AND {read_at} < {before} ORDER BY {order} LIMIT {count}) AS sampled",
                table = self.stored_source::<R>(),
                id = R::id_column(),
                before = self.dialect.age("$2"),
            )
        };
        // UNION drops the records that are in both.
        let sql = format!("{} UNION {}", sampled(&read_at, oldest), sampled("random()", drawn));
        self.call(|| async {
            let rows = self.db.query_all_raw(self.statement(&sql, [merchant.0.into(), before.into()])).await?;
            rows.iter().map(|row| row.try_get("", "id")).collect()
        })
        .await
    }

    /// Keeps the state of a sorted list for the next run.
    pub(in crate::store) async fn save_sorted_list(
        &self,
        txn: &DatabaseTransaction,
        merchant: MerchantId,
        resource: Resource,
        resource_runs: &[ResourceRun],
    ) -> Result<(), DbErr> {
        let resource_run = resource_runs.iter().find(|resource_run| resource_run.resource == resource);
        let Some(list): Option<SortedList> = resource_run.and_then(|resource_run| resource_run.sorted_list) else {
            return Ok(());
        };
        let sql = "UPDATE watermarks SET sorted_list = $3 WHERE merchant_id = $1 AND resource = $2";
        let values: [Value; 3] = [merchant.0.into(), resource.as_str().into(), json(&list)?.into()];
        txn.execute_raw(self.statement(sql, values)).await?;
        Ok(())
    }
}
