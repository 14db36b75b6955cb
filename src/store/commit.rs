//! A page's end: rows, discrepancies, totals and cursor in one transaction, fenced by the lease.
//!
//! The page is written in one statement. Only when the database refuses a row is the transaction begun
//! anew and the rows written one by one, each behind a savepoint, to find the one that is refused.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, RuntimeErr, Statement, TransactionTrait, sqlx,
};
use tracing::Instrument;

use super::{
    connect::Store,
    discrepancies::{Written, found, health},
    entity::discrepancy,
    error::{Trouble, json, trouble},
    records::{self, Stored},
};
use crate::{
    domain::{Check, Held, Listing, MerchantId, Outcome, Part, Verdict},
    reconcile::{
        ports::{Checked, Committed, HeldVersion, Lease, PageCommit, Target, TargetError},
        span,
    },
};

impl<R: Stored> Target<R> for Store {
    async fn held(&self, merchant: MerchantId, ids: &[i64]) -> Result<HashMap<i64, Held<R>>, TargetError> {
        self.call(|| records::held(&self.db, self.dialect, merchant, ids)).await
    }

    async fn checks(&self, merchant: MerchantId, ids: &[i64]) -> Result<HashMap<i64, Check>, TargetError> {
        self.read_checks(merchant, ids).await
    }

    async fn unseen(
        &self,
        merchant: MerchantId,
        period: (Option<DateTime<Utc>>, DateTime<Utc>),
        seen: &(dyn Fn(i64) -> bool + Sync),
    ) -> Result<(usize, Vec<HeldVersion>), TargetError> {
        self.held_and_unseen::<R>(merchant, period, seen).await
    }

    async fn unwell(&self, merchant: MerchantId) -> Result<Vec<i64>, TargetError> {
        self.ids_unwell(merchant, R::RESOURCE).await
    }

    async fn commit(&self, lease: &Lease, page: PageCommit<'_, R>) -> Result<Committed, TargetError> {
        let page = &page;
        let span = || span::of_commit(self.dialect.system_name(), page.batch.records.len());
        let mut attempt = self.call(|| self.attempt(lease, page, false)).instrument(span()).await?;
        if matches!(attempt, Attempt::Refused) {
            attempt = self.call(|| self.attempt(lease, page, true)).instrument(span()).await?;
        }
        match attempt {
            Attempt::Done(committed, written) => {
                report(page, &written);
                Ok(committed)
            }
            Attempt::LeaseLost | Attempt::Refused => Err(TargetError::LeaseLost(lease.run_id)),
        }
    }
}

enum Attempt {
    Done(Committed, HashMap<i64, Written>),
    /// The page holds a row that the database refuses; nothing was written.
    Refused,
    LeaseLost,
}

impl Store {
    async fn attempt<R: Stored>(
        &self,
        lease: &Lease,
        page: &PageCommit<'_, R>,
        one_by_one: bool,
    ) -> Result<Attempt, DbErr> {
        let txn = self.begin_write().await?;
        let written = match self.write(&txn, lease.merchant, page, one_by_one).await {
            Err(error) if !one_by_one && is_refusal(&error) => return Ok(Attempt::Refused),
            written => written?,
        };
        let mut parts = page.parts.to_vec();
        let totals = &mut parts[page.at].totals;
        for record in page.batch.records.iter().filter(|record| !record.repeat) {
            totals.count(written.get(&record.record.id()).map_or(Outcome::Unchanged, |w| w.0));
        }
        page.batch.unreadable.iter().for_each(|_| totals.count(Outcome::Skipped));
        (0..page.batch.unchanged).for_each(|_| totals.count(Outcome::Unchanged));
        let gone = records::mark_gone::<R>(&txn, self.dialect, lease.merchant, &page.batch.gone, page.dry_run).await?;

        self.note_discrepancies(&txn, &found(lease, page.batch, &written, &gone)).await?;
        if !page.dry_run {
            let well = |checked: &&Checked| {
                written.get(&checked.summary.id).is_none_or(|(outcome, _)| *outcome != Outcome::Failed)
            };
            let checked: Vec<_> = page.batch.checked.iter().filter(well).collect();
            self.note_checks(&txn, lease.merchant, &checked).await?;
            let (unwell, well) = health(page.batch, &written);
            self.note_unwell(&txn, (lease.merchant, R::RESOURCE), &unwell, &well).await?;
        }
        self.note_seen(&txn, lease, page).await?;
        let Some(committed) = self.advance(&txn, lease, page, &parts).await? else {
            return self.after_fence(txn, lease, page).await;
        };
        failpoint!("page_before_commit", lease.merchant.0);
        txn.commit().await?;
        failpoint!("page_after_commit", lease.merchant.0);
        if !gone.is_empty() {
            let ids: Vec<i64> = gone.iter().map(|(id, _)| *id).collect();
            tracing::info!(records = ids.len(), salla.ids = ?ids, dry_run = page.dry_run, "{} deleted: Salla says that they are gone", R::RESOURCE.as_str());
        }
        Ok(Attempt::Done(committed, written))
    }

