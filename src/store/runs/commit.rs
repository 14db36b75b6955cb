//! A page's end: rows, discrepancies, totals and cursor in one transaction, fenced by the lease.
//!
//! The page is written in one statement. Only when the database refuses a row is the transaction begun
//! again and the rows are written one by one, each behind a savepoint, to find the one that is refused.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, TransactionTrait};
use tracing::Instrument;

use crate::{
    domain::{LastDetailCheck, MerchantId, Outcome, RotationPace, RotationWindow, StoredRecord, Verdict},
    reconcile::{
        ports::{
            Committed, DetailCheckResult, ExpectedRecords, Lease, PageCommit, PlannedWrite, SortedListRead,
            StoredVersion, Target, TargetError,
        },
        span,
    },
    store::{
        Store,
        connection::{
            dialect::Dialect,
            error::{is_refusal, refusal},
        },
        entity::discrepancy,
        records::{
            discrepancies::{Written, failed_and_recovered, found},
            lookup,
            stored::Stored,
            write::{self, Asked},
        },
    },
};

impl<R: Stored> Target<R> for Store {
    async fn look_up(&self, merchant: MerchantId, ids: &[i64]) -> Result<HashMap<i64, StoredRecord<R>>, TargetError> {
        let place = (self.dialect, self.platform::<R>());
        self.call(|| lookup::look_up(&self.db, place, merchant, ids)).await
    }

    async fn checks(&self, merchant: MerchantId, ids: &[i64]) -> Result<HashMap<i64, LastDetailCheck>, TargetError> {
        self.read_checks(merchant, ids).await
    }

    async fn unseen(
        &self,
        merchant: MerchantId,
        ought: ExpectedRecords,
        seen: &(dyn Fn(i64) -> bool + Sync),
    ) -> Result<(usize, Vec<StoredVersion>), TargetError> {
        self.held_and_unseen::<R>(merchant, ought, seen).await
    }

    async fn slice(&self, merchant: MerchantId, pace: RotationPace) -> Result<Option<RotationWindow>, TargetError> {
        self.due_slice::<R>(merchant, pace).await
    }

    async fn sorted_list(&self, merchant: MerchantId, covered: DateTime<Utc>) -> Result<SortedListRead, TargetError> {
        self.read_sorted_list::<R>(merchant, covered).await
    }

    async fn samples(
        &self,
        merchant: MerchantId,
        before: DateTime<Utc>,
        counts: (usize, usize),
    ) -> Result<Vec<i64>, TargetError> {
        self.sample_ids::<R>(merchant, before, counts).await
    }

