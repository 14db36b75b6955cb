//! A page's end: rows, discrepancies, totals and cursor in one transaction, fenced by the lease.
//!
//! One statement writes the page. Only if the database refuses a row, the transaction begins again.
//! Then the rows are written one by one, each behind a savepoint, to find the refused one.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::{DatabaseTransaction, DbErr, EntityTrait};
use tracing::Instrument;

use crate::{
    domain::{
        BackfillRule, Decision, Discrepancy, LastDetailCheck, MerchantId, Outcome, RotationPace, RotationWindow,
        StoredRecord, Totals,
    },
    reconcile::{
        ports::{
            Committed, DatabaseError, DetailCheckResult, ExpectedRecords, Lease, PageCommit, RecordStore,
            SortedListRead, StoredVersion,
        },
        span,
    },
    store::{
        Store,
        connection::error::is_refusal,
        entity::discrepancy,
        records::{
            discrepancies::{Written, failed_and_recovered, found, row, written_again},
            lookup,
            platform_deletions::DeletionResult,
            stored::Stored,
        },
    },
};

impl<R: Stored> RecordStore<R> for Store {
    async fn look_up(&self, merchant: MerchantId, ids: &[i64]) -> Result<HashMap<i64, StoredRecord<R>>, DatabaseError> {
        self.call(|| lookup::look_up(&self.db, self.dialect, self.platform::<R>(), merchant, ids)).await
    }

    async fn checks(&self, merchant: MerchantId, ids: &[i64]) -> Result<HashMap<i64, LastDetailCheck>, DatabaseError> {
        self.read_checks(merchant, ids).await
    }

    async fn unseen(
        &self,
        merchant: MerchantId,
        ought: ExpectedRecords,
        seen: &(dyn Fn(i64) -> bool + Sync),
    ) -> Result<(usize, Vec<StoredVersion>), DatabaseError> {
        self.held_and_unseen::<R>(merchant, ought, seen).await
    }

    async fn slice(&self, merchant: MerchantId, pace: RotationPace) -> Result<Option<RotationWindow>, DatabaseError> {
        self.due_slice::<R>(merchant, pace).await
    }

    async fn sorted_list(&self, merchant: MerchantId, covered: DateTime<Utc>) -> Result<SortedListRead, DatabaseError> {
        self.read_sorted_list::<R>(merchant, covered).await
    }

    async fn samples(
        &self,
        merchant: MerchantId,
        before: DateTime<Utc>,
        oldest: usize,
        drawn: usize,
    ) -> Result<Vec<i64>, DatabaseError> {
        self.sample_ids::<R>(merchant, before, oldest, drawn).await
    }

    async fn failed_records(&self, merchant: MerchantId) -> Result<Vec<i64>, DatabaseError> {
        self.failed_record_ids(merchant, R::RESOURCE).await
    }

    async fn commit(&self, lease: &Lease, page: PageCommit<'_, R>) -> Result<Committed, DatabaseError> {
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
            Attempt::LeaseLost | Attempt::Refused => Err(DatabaseError::LeaseLost(lease.run_id)),
        }
    }
}

const SWALLOWED: &str = "the database accepted the row and did not store it: check triggers and rules of the table";

