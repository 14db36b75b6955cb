//! How a run comes into a process's hands: put into the queue, claimed, renewed, given back.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, QueryFilter, Statement, Value};
use uuid::Uuid;

use super::{
    connect::Store,
    entity::{merchant, run, watermark},
    error::{Trouble, trouble},
};
use crate::{
    domain::{MerchantId, RunId, Trigger},
    reconcile::ports::{Begun, Claim, Cursor, Enqueued, NewRun, Resumed, TargetError},
};

/// A run whose holders died this often is not taken up again.
const MAX_ATTEMPTS: u32 = 5;

/// A run that a person asked for goes before the schedule's.
const BY_HAND: i64 = 10;

impl Store {
    pub(super) async fn put(&self, new: NewRun) -> Result<Enqueued, TargetError> {
        let id = Uuid::now_v7();
        self.call(|| self.put_once(id, new)).await
    }

    async fn put_once(&self, id: RunId, new: NewRun) -> Result<Enqueued, DbErr> {
        let txn = self.begin_write().await?;
        if !registered(&txn, new.merchant).await? {
            return Ok(Enqueued::UnknownMerchant);
        }
        if let Some(active) = active_run(&txn, new.merchant).await? {
            // The same id: an earlier attempt, whose answer was lost, did it.
            return Ok(if active.id == id { Enqueued::Queued(id) } else { Enqueued::Active(active.id) });
        }
        match self.insert(&txn, id, new, "queued").await {
            Ok(_) => {
                txn.commit().await?;
                Ok(Enqueued::Queued(id))
            }
            Err(error) if trouble(&error) == Trouble::Taken => {
                txn.rollback().await?;
                let other = active_run(&self.db, new.merchant).await?;
                other.map(|run| Enqueued::Active(run.id)).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn start(&self, new: NewRun) -> Result<Begun, TargetError> {
        let id = Uuid::now_v7();
        self.call(|| self.start_once(id, new)).await
    }

    async fn start_once(&self, id: RunId, new: NewRun) -> Result<Begun, DbErr> {
        let txn = self.begin_write().await?;
        if !registered(&txn, new.merchant).await? {
            return Ok(Begun::UnknownMerchant);
        }
        let orphaned = format!(
            "UPDATE runs SET status = 'failed', error_kind = 'abandoned', \
             error_message = 'its process went away; a later run covers its window', finished_at = {now} \
             WHERE merchant_id = $1 AND status = 'running' AND lease_until < {now}",
            now = self.dialect.now()
        );
        txn.execute_raw(self.statement(&orphaned, [new.merchant.0.into()])).await?;
        let row = match self.insert(&txn, id, new, "running").await {
            Ok(row) => row,
            Err(error) if trouble(&error) == Trouble::Taken => {
                txn.rollback().await?;
                return self.busy(new.merchant).await?.ok_or(error);
            }
            Err(error) => return Err(error),
        };
        let claim = self.claims(&txn, vec![row]).await?.pop();
        txn.commit().await?;
        claim.map(|claim| Begun::Claimed(Box::new(claim))).ok_or_else(|| DbErr::RecordNotInserted)
    }

    async fn busy(&self, merchant: MerchantId) -> Result<Option<Begun>, DbErr> {
        let sql = format!(
            "SELECT id, lease_until, {} AS lapses_in FROM runs WHERE merchant_id = $1 AND status = 'running'",
            self.dialect.seconds_between(self.dialect.now(), "lease_until")
        );
        let row = self.db.query_one_raw(self.statement(&sql, [merchant.0.into()])).await?;
        row.map(|row| {
            let seconds: f64 = row.try_get("", "lapses_in")?;
            Ok(Begun::Busy {
                run_id: row.try_get("", "id")?,
                lease_until: row.try_get("", "lease_until")?,
                lapses_in: Duration::from_secs_f64(seconds.max(0.05)),
            })
        })
        .transpose()
    }

    async fn insert(
        &self,
        db: &impl ConnectionTrait,
        id: RunId,
        new: NewRun,
        status: &str,
    ) -> Result<run::Model, DbErr> {
        let (owner, lease_until, started_at, epoch) = if status == "running" {
            (Some(self.owner), self.dialect.now_plus(self.lease), self.dialect.now(), 1)
        } else {
            (None, "NULL".to_owned(), "NULL", 0)
        };
        let sql = format!(
            "INSERT INTO runs (id, merchant_id, trigger, status, since_requested, until_requested, full_history, \
             dry_run, priority, owner, epoch, attempt, lease_until, started_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, {lease_until}, {started_at}) RETURNING *"
        );
        let request = new.request;
        let priority = if matches!(new.trigger, Trigger::Http | Trigger::Cli) { BY_HAND } else { 0 };
        let values: [Value; 11] = [
            id.into(),
            new.merchant.0.into(),
            new.trigger.as_str().into(),
            status.into(),
            request.since.into(),
            request.until.into(),
            request.full.into(),
            request.dry_run.into(),
            priority.into(),
            owner.into(),
            i64::from(epoch).into(),
        ];
        let row = db.query_one_raw(self.statement(&sql, values)).await?;
        let row = row.ok_or(DbErr::RecordNotInserted)?;
        run::Model::from_query_result(&row, "")
    }

    /// Takes what is due: first the runs whose holder is gone, then those by hand, then by time.
    pub(super) async fn take(&self, limit: u32) -> Result<Vec<Claim>, TargetError> {
        self.call(|| self.take_once(limit)).await
    }

    async fn take_once(&self, limit: u32) -> Result<Vec<Claim>, DbErr> {
        let now = self.dialect.now();
        let park = format!(
            "UPDATE runs SET status = 'failed', error_kind = 'abandoned', finished_at = {now}, \
             error_message = 'the processes that held it went away {MAX_ATTEMPTS} times; look for crashes' \
             WHERE status = 'running' AND lease_until < {now} AND attempt >= {MAX_ATTEMPTS}"
        );
        let take = format!(
            "WITH due AS MATERIALIZED (\
               SELECT r.id FROM runs r \
               WHERE (r.status = 'running' AND r.lease_until < {now}) \
                  OR (r.status = 'queued' AND r.run_at <= {now} \
                      AND NOT EXISTS (SELECT 1 FROM runs o WHERE o.merchant_id = r.merchant_id AND o.status = 'running') \
                      AND NOT EXISTS (SELECT 1 FROM runs o WHERE o.merchant_id = r.merchant_id AND o.status = 'queued' \
                          AND o.run_at <= {now} AND (o.priority > r.priority OR o.priority = r.priority \
                          AND (o.run_at < r.run_at OR o.run_at = r.run_at AND o.id < r.id)))) \
               ORDER BY CASE r.status WHEN 'running' THEN 0 ELSE 1 END, r.priority DESC, r.run_at, r.id \
               LIMIT {limit} {skip_locked}) \
             UPDATE runs SET status = 'running', epoch = epoch + 1, attempt = attempt + 1, owner = $1, \
               lease_until = {lease_until}, started_at = COALESCE(started_at, {now}) \
             WHERE id IN (SELECT id FROM due) RETURNING *",
            skip_locked = self.dialect.for_update_skip_locked(),
            lease_until = self.dialect.now_plus(self.lease),
        );
        let txn = self.begin_write().await?;
        txn.execute_unprepared(&park).await?;
        let rows = match txn.query_all_raw(self.statement(&take, [self.owner.into()])).await {
            // Another process took a run of the same merchant at this very moment.
            Err(error) if trouble(&error) == Trouble::Taken => return Ok(Vec::new()),
            rows => rows?,
        };
        let rows = rows.iter().map(|row| run::Model::from_query_result(row, "")).collect::<Result<Vec<_>, _>>()?;
        let claims = self.claims(&txn, rows).await?;
        txn.commit().await?;
        Ok(claims)
    }

    /// Adds what a claim needs beside the row of the run.
    async fn claims(&self, db: &impl ConnectionTrait, rows: Vec<run::Model>) -> Result<Vec<Claim>, DbErr> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.clock(db).await?;
        let merchants = rows.iter().map(|row| row.merchant_id);
        let watermarks: HashMap<i64, DateTime<Utc>> = watermark::Entity::find()
            .filter(watermark::Column::MerchantId.is_in(merchants))
            .all(db)
            .await?
            .into_iter()
            .map(|row| (row.merchant_id, row.watermark))
            .collect();
        let mut claims = Vec::with_capacity(rows.len());
        for row in rows {
            claims.push(Claim {
                lease: row.lease(),
                trigger: row.trigger.parse().map_err(|error| DbErr::Type(format!("{error}")))?,
                request: row.request(),
                now,
                watermark: watermarks.get(&row.merchant_id).copied(),
                resumed: self.resumed(db, &row).await?,
            });
        }
        Ok(claims)
    }

    async fn resumed(&self, db: &impl ConnectionTrait, row: &run::Model) -> Result<Option<Resumed>, DbErr> {
        let (Some(window), Some(cursor)) = (row.window(), &row.next_page) else {
            return Ok(None);
        };
        let cursor: Cursor = serde_json::from_str(cursor).map_err(|error| DbErr::Json(error.to_string()))?;
        let sql = "SELECT ids FROM run_pages WHERE run_id = $1";
        let mut seen = Vec::new();
        for page in db.query_all_raw(self.statement(sql, [row.id.into()])).await? {
            let ids: Vec<u8> = page.try_get("", "ids")?;
            seen.extend(ids.as_chunks().0.iter().copied().map(i64::from_le_bytes));
        }
        Ok(Some(Resumed { window, cursor, totals: row.totals(), requests: row.requests(), seen }))
    }

    /// Renews every lease of this process.
    pub(super) async fn renew(&self) -> Result<Vec<RunId>, TargetError> {
        let sql = format!(
            "UPDATE runs SET lease_until = {} WHERE owner = $1 AND status = 'running' RETURNING id",
            self.dialect.now_plus(self.lease)
        );
        let sql = sql.as_str();
        self.call(|| async move {
            let rows = self.db.query_all_raw(self.statement(sql, [self.owner.into()])).await?;
            rows.iter().map(|row| row.try_get("", "id")).collect()
        })
        .await
    }

    pub(super) async fn clock(&self, db: &impl ConnectionTrait) -> Result<DateTime<Utc>, DbErr> {
        let sql = format!("SELECT {} AS now", self.dialect.now());
        let row = db.query_one_raw(self.statement(&sql, [])).await?;
        row.ok_or_else(|| DbErr::RecordNotFound("the clock".to_owned()))?.try_get("", "now")
    }

    pub(super) fn statement(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> Statement {
        Statement::from_sql_and_values(self.db.get_database_backend(), sql, values)
    }
}

async fn registered(db: &impl ConnectionTrait, id: MerchantId) -> Result<bool, DbErr> {
    Ok(merchant::Entity::find_by_id(id.0).one(db).await?.is_some())
}

/// The merchant's run that is running, or else the first that waits.
async fn active_run(db: &impl ConnectionTrait, merchant: MerchantId) -> Result<Option<run::Model>, DbErr> {
    let mut active = run::Entity::find()
        .filter(run::Column::MerchantId.eq(merchant.0))
        .filter(run::Column::Status.is_in(["queued", "running"]))
        .all(db)
        .await?;
    active.sort_by_key(|run| (run.status != "running", run.id));
    Ok(active.into_iter().next())
}
