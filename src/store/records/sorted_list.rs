//! What is remembered of the sorted list of each merchant.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, IdenStatic, StreamTrait, Value};

use super::stored::Stored;
use crate::{
    domain::{MerchantId, Resource, ResourceRun, SortedList},
    reconcile::ports::{SortedListRead, TargetError},
    store::{
        Store,
        connection::{error::json, stamp::instant},
    },
};

impl Store {
    /// Of records that were created after `covered`, the details need not have been read.
    pub(in crate::store) async fn read_sorted_list<R: Stored>(
        &self,
        merchant: MerchantId,
        covered: DateTime<Utc>,
    ) -> Result<SortedListRead, TargetError> {
        let is_older = R::CREATED_AT.as_ref().map(IdenStatic::as_str).map_or_else(String::new, |created| {
            format!("AND ({created} IS NULL OR {} < {})", self.dialect.age(created), self.dialect.age("$3"))
        });
        let sql = format!(
            "SELECT count(*) AS stored, count(CASE WHEN c.details_read_at IS NULL {is_older} THEN 1 END) AS unread, \
             min({read_at}) AS details_since, \
             (SELECT sorted_list FROM watermarks WHERE merchant_id = $1 AND resource = $2) AS sorted_list \
             FROM {table} r LEFT JOIN order_detail_checks c ON c.merchant_id = r.merchant_id AND c.salla_order_id = r.{id} \
             WHERE r.merchant_id = $1 AND r.deleted_at IS NULL",
            read_at = self.dialect.finite("c.details_read_at"),
            table = R::table(),
            id = R::id_column(),
        );
        let values: [Value; 3] = [merchant.0.into(), R::RESOURCE.as_str().into(), covered.into()];
        let row = self.call(|| self.db.query_one_raw(self.statement(&sql, values.clone()))).await?;
        let nothing = || TargetError::Refused("a query for a count returned no row".into());
        self.sorted_list_of(&row.ok_or_else(nothing)?).map_err(|error| TargetError::Refused(error.into()))
    }

    fn sorted_list_of(&self, row: &sea_orm::QueryResult) -> Result<SortedListRead, DbErr> {
        let count = |column| row.try_get::<i64>("", column).map(i64::unsigned_abs);
        let details_since = if count("unread")? == 0 { instant(row, "details_since") } else { None };
        let list: Option<String> = row.try_get("", "sorted_list")?;
        // A state that another version wrote says nothing.
        let list = list.and_then(|list| serde_json::from_str(&list).ok()).unwrap_or_default();
        Ok(SortedListRead { list, stored: count("stored")?, details_since })
    }

    /// Read row by row, because a large merchant has many that were seen.
    pub(in crate::store) async fn checked_and_unseen<R: Stored>(
        &self,
        merchant: MerchantId,
        seen: &(dyn Fn(i64) -> bool + Sync),
    ) -> Result<Vec<(i64, DateTime<Utc>)>, TargetError> {
        let sql = format!(
            "SELECT r.{id} AS id, {read_at} AS read_at FROM {table} r JOIN order_detail_checks c \
             ON c.merchant_id = r.merchant_id AND c.salla_order_id = r.{id} \
             WHERE r.merchant_id = $1 AND r.deleted_at IS NULL AND c.list_fingerprint <> ''",
            read_at = self.dialect.finite("c.details_read_at"),
            table = R::table(),
            id = R::id_column(),
        );
        self.call(|| async {
            let mut rows = self.db.stream_raw(self.statement(&sql, [merchant.0.into()])).await?;
            let mut checked = Vec::new();
            while let Some(row) = rows.try_next().await? {
                let id = row.try_get("", "id")?;
                if !seen(id) {
                    checked.push((id, instant(&row, "read_at").unwrap_or(DateTime::UNIX_EPOCH)));
                }
            }
            Ok(checked)
        })
        .await
    }

    /// Keeps the state of a sorted list for the next run.
    pub(in crate::store) async fn save_sorted_list(
        &self,
        txn: &DatabaseTransaction,
        merchant: MerchantId,
        (resource, parts): (Resource, &[ResourceRun]),
    ) -> Result<(), DbErr> {
        let part = parts.iter().find(|part| part.resource == resource);
        let Some(list): Option<SortedList> = part.and_then(|part| part.sorted_list) else {
            return Ok(());
        };
        let sql = "UPDATE watermarks SET sorted_list = $3 WHERE merchant_id = $1 AND resource = $2";
        let values: [Value; 3] = [merchant.0.into(), resource.as_str().into(), json(&list)?.into()];
        txn.execute_raw(self.statement(sql, values)).await?;
        Ok(())
    }
}
