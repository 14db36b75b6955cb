//! What the dashboard shows: sweeps, merchants needing attention, tokens, ended sessions.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryResult};

use super::run_queries::OVERDUE;
use crate::{
    domain::{MerchantId, Run, RunStatus, Totals},
    reconcile::ports::{DatabaseError, MerchantIssue, Overview, SweepSummary, TokenState},
    store::{
        Store,
        connection::stamp::{Stamp, instant, or_epoch},
        entity::{credential, merchant, watermark},
    },
};

impl Overview for Store {
    async fn sweeps(&self, limit: u64) -> Result<Vec<SweepSummary>, DatabaseError> {
        self.call(|| self.read_sweeps(limit)).await
    }

    async fn attention(&self, limit: u64) -> Result<Vec<MerchantIssue>, DatabaseError> {
        self.call(|| self.read_attention(limit)).await
    }

    async fn token(&self, merchant: MerchantId) -> Result<Option<TokenState>, DatabaseError> {
        self.call(|| async {
            let row = credential::Entity::find_by_id(merchant.0).one(&self.db).await?;
            Ok(row.map(|row| TokenState {
                issued_at: or_epoch(row.issued_at),
                expires_at: row.expires_at.map(|Stamp(at)| at),
                renewable: row.refresh_token.is_some(),
                refresh_started_at: row.refresh_started_at.map(|Stamp(at)| at),
                revoked_at: row.revoked_at.map(|Stamp(at)| at),
            }))
        })
        .await
    }

    async fn end_session(&self, id: &str, ends_at: DateTime<Utc>) -> Result<(), DatabaseError> {
        let sql = "INSERT INTO ended_sessions (id, ends_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
        self.call(|| async { self.db.execute_raw(self.statement(sql, [id.into(), ends_at.into()])).await.map(drop) })
            .await
    }

    async fn session_has_ended(&self, id: &str) -> Result<bool, DatabaseError> {
        let sql = "SELECT 1 AS found FROM ended_sessions WHERE id = $1";
        self.call(|| async { Ok(self.db.query_one_raw(self.statement(sql, [id.into()])).await?.is_some()) }).await
    }
}

impl Store {
    async fn read_sweeps(&self, limit: u64) -> Result<Vec<SweepSummary>, DbErr> {
        let sql = format!(
            "SELECT scheduled_for, outcome, run_count, started_at, summary, {took} AS took FROM sweeps WHERE outcome <> 'began' \
             ORDER BY scheduled_for DESC LIMIT {limit}",
            took = self.dialect.seconds_between("started_at", "ended_at"),
        );
        let mut nights = Vec::new();
        for row in self.db.query_all_raw(self.statement(&sql, [])).await? {
            let mut night = night(&row)?;
            // The runs of a running sweep are counted by their present status.
            if night.took.is_none() && night.made > 0 {
                night.runs = self.runs_of(&self.db, night.scheduled_for).await?;
            }
            nights.push(night);
        }
        Ok(nights)
    }

    async fn read_attention(&self, limit: u64) -> Result<Vec<MerchantIssue>, DbErr> {
        let overdue =
            format!("m.state = 'active' AND COALESCE(w.watermark, m.created_at) < {}", self.dialect.now_minus(OVERDUE));
        let waiting = |which: &str| {
            format!(
                "SELECT m.merchant_id FROM merchants m LEFT JOIN {covered} w ON w.merchant_id = m.merchant_id \
                 WHERE {which} ORDER BY COALESCE(w.watermark, m.created_at), m.merchant_id LIMIT {limit}",
                covered = self.oldest_watermarks()
            )
        };
        let last_run_ended = |status: RunStatus| {
            format!(
                "SELECT r.merchant_id FROM runs r JOIN merchants m ON m.merchant_id = r.merchant_id \
                 AND m.state IN ('active', 'paused') WHERE r.status = '{status}' AND NOT EXISTS (SELECT 1 FROM runs n \
                 WHERE n.merchant_id = r.merchant_id AND n.id > r.id AND n.finished_at IS NOT NULL) \
                 ORDER BY r.id DESC LIMIT {limit}"
            )
        };
        let mut behind = Vec::new();
        let mut found: Vec<i64> = Vec::new();
        for (sql, is_overdue) in [
            (waiting("m.state = 'needs_reauthorization'"), false),
            (waiting(&overdue), true),
            (last_run_ended(RunStatus::Failed), false),
            (last_run_ended(RunStatus::Partial), false),
        ] {
            for row in self.db.query_all_raw(self.statement(&sql, [])).await? {
                let merchant: i64 = row.try_get("", "merchant_id")?;
                if is_overdue {
                    behind.push(merchant);
                }
                if !found.contains(&merchant) {
                    found.push(merchant);
                }
            }
        }
        let rows = merchant::Entity::find().filter(merchant::Column::MerchantId.is_in(found.clone()));
        let watermarks = watermark::Entity::find().filter(watermark::Column::MerchantId.is_in(found.clone()));
        let merchants = self.with_watermarks(rows.all(&self.db).await?, watermarks, &self.db).await?;
        let mut merchants: HashMap<i64, _> = merchants.into_iter().map(|one| (one.merchant_id.0, one)).collect();
        let mut last = self.last_ended(&found).await?;
        let attention = |id: i64| {
            // A removed merchant needs no attention.
            let merchant = merchants.remove(&id)?;
            Some(MerchantIssue { merchant, overdue: behind.contains(&id), last: last.remove(&id) })
        };
        Ok(found.into_iter().filter_map(attention).collect())
    }

    async fn last_ended(&self, merchants: &[i64]) -> Result<HashMap<i64, Run>, DbErr> {
        if merchants.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<String> = merchants.iter().map(ToString::to_string).collect();
        let sql = format!(
            "SELECT r.* FROM merchants m JOIN runs r ON r.id = (SELECT n.id FROM runs n \
             WHERE n.merchant_id = m.merchant_id AND n.finished_at IS NOT NULL ORDER BY n.id DESC LIMIT 1) \
             WHERE m.merchant_id IN ({})",
            ids.join(", ")
        );
        let runs = self.returned_runs(&self.db, self.statement(&sql, [])).await?;
        Ok(runs.into_iter().map(|run| (run.merchant_id.0, run)).collect())
    }
}

fn night(row: &QueryResult) -> Result<SweepSummary, DbErr> {
    let outcome: String = row.try_get("", "outcome")?;
    let made: i64 = row.try_get("", "run_count")?;
    let took: Option<f64> = row.try_get("", "took")?;
    let summary: Option<String> = row.try_get("", "summary")?;
    let runs = summary.and_then(|summary| serde_json::from_str::<Vec<(RunStatus, u64, Totals)>>(&summary).ok());
    Ok(SweepSummary {
        scheduled_for: instant(row, "scheduled_for").unwrap_or(DateTime::UNIX_EPOCH),
        trigger: outcome.parse().ok(),
        made: u64::try_from(made).unwrap_or(0),
        started_at: instant(row, "started_at").unwrap_or(DateTime::UNIX_EPOCH),
        took: took.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
        runs: runs.unwrap_or_default(),
    })
}
