//! How a run comes into a process's hands: put into the queue, claimed, renewed, given back.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, QueryFilter, RuntimeErr, Statement,
    Value, sea_query::Expr, sqlx,
};
use uuid::Uuid;

use super::{
    connect::Store,
    entity::{merchant, run, watermark},
    error::{Trouble, trouble},
};
use crate::{
    domain::{MerchantId, Order, Record, RunId, Trigger},
    reconcile::ports::{Begun, Claim, Cursor, Enqueued, Lease, NewRun, Resumed, TargetError},
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
                // It has ended meanwhile: the call is made again.
                other.map(|run| Enqueued::Active(run.id)).ok_or_else(|| again(&error))
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
        self.clear_orphan(&txn, new.merchant).await?;
        let row = match self.insert(&txn, id, new, "running").await {
            Ok(row) => row,
            Err(error) if trouble(&error) == Trouble::Taken => {
                txn.rollback().await?;
                return self.busy(new.merchant).await?.ok_or_else(|| again(&error));
            }
            Err(error) => return Err(error),
        };
        let claim = self.claims(&txn, vec![row]).await?.pop();
        txn.commit().await?;
        claim.map(|claim| Begun::Claimed(Box::new(claim))).ok_or_else(|| DbErr::RecordNotInserted)
    }

    /// A run of the foreground whose process is gone is over: nobody waits for it, and the run that begins now
    /// covers its window. Any other is put back into the queue, at its cursor.
    async fn clear_orphan(&self, db: &impl ConnectionTrait, merchant: MerchantId) -> Result<(), DbErr> {
        let now = self.dialect.now();
        let of_foreground = format!(
            "UPDATE runs SET status = 'failed', error_kind = 'abandoned', finished_at = {now}, \
             error_message = 'its process went away; a later run covers its window' \
             WHERE merchant_id = $1 AND status = 'running' AND lease_until < {now} AND trigger = 'cli'"
        );
        let of_daemon = format!(
            "UPDATE runs SET status = 'queued', owner = NULL, lease_until = NULL \
             WHERE merchant_id = $1 AND status = 'running' AND lease_until < {now}"
        );
        for sql in [of_foreground, of_daemon] {
            db.execute_raw(self.statement(&sql, [merchant.0.into()])).await?;
        }
        Ok(())
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
            .filter(watermark::Column::Resource.eq(Order::RESOURCE.as_str()))
            .all(db)
            .await?
            .into_iter()
            .map(|row| (row.merchant_id, row.watermark))
            .collect();
        let mut claims = Vec::with_capacity(rows.len());
        for row in rows {
            let Ok(trigger) = row.trigger.parse() else {
                // Of a newer version of this program, which will take it up when our lease lapses.
                tracing::error!(run.id = %row.id, trigger = row.trigger, "a run of an unknown kind is left alone");
                continue;
            };
            claims.push(Claim {
                lease: row.lease(),
                trigger,
                request: row.request(),
                now,
                watermark: watermarks.get(&row.merchant_id).copied(),
                resumed: self.resumed(db, &row).await?,
            });
        }
        Ok(claims)
    }

    /// What an earlier holder got done; nothing, when its cursor is one of another version: then the window
    /// is walked anew.
    async fn resumed(&self, db: &impl ConnectionTrait, row: &run::Model) -> Result<Option<Resumed>, DbErr> {
        let (Some(window), Some(cursor)) = (row.window(), &row.next_page) else {
            return Ok(None);
        };
        let Ok(cursor) = serde_json::from_str::<Cursor>(cursor) else {
            return Ok(None);
        };
        let sql = "SELECT ids FROM run_pages WHERE run_id = $1";
        let mut seen = Vec::new();
        for page in db.query_all_raw(self.statement(sql, [row.id.into()])).await? {
            let ids: Vec<u8> = page.try_get("", "ids")?;
            seen.extend(ids.as_chunks().0.iter().copied().map(i64::from_le_bytes));
        }
        Ok(Some(Resumed { window, cursor, totals: row.totals(), requests: row.requests(), seen }))
    }

    /// Renews the leases that are still held.
    pub(super) async fn renew(&self, held: &[Lease]) -> Result<Vec<Lease>, TargetError> {
        let this_lease = |lease: &Lease| {
            Condition::all().add(run::Column::Id.eq(lease.run_id)).add(run::Column::Epoch.eq(lease.epoch))
        };
        let any = held.iter().fold(Condition::any(), |any, lease| any.add(this_lease(lease)));
        let renewed = self
            .call(|| {
                run::Entity::update_many()
                    .col_expr(run::Column::LeaseUntil, Expr::cust(self.dialect.now_plus(self.lease)))
                    .filter(run::Column::Status.eq("running"))
                    .filter(any.clone())
                    .exec_with_returning(&self.db)
            })
            .await?;
        Ok(renewed.iter().map(run::Model::lease).collect())
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

/// Another run stood in the way and is gone by now: `Store::call` makes the call again.
fn again(error: &DbErr) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(std::sync::Arc::new(sqlx::Error::Protocol(format!("made way: {error}")))))
}
