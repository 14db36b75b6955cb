//! The drift of a period. The database counts rows of the same kind and fields, so the result is bounded by the number
//! of merchants.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};

use crate::{
    domain::{Drift, Lateness, MerchantId, RunStatus, Tally, UnknownValue},
    reconcile::ports::{DatabaseError, DriftFilter},
    store::Store,
};

impl Store {
    pub(in crate::store) async fn drift(&self, filter: DriftFilter) -> Result<Vec<Drift>, DatabaseError> {
        self.call(|| self.drift_once(filter)).await
    }

    async fn drift_once(&self, filter: DriftFilter) -> Result<Vec<Drift>, DbErr> {
        let mut merchants: BTreeMap<MerchantId, Drift> = BTreeMap::new();
        for row in self.db.query_all_raw(self.statement(&runs(filter), values(filter))).await? {
            let (merchant, name) = (MerchantId(row.try_get("", "merchant_id")?), row.try_get("", "name")?);
            let status: String = row.try_get("", "status")?;
            let status: RunStatus = status.parse().map_err(unknown)?;
            let drift = merchants.entry(merchant).or_insert_with(|| Drift::none(merchant, name, filter.period));
            drift.runs.count(status, count(&row, "runs")?);
        }
        for row in self.db.query_all_raw(self.statement(&self.found(filter), values(filter))).await? {
            // A run that ended between the two queries is one of the next report.
            if let Some(drift) = merchants.get_mut(&MerchantId(row.try_get("", "merchant_id")?)) {
                drift.count(&tally(&row)?);
                let median = seconds(&row, "median")?;
                drift.lateness.median_seconds = drift.lateness.median_seconds.or(median);
            }
        }
        let mut drift: Vec<Drift> = merchants.into_values().collect();
        // Stable: those of equal drift stay in the order of their ids.
        drift.sort_by_key(|drift| std::cmp::Reverse(drift.total()));
        Ok(drift)
    }

    /// Of the rows about one version of a record, only one counts. Rows that say what was wrong
    /// come before rows that say that it could not be corrected. Of these, the first one counts.
    /// Records without an id cannot be told apart, and were skipped. The median is in the one group
    /// that has the middle row.
    fn found(&self, filter: DriftFilter) -> String {
        let [hour, day, week] = Lateness::BOUNDS;
        format!(
            "WITH {found}, \
             once AS (\
               SELECT merchant_id, resource, kind, fields, rewritten, backfill, late, count(late) OVER (PARTITION BY merchant_id) AS measured, \
                 row_number() OVER (PARTITION BY merchant_id, CASE WHEN late IS NULL THEN 1 END ORDER BY late) AS place \
               FROM found WHERE nth = 1) \
             SELECT merchant_id, resource, kind, fields, rewritten, backfill, count(*) AS found, max(late) AS longest, \
               count(CASE WHEN late <= {hour} THEN 1 END) AS within_1h, \
               count(CASE WHEN late > {hour} AND late <= {day} THEN 1 END) AS within_24h, \
               count(CASE WHEN late > {day} AND late <= {week} THEN 1 END) AS within_7d, \
               count(CASE WHEN late > {week} THEN 1 END) AS longer, \
               max(CASE WHEN place = measured / 2 + 1 THEN late END) AS median \
             FROM once GROUP BY merchant_id, resource, kind, fields, rewritten, backfill",
            found = self.distinct_found(filter),
        )
    }

    /// The table `found` of a statement: a row with `nth = 1` for each version of an order that runs of the period found.
    pub(super) fn distinct_found(&self, filter: DriftFilter) -> String {
        format!(
            "found AS (\
               SELECT d.id, d.merchant_id, d.resource, d.kind, CASE d.kind WHEN 'stale' THEN d.fields ELSE '[]' END AS fields, \
                 {rewritten} AS rewritten, CASE WHEN d.backfill THEN 1 ELSE 0 END AS backfill, \
                 CASE WHEN d.kind IN ('missing', 'stale') AND NOT d.backfill AND {rewritten} = 0 THEN {late} END AS late, \
                 row_number() OVER (PARTITION BY d.merchant_id, d.resource, d.salla_id, d.remote_updated_at, \
                     CASE d.kind WHEN 'skipped' THEN 1 ELSE 0 END, d.backfill, CASE WHEN d.salla_id IS NULL THEN d.id END \
                   ORDER BY CASE d.kind WHEN 'failed' THEN 1 ELSE 0 END, d.id) AS nth \
               FROM discrepancies d JOIN runs r ON r.id = d.run_id WHERE {ended})",
            rewritten = REWRITTEN,
            late = self.dialect.whole_seconds_between("d.remote_updated_at", "d.found_at"),
            ended = ended(filter),
        )
    }
}

/// Of the same age and in the same columns: another writer's spelling of the same order, such as a webhook's.
const REWRITTEN: &str = "CASE WHEN d.kind = 'stale' AND d.fields = '[\"payload\"]' \
                         AND d.local_updated_at = d.remote_updated_at THEN 1 ELSE 0 END";

/// A merchant that has been removed has runs and no name.
fn runs(filter: DriftFilter) -> String {
    format!(
        "SELECT r.merchant_id, m.name, r.status, count(*) AS runs \
         FROM runs r LEFT JOIN merchants m ON m.merchant_id = r.merchant_id \
         WHERE {} GROUP BY r.merchant_id, m.name, r.status",
        ended(filter)
    )
}

/// SQLite's texts are all of one spelling here, and sort by time.
fn ended(filter: DriftFilter) -> &'static str {
    if filter.merchant.is_some() {
        "NOT r.dry_run AND r.finished_at >= $1 AND r.finished_at < $2 AND r.merchant_id = $3"
    } else {
        "NOT r.dry_run AND r.finished_at >= $1 AND r.finished_at < $2"
    }
}

pub(super) fn values(filter: DriftFilter) -> Vec<Value> {
    let period = [filter.period.since, filter.period.until].map(Value::from);
    period.into_iter().chain(filter.merchant.map(|merchant| merchant.0.into())).collect()
}

fn tally(row: &QueryResult) -> Result<Tally, DbErr> {
    let (resource, kind): (String, String) = (row.try_get("", "resource")?, row.try_get("", "kind")?);
    let fields: String = row.try_get("", "fields")?;
    Ok(Tally {
        resource: resource.parse().map_err(unknown)?,
        kind: kind.parse().map_err(unknown)?,
        fields: serde_json::from_str(&fields).map_err(|_| unknown(UnknownValue::new("list of fields", &fields)))?,
        backfill: row.try_get::<i32>("", "backfill")? > 0,
        rewritten: row.try_get::<i32>("", "rewritten")? > 0,
        count: count(row, "found")?,
        lateness: Lateness {
            within_1h: count(row, "within_1h")?,
            within_24h: count(row, "within_24h")?,
            within_7d: count(row, "within_7d")?,
            longer: count(row, "longer")?,
            max_seconds: seconds(row, "longest")?,
            median_seconds: None,
        },
    })
}

fn count(row: &QueryResult, column: &str) -> Result<u64, DbErr> {
    row.try_get("", column).map(|count: i64| u64::try_from(count).unwrap_or(0))
}

/// Where Salla's clock is ahead, nothing is late.
fn seconds(row: &QueryResult, column: &str) -> Result<Option<u64>, DbErr> {
    let seconds: Option<i64> = row.try_get("", column)?;
    Ok(seconds.map(|seconds| u64::try_from(seconds).unwrap_or(0)))
}

fn unknown(error: UnknownValue) -> DbErr {
    DbErr::Type(error.to_string())
}
