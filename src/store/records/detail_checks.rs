//! The detail checks of orders, and the stored records that a run must fetch.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sea_orm::{ConnectionTrait, DbErr, IdenStatic, StreamTrait, Value};

use super::stored::Stored;
use crate::{
    domain::{LastDetailCheck, MerchantId, Resource},
    reconcile::ports::{DatabaseError, DetailCheckResult, ExpectedRecords, StoredVersion},
    store::{Store, connection::stamp::instant},
};

/// Far below the number of parameters that a statement may have.
const ROWS_A_STATEMENT: usize = 1_000;

impl Store {
    pub(in crate::store) async fn read_checks(
        &self,
        merchant: MerchantId,
        ids: &[i64],
    ) -> Result<HashMap<i64, LastDetailCheck>, DatabaseError> {
        self.call(|| async {
            let mut checks = HashMap::with_capacity(ids.len());
            for ids in ids.chunks(ROWS_A_STATEMENT) {
                let sql = format!(
                    "SELECT salla_order_id, list_fingerprint, stored_fingerprint, salla_updated_at, details_read_at, newer_locally FROM order_detail_checks \
                     WHERE merchant_id = $1 AND salla_order_id IN ({})",
                    parameters(2, ids.len())
                );
                let values = std::iter::once(merchant.0).chain(ids.iter().copied()).map(Value::from);
                for row in self.db.query_all_raw(self.statement(&sql, values)).await? {
                    let text = |column| row.try_get::<String>("", column);
                    // One that another version made says nothing.
                    if let (Ok(summary), Ok(stored)) = (text("list_fingerprint")?.parse(), text("stored_fingerprint")?.parse()) {
                        let check = LastDetailCheck {
                            summary,
                            stored,
                            changed: instant(&row, "salla_updated_at"),
                            checked_at: instant(&row, "details_read_at").unwrap_or(DateTime::UNIX_EPOCH),
                            newer_locally: row.try_get("", "newer_locally")?,
                        };
                        checks.insert(row.try_get("", "salla_order_id")?, check);
                    }
                }
            }
            Ok(checks)
        })
        .await
    }

    pub(in crate::store) async fn note_checks(
        &self,
        txn: &impl ConnectionTrait,
        merchant: MerchantId,
        checked: &[&DetailCheckResult],
        read_at: DateTime<Utc>,
    ) -> Result<(), DbErr> {
        for checked in checked.chunks(ROWS_A_STATEMENT) {
            let rows: Vec<String> =
                (0..checked.len()).map(|row| format!("($1, {}, $2)", parameters(row * 5 + 3, 5))).collect();
            let sql = format!(
                "INSERT INTO order_detail_checks (merchant_id, salla_order_id, list_fingerprint, stored_fingerprint, salla_updated_at, newer_locally, details_read_at) VALUES {} \
                 ON CONFLICT (merchant_id, salla_order_id) DO UPDATE SET list_fingerprint = excluded.list_fingerprint, \
                 stored_fingerprint = excluded.stored_fingerprint, salla_updated_at = excluded.salla_updated_at, \
                 details_read_at = excluded.details_read_at, newer_locally = excluded.newer_locally",
                rows.join(", ")
            );
            let of_one = |one: &&DetailCheckResult| -> [Value; 5] {
                // No row has an empty content hash: the next list that shows the record has its details read.
                let row = one.summary.map(|summary| summary.to_string()).unwrap_or_default();
                [one.id.into(), row.into(), one.stored.to_string().into(), one.changed.into(), one.newer_locally.into()]
            };
            let values = [merchant.0.into(), read_at.into()].into_iter().chain(checked.iter().flat_map(of_one));
            txn.execute_raw(self.statement(&sql, values)).await?;
        }
        Ok(())
    }