    /// Writes the records that differ, and says what became of each that was touched.
    async fn write<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        merchant: MerchantId,
        page: &PageCommit<'_, R>,
        one_by_one: bool,
    ) -> Result<HashMap<i64, Written>, DbErr> {
        let differing = page.batch.records.iter().filter(|record| record.verdict != Verdict::Unchanged);
        if page.dry_run {
            return Ok(differing.map(|record| (record.record.id(), (record.outcome(), None))).collect());
        }
        let (restored, differing): (Vec<_>, Vec<_>) = differing.partition(|record| record.verdict == Verdict::Restore);
        let restored: Vec<i64> = restored.iter().map(|record| record.record.id()).collect();
        let restored = records::restore::<R>(txn, self.dialect, merchant, &restored).await?;
        let mut written: HashMap<i64, Written> =
            restored.into_iter().map(|id| (id, (Outcome::Updated, None))).collect();
        let differing: Vec<&R> = differing.iter().map(|record| &record.record).collect();
        if !one_by_one {
            let upserted = records::upsert(txn, self.dialect, merchant, &differing).await?;
            written.extend(upserted.into_iter().map(|(id, outcome)| (id, (outcome, None))));
            return Ok(written);
        }
        for record in differing {
            let savepoint = txn.begin().await?;
            match records::upsert(&savepoint, self.dialect, merchant, &[record]).await {
                Ok(one) => {
                    savepoint.commit().await?;
                    written.extend(one.into_iter().map(|(id, outcome)| (id, (outcome, None))));
                }
                Err(error) if is_refusal(&error) => {
                    savepoint.rollback().await?;
                    written.insert(record.id(), (Outcome::Failed, Some(refusal(&error))));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    async fn note_discrepancies(
        &self,
        txn: &DatabaseTransaction,
        found: &[discrepancy::ActiveModel],
    ) -> Result<(), DbErr> {
        for rows in found.chunks(1000) {
            discrepancy::Entity::insert_many(rows.to_vec()).exec_without_returning(txn).await?;
        }
        Ok(())
    }

    /// Keeps the ids that were seen, as long as the run goes on.
    async fn note_seen<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        lease: &Lease,
        page: &PageCommit<'_, R>,
    ) -> Result<(), DbErr> {
        let (pass, ids) = &page.batch.seen;
        let number = i64::from(*pass) << 32 | i64::from(page.cursor.commits);
        let ids: Vec<u8> = ids.iter().copied().flat_map(i64::to_le_bytes).collect();
        txn.execute_raw(Statement::from_sql_and_values(
            txn.get_database_backend(),
            "INSERT INTO run_pages (run_id, number, ids) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            [lease.run_id.into(), number.into(), ids.into()],
        ))
        .await?;
        Ok(())
    }

    /// The fence: moves the run's cursor if the lease is still ours and the page was not committed
    /// before. Renews the lease, too.
    async fn advance<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        lease: &Lease,
        page: &PageCommit<'_, R>,
        parts: &[Part],
    ) -> Result<Option<Committed>, DbErr> {
        let sql = format!(
            "UPDATE runs SET next_page = $1, window_since = $2, window_until = $3, fetched = $4, created = $5, \
             updated = $6, unchanged = $7, skipped = $8, failed = $9, requests = $10, listing = $11, resources = $12, setbacks = 0, lease_until = {} \
             WHERE id = $13 AND epoch = $14 AND status = 'running' AND next_page IS DISTINCT FROM $1 \
             RETURNING cancel_requested",
            self.dialect.now_plus(self.lease)
        );
        let (totals, window) = (Part::sum(parts), Part::hull(parts));
        let count = |count: u64| sea_orm::Value::from(i64::try_from(count).unwrap_or(i64::MAX));
        let row = txn
            .query_one_raw(Statement::from_sql_and_values(
                txn.get_database_backend(),
                sql,
                [
                    cursor_text(page)?.into(),
                    window.map(|window| window.since).into(),
                    window.map(|window| window.until).into(),
                    count(totals.fetched),
                    count(totals.created),
                    count(totals.updated),
                    count(totals.unchanged),
                    count(totals.skipped),
                    count(totals.failed),
                    count(page.requests),
                    Part::first_listing(parts).map(Listing::as_str).into(),
                    json(parts)?.into(),
                    lease.run_id.into(),
                    lease.epoch.into(),
                ],
            ))
            .await?;
        row.map(|row| Ok(Committed { totals: parts[page.at].totals, cancel: row.try_get("", "cancel_requested")? }))
            .transpose()
    }

    /// The fence held us back: either the lease is lost, or an earlier attempt, whose answer was lost,
    /// has committed this very page. What it counted is in the ledger.
    async fn after_fence<R: Stored>(
        &self,
        txn: DatabaseTransaction,
        lease: &Lease,
        page: &PageCommit<'_, R>,
    ) -> Result<Attempt, DbErr> {
        txn.rollback().await?;
        let run = super::entity::run::Entity::find_by_id(lease.run_id).one(&self.db).await?;
        let cursor = cursor_text(page)?;
        Ok(run
            .filter(|run| {
                run.epoch == lease.epoch && run.status == "running" && run.next_page.as_deref() == Some(cursor.as_str())
            })
            .and_then(|run| {
                let part = run.parts()?.into_iter().nth(page.at)?;
                let committed = Committed { totals: part.totals, cancel: run.cancel_requested };
                Some(Attempt::Done(committed, HashMap::new()))
            })
            .unwrap_or(Attempt::LeaseLost))
    }
}

fn cursor_text<R: Stored>(page: &PageCommit<'_, R>) -> Result<String, DbErr> {
    json(page.cursor)
}

/// Another unique index on the table refuses a row, too.
fn is_refusal(error: &DbErr) -> bool {
    matches!(trouble(error), Trouble::Row | Trouble::Taken)
}

/// The database's message, without its detail, which quotes values.
fn refusal(error: &DbErr) -> String {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => {
            match error.as_ref() {
                sqlx::Error::Database(error) => error.message().to_owned(),
                other => other.to_string(),
            }
        }
        other => other.to_string(),
    }
}

/// One log line for each record that was left as it was though it should not have been.
fn report<R: Stored>(page: &PageCommit<'_, R>, written: &HashMap<i64, Written>) {
    for bad in &page.batch.unreadable {
        tracing::warn!(salla.id = bad.id, path = %bad.path, reason = %bad.reason, "{} skipped", R::RESOURCE.one());
    }
    for (id, (outcome, reason)) in written {
        if *outcome == Outcome::Failed {
            tracing::error!(
                salla.id = id,
                reason = reason.as_deref(),
                "{} failed: the database refuses it",
                R::RESOURCE.one()
            );
        }
    }
}