pub(in crate::store) enum Attempt {
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
        let mut written = match self.write(&txn, lease.merchant, page, one_by_one).await {
            Err(error) if !one_by_one && self.refuses::<R>(&error) => return Ok(Attempt::Refused),
            written => written?,
        };
        self.note_swallowed(&txn, lease.merchant, page, &mut written).await?;
        match self.write_items(&txn, lease.merchant, page, one_by_one, &mut written).await {
            Err(error) if !one_by_one && is_refusal(&error) => return Ok(Attempt::Refused),
            items => items?,
        }
        let failed_as_backfill =
            self.backfilled_failures(&txn, lease.merchant, R::RESOURCE, &page.batch.recovered).await?;
        let is_backfill = |id: Option<i64>, version: Option<DateTime<Utc>>| {
            page.backfill.includes(version) || id.is_some_and(|id| failed_as_backfill.contains(&id))
        };
        let DeletionResult { marked: gone, refused } =
            match self.mark_deleted(&txn, lease.merchant, page, one_by_one).await {
                Err(error) if !one_by_one && self.refuses::<R>(&error) => return Ok(Attempt::Refused),
                gone => gone?,
            };
        let mut resource_runs = page.resource_runs.to_vec();
        count(page, &written, &is_backfill, &mut resource_runs[page.at].totals);
        for bad in &refused {
            resource_runs[page.at].totals.count(bad.outcome);
            tracing::error!(salla.id = bad.id, reason = %bad.reason, "{} failed", R::RESOURCE.one());
        }
        let with_backfill =
            |one: Discrepancy| Discrepancy { backfill: is_backfill(one.salla_id, one.remote_updated_at), ..one };
        let found: Vec<Discrepancy> = found(page, &written, &gone, &refused).map(with_backfill).collect();
        let again: Vec<Discrepancy> = written_again(page, &written).map(with_backfill).collect();
        self.note_discrepancies(&txn, lease, &found).await?;
        if !page.dry_run {
            let well = |checked: &&DetailCheckResult| {
                written.get(&checked.id).is_none_or(|(outcome, _)| *outcome != Outcome::Failed)
            };
            let checked: Vec<_> = page.batch.checked.iter().filter(well).collect();
            self.note_checks(&txn, lease.merchant, &checked, page.batch.asked_on).await?;
            let (failed, recovered) = failed_and_recovered(page.batch, &written);
            let is_new_backfill = page.backfill == BackfillRule::All;
            self.save_failed_records(&txn, lease.merchant, R::RESOURCE, &failed, is_new_backfill, &recovered).await?;
        }
        let Some(committed) = self.advance(&txn, lease, page, &resource_runs).await? else {
            return self.after_fence(txn, lease, page).await;
        };
        self.add_record_events(&txn, lease, page, found.iter().chain(&again)).await?;
        failpoint!("page_before_commit", lease.merchant.0);
        match txn.commit().await {
            // By a constraint that the platform has put off to the end.
            Err(error) if !one_by_one && self.refuses::<R>(&error) => return Ok(Attempt::Refused),
            committed => committed?,
        }
        failpoint!("page_after_commit", lease.merchant.0);
        if !gone.is_empty() {
            let ids: Vec<i64> = gone.iter().map(|(id, _)| *id).collect();
            tracing::info!(records = ids.len(), salla.ids = ?ids, dry_run = page.dry_run, "{} marked as deleted", R::RESOURCE.as_str());
        }
        Ok(Attempt::Done(committed, written))
    }

    /// A record that was not created exists already, because another writer was faster. Otherwise a trigger of the
    /// platform has suppressed it.
    async fn note_swallowed<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        merchant: MerchantId,
        page: &PageCommit<'_, R>,
        written: &mut HashMap<i64, Written>,
    ) -> Result<(), DbErr> {
        let to_create = page.batch.records.iter().filter(|record| record.decision == Decision::Create);
        let ids: Vec<i64> = to_create.map(|record| record.record.id()).filter(|id| !written.contains_key(id)).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let stored = lookup::look_up::<R>(txn, self.dialect, self.platform::<R>(), merchant, &ids).await?;
        for id in ids.into_iter().filter(|id| !stored.contains_key(id)) {
            written.insert(id, (Outcome::Failed, Some(SWALLOWED.to_owned())));
        }
        Ok(())
    }

    async fn note_discrepancies(
        &self,
        txn: &DatabaseTransaction,
        lease: &Lease,
        found: &[Discrepancy],
    ) -> Result<(), DbErr> {
        for found in found.chunks(1000) {
            let rows = found.iter().map(|one| row(lease, one));
            discrepancy::Entity::insert_many(rows).exec_without_returning(txn).await?;
        }
        Ok(())
    }
}

/// Counts the records of a page by what became of them.
fn count<R: Stored>(
    page: &PageCommit<'_, R>,
    written: &HashMap<i64, Written>,
    is_backfill: &dyn Fn(Option<i64>, Option<DateTime<Utc>>) -> bool,
    totals: &mut Totals,
) {
    for record in page.batch.records.iter().filter(|record| !record.repeat) {
        let outcome = written.get(&record.record.id()).map_or(Outcome::Unchanged, |w| w.0);
        if is_backfill(Some(record.record.id()), record.record.updated_at()) {
            totals.count_backfill(outcome);
        } else {
            totals.count(outcome);
        }
        totals.newer_locally += u64::from(record.decision == Decision::NewerLocally);
    }
    page.batch.unreadable.iter().for_each(|bad| totals.count(bad.outcome));
    (0..page.batch.unchanged).for_each(|_| totals.count(Outcome::Unchanged));
    totals.newer_locally += page.batch.newer_locally;
}

/// One log line for each record that was left as it was though it should not have been.
fn report<R: Stored>(page: &PageCommit<'_, R>, written: &HashMap<i64, Written>) {
    let newer = page.batch.records.iter().filter(|record| record.decision == Decision::NewerLocally);
    let newer: Vec<i64> = newer.map(|record| record.record.id()).collect();
    if !newer.is_empty() {
        tracing::info!(records = newer.len(), salla.ids = ?newer, "stored {} are newer than in Salla, and differ", R::RESOURCE);
    }
    for bad in page.batch.unreadable.iter().chain(&page.batch.counted_already) {
        let (one, outcome) = (R::RESOURCE.one(), bad.outcome.as_str());
        tracing::warn!(salla.id = bad.id, path = %bad.path, reason = %bad.reason, "{one} {outcome}");
    }
    for (id, (outcome, reason)) in written {
        if *outcome == Outcome::Failed {
            tracing::error!(
                salla.id = id,
                reason = reason.as_deref(),
                "{} failed: the database refuses the record",
                R::RESOURCE.one()
            );
        }
    }
}
