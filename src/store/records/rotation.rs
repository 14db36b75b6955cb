//! Which part of a merchant's older records is due to be read, of a kind that is read in turns.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, IdenStatic, Value};

use super::stored::Stored;
use crate::{
    domain::{MerchantId, Resource, ResourceRun, RotationPace, RotationWindow},
    reconcile::ports::DatabaseError,
    store::{Store, connection::stamp::instant},
};

impl Store {
    /// The next one, of about as many records as make up a turn in the nights of the pace.
    pub(in crate::store) async fn due_slice<R: Stored>(
        &self,
        merchant: MerchantId,
        pace: RotationPace,
    ) -> Result<Option<RotationWindow>, DatabaseError> {
        let Some(created) = R::CREATED_AT.as_ref().map(IdenStatic::as_str) else {
            return Ok(None);
        };
        self.call(|| self.due_slice_once::<R>(merchant, created, pace)).await
    }

    async fn due_slice_once<R: Stored>(
        &self,
        merchant: MerchantId,
        created: &str,
        pace: RotationPace,
    ) -> Result<Option<RotationWindow>, DbErr> {
        let (table, finite) = (self.stored_source::<R>(), self.dialect.finite(created));
        let count = format!(
            "SELECT count(*) AS held, count({finite}) AS dated, \
             (SELECT rotation_cursor FROM watermarks WHERE merchant_id = $1 AND resource = $2) AS rotation_cursor \
             FROM {table} AS stored WHERE merchant_id = $1 AND deleted_at IS NULL"
        );
        let whose = [Value::from(merchant.0), R::RESOURCE.as_str().into()];
        let Some(row) = self.db.query_one_raw(self.statement(&count, whose)).await? else {
            return Ok(None);
        };
        let (held, dated): (i64, i64) = (row.try_get("", "held")?, row.try_get("", "dated")?);
        if held != dated || held.unsigned_abs() <= pace.few {
            return Ok(None);
        }
        let from = instant(&row, "rotation_cursor");
        let share = pace.share(held.unsigned_abs());
        let mut to = self.created_behind::<R>(merchant, created, from, share).await?;
        if to.is_some() && to == from {
            // More than a share came at one moment.
            to = self
                .created_behind::<R>(merchant, created, from.map(|at| at + chrono::TimeDelta::seconds(1)), 0)
                .await?;
        }
        Ok(Some(RotationWindow { from, to }))
    }

    /// When the record was created that so many others lie before, counted from an instant; `None`: there are not as many.
    async fn created_behind<R: Stored>(
        &self,
        merchant: MerchantId,
        created: &str,
        from: Option<DateTime<Utc>>,
        others: u64,
    ) -> Result<Option<DateTime<Utc>>, DbErr> {
        let age = self.dialect.age(created);
        let since = from.map_or_else(String::new, |_| format!("AND {age} >= {}", self.dialect.age("$2")));
        let sql = format!(
            "SELECT {finite} AS created FROM {table} AS stored WHERE merchant_id = $1 AND deleted_at IS NULL {since} \
             ORDER BY {age} LIMIT 1 OFFSET {others}",
            finite = self.dialect.finite(created),
            table = self.stored_source::<R>(),
        );
        let values = [Some(merchant.0.into()), from.map(Value::from)];
        let row = self.db.query_one_raw(self.statement(&sql, values.into_iter().flatten())).await?;
        Ok(row.and_then(|row| instant(&row, "created")))
    }

    /// The next run that covers the merchant reads the next slice; behind the last one the first comes again.
    pub(in crate::store) async fn rotate(
        &self,
        txn: &DatabaseTransaction,
        merchant: MerchantId,
        resource: Resource,
        resource_runs: &[ResourceRun],
    ) -> Result<(), DbErr> {
        let resource_run = resource_runs.iter().find(|resource_run| resource_run.resource == resource);
        let Some(slice) = resource_run.and_then(|resource_run| resource_run.slice) else {
            return Ok(());
        };
        let sql = "UPDATE watermarks SET rotation_cursor = $3 WHERE merchant_id = $1 AND resource = $2";
        let values: [Value; 3] = [merchant.0.into(), resource.as_str().into(), slice.to.into()];
        txn.execute_raw(self.statement(sql, values)).await?;
        Ok(())
    }
}