    /// Read row by row, because a large merchant has too many for memory.
    pub(in crate::store) async fn held_and_unseen<R: Stored>(
        &self,
        merchant: MerchantId,
        ought: ExpectedRecords,
        seen: &(dyn Fn(i64) -> bool + Sync),
    ) -> Result<(usize, Vec<StoredVersion>), DatabaseError> {
        let age = |what: &str| self.dialect.age(what);
        let created = R::CREATED_AT.as_ref().map(IdenStatic::as_str);
        let (within, bounds): (String, Vec<DateTime<Utc>>) = match (ought, created) {
            (ExpectedRecords::ChangedSince(since, until), _) => {
                let changed = age("salla_updated_at");
                (format!("AND {changed} < {} AND {changed} >= {}", age("$2"), age("$3")), vec![until, since])
            }
            // Another writer may have left out when one was created: it is one of the whole merchant all the same.
            (ExpectedRecords::CreatedBefore(until), Some(created)) => {
                (format!("AND ({age} < {until} OR {age} IS NULL)", age = age(created), until = age("$2")), vec![until])
            }
            (ExpectedRecords::InRotation(slice, since, until), Some(created)) => {
                let created = age(created);
                let mut bounds = vec![until, since];
                let mut bound = |at: Option<DateTime<Utc>>, sign: &str| {
                    at.map_or_else(String::new, |at| {
                        bounds.push(at);
                        format!(" AND {created} {sign} {}", age(&format!("${}", bounds.len() + 1)))
                    })
                };
                let (from, to) = (bound(slice.from, ">="), bound(slice.to, "<"));
                (
                    format!(
                        "AND {created} < {} AND ({created} >= {} OR ({created} IS NOT NULL{from}{to}))",
                        age("$2"),
                        age("$3")
                    ),
                    bounds,
                )
            }
            (ExpectedRecords::CreatedBefore(_) | ExpectedRecords::InRotation(..), None) => (String::new(), Vec::new()),
        };
        let sql = format!(
            "SELECT {id}, {version} AS version FROM {table} AS stored WHERE merchant_id = $1 AND deleted_at IS NULL {within}",
            id = R::id_column(),
            table = self.stored_source::<R>(),
            version = self.dialect.finite("salla_updated_at"),
        );
        let values: Vec<Value> =
            std::iter::once(merchant.0.into()).chain(bounds.into_iter().map(Value::from)).collect();
        self.call(|| async {
            let mut rows = self.db.stream_raw(self.statement(&sql, values.clone())).await?;
            let (mut stored, mut unseen) = (0, Vec::new());
            while let Some(row) = rows.try_next().await? {
                stored += 1;
                let id = row.try_get("", R::id_column())?;
                if !seen(id) {
                    unseen.push((id, instant(&row, "version")));
                }
            }
            Ok((stored, unseen))
        })
        .await
    }

    pub(in crate::store) async fn failed_record_ids(
        &self,
        merchant: MerchantId,
        resource: Resource,
    ) -> Result<Vec<i64>, DatabaseError> {
        let sql = "SELECT salla_id FROM failed_records WHERE merchant_id = $1 AND resource = $2 ORDER BY last_attempted_at, salla_id";
        self.call(|| async {
            let values = [merchant.0.into(), resource.as_str().into()];
            let rows = self.db.query_all_raw(self.statement(sql, values)).await?;
            rows.iter().map(|row| row.try_get("", "salla_id")).collect()
        })
        .await
    }

    /// Which of the failed records were backfill when they failed first. They still are when they are corrected.
    pub(in crate::store) async fn backfilled_failures(
        &self,
        txn: &impl ConnectionTrait,
        merchant: MerchantId,
        resource: Resource,
        ids: &[i64],
    ) -> Result<HashSet<i64>, DbErr> {
        let mut found = HashSet::new();
        for ids in ids.chunks(ROWS_A_STATEMENT) {
            let sql = format!(
                "SELECT salla_id FROM failed_records WHERE merchant_id = $1 AND resource = $2 AND backfill AND salla_id IN ({})",
                parameters(3, ids.len())
            );
            let values = [merchant.0.into(), resource.as_str().into()].into_iter();
            let values = values.chain(ids.iter().copied().map(Value::from));
            for row in txn.query_all_raw(self.statement(&sql, values)).await? {
                found.insert(row.try_get("", "salla_id")?);
            }
        }
        Ok(found)
    }

    /// Stores failed records with their errors, and removes `recovered` ones. `is_backfill`: new ones are backfill.
    pub(in crate::store) async fn save_failed_records(
        &self,
        txn: &impl ConnectionTrait,
        merchant: MerchantId,
        resource: Resource,
        failed: &[(i64, Option<&str>)],
        is_backfill: bool,
        well: &[i64],
    ) -> Result<(), DbErr> {
        let resource = resource.as_str();
        for ids in well.chunks(ROWS_A_STATEMENT) {
            let sql = format!(
                "DELETE FROM failed_records WHERE merchant_id = $1 AND resource = $2 AND salla_id IN ({})",
                parameters(3, ids.len())
            );
            let values = [merchant.0.into(), resource.into()].into_iter().chain(ids.iter().copied().map(Value::from));
            txn.execute_raw(self.statement(&sql, values)).await?;
        }
        let sql = format!(
            "INSERT INTO failed_records (merchant_id, resource, salla_id, error, backfill) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (merchant_id, resource, salla_id) DO UPDATE SET error = excluded.error, last_attempted_at = {}",
            self.dialect.now()
        );
        for (id, reason) in failed {
            let values: [Value; 5] =
                [merchant.0.into(), resource.into(), (*id).into(), (*reason).into(), is_backfill.into()];
            txn.execute_raw(self.statement(&sql, values)).await?;
        }
        Ok(())
    }
}

/// `$first, $first+1, …`: `count` parameters.
fn parameters(first: usize, count: usize) -> String {
    let names: Vec<String> = (first..first + count).map(|number| format!("${number}")).collect();
    names.join(", ")
}