    async fn failed_records(&self, merchant: MerchantId) -> Result<Vec<i64>, TargetError> {
        self.failed_record_ids(merchant, R::RESOURCE).await
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
            Err(error) if !one_by_one && is_refusal(&error) => return Ok(Attempt::Refused),
            written => written?,
        };
        self.note_swallowed(&txn, lease.merchant, page, &mut written).await?;
        match self.write_items(&txn, lease.merchant, page, (one_by_one, &mut written)).await {
            Err(error) if !one_by_one && is_refusal(&error) => return Ok(Attempt::Refused),
            items => items?,
        }
        let mut parts = page.parts.to_vec();
        let totals = &mut parts[page.at].totals;
        for record in page.batch.records.iter().filter(|record| !record.repeat) {
            totals.count(written.get(&record.record.id()).map_or(Outcome::Unchanged, |w| w.0));
            totals.newer_locally += u64::from(record.verdict == Verdict::NewerLocally);
        }
        page.batch.unreadable.iter().for_each(|bad| totals.count(bad.outcome));
        (0..page.batch.unchanged).for_each(|_| totals.count(Outcome::Unchanged));
        let gone = self.mark_gone(&txn, lease.merchant, page).await?;
        self.note_discrepancies(&txn, &found(lease, page.batch, &written, &gone)).await?;
        if !page.dry_run {
            let well = |checked: &&DetailCheckResult| {
                written.get(&checked.id).is_none_or(|(outcome, _)| *outcome != Outcome::Failed)
            };
            let checked: Vec<_> = page.batch.checked.iter().filter(well).collect();
            self.note_checks(&txn, lease.merchant, &checked, page.batch.asked_on).await?;
            let (failed, recovered) = failed_and_recovered(page.batch, &written);
            self.save_failed_records(&txn, (lease.merchant, R::RESOURCE), &failed, &recovered).await?;
        }
        let Some(committed) = self.advance(&txn, lease, page, &parts).await? else {
            return self.after_fence(txn, lease, page).await;
        };
        failpoint!("page_before_commit", lease.merchant.0);
        match txn.commit().await {
            // By a constraint that the platform has put off to the end.
            Err(error) if !one_by_one && is_refusal(&error) => return Ok(Attempt::Refused),
            committed => committed?,
        }
        failpoint!("page_after_commit", lease.merchant.0);
        if !gone.is_empty() {
            let ids: Vec<i64> = gone.iter().map(|(id, _)| *id).collect();
            tracing::info!(records = ids.len(), salla.ids = ?ids, dry_run = page.dry_run, "{} marked as deleted", R::RESOURCE.as_str());
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
        let is_written = |record: &&PlannedWrite<R>| !record.verdict.leaves_it() || record.verdict == Verdict::Adopt;
        let differing: Vec<&PlannedWrite<R>> = page.batch.records.iter().filter(is_written).collect();
        if page.dry_run {
            let written = differing.iter().filter(|record| record.verdict != Verdict::Adopt);
            return Ok(written.map(|record| (record.record.id(), (record.outcome(), None))).collect());
        }
        let asked = Asked { ago: page.batch.asked_at.elapsed(), latest: page.batch.latest };
        if !one_by_one {
            return self.write_together(txn, merchant, &differing, asked).await;
        }
        if self.dialect == Dialect::Postgres {
            // Each row must be refused separately.
            txn.execute_unprepared("SET CONSTRAINTS ALL IMMEDIATE").await?;
        }
        let mut written = HashMap::new();
        for record in differing {
            let savepoint = txn.begin().await?;
            match self.write_together(&savepoint, merchant, &[record], asked).await {
                Ok(one) => {
                    savepoint.commit().await?;
                    written.extend(one);
                }
                Err(error) if is_refusal(&error) => {
                    savepoint.rollback().await?;
                    written.insert(record.record.id(), (Outcome::Failed, Some(refusal(&error))));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Writes records into our own table, and then into the one of the platform. What happened there counts.
    async fn write_together<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        merchant: MerchantId,
        differing: &[&PlannedWrite<R>],
        asked: Asked,
    ) -> Result<HashMap<i64, Written>, DbErr> {
        let platform = self.platform::<R>();
        let ids_of = |is_meant: &dyn Fn(&Verdict) -> bool| -> Vec<i64> {
            let meant = differing.iter().filter(|record| is_meant(&record.verdict));
            meant.map(|record| record.record.id()).collect()
        };
        // The platform may hold a record that our own table lacks.
        let upserted = differing.iter().filter(|record| platform.is_some() || record.verdict != Verdict::Restore);
        let upserted: Vec<&R> = upserted.map(|record| &record.record).collect();
        let upserted = write::upsert(txn, self.dialect, merchant, &upserted, asked).await?;
        let restored = ids_of(&|verdict| *verdict == Verdict::Restore);
        let restored = write::restore::<R>(txn, self.dialect, merchant, &restored, asked.ago).await?;
        if let Some(platform) = platform {
            let ids = ids_of(&|verdict| *verdict != Verdict::Adopt);
            return if ids.is_empty() { Ok(HashMap::new()) } else { platform.write::<R>(txn, merchant, &ids).await };
        }
        let restored = restored.into_iter().map(|id| (id, Outcome::Updated));
        Ok(restored.chain(upserted).map(|(id, outcome)| (id, (outcome, None))).collect())
    }

    async fn mark_gone<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        merchant: MerchantId,
        page: &PageCommit<'_, R>,
    ) -> Result<Vec<StoredVersion>, DbErr> {
        let gone = &page.batch.gone;
        match self.platform::<R>() {
            Some(platform) => platform.mark_gone::<R>(txn, self.dialect, merchant, (gone, page.dry_run)).await,
            None => write::mark_gone::<R>(txn, self.dialect, merchant, gone, page.dry_run).await,
        }
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
        let to_create = page.batch.records.iter().filter(|record| record.verdict == Verdict::Create);
        let ids: Vec<i64> = to_create.map(|record| record.record.id()).filter(|id| !written.contains_key(id)).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let place = (self.dialect, self.platform::<R>());
        let stored = lookup::look_up::<R>(txn, place, merchant, &ids).await?;
        for id in ids.into_iter().filter(|id| !stored.contains_key(id)) {
            written.insert(id, (Outcome::Failed, Some(SWALLOWED.to_owned())));
        }
        Ok(())
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
}

/// One log line for each record that was left as it was though it should not have been.
fn report<R: Stored>(page: &PageCommit<'_, R>, written: &HashMap<i64, Written>) {
    let newer = page.batch.records.iter().filter(|record| record.verdict == Verdict::NewerLocally);
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
