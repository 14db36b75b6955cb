//! Writes the records of a page, and marks those that are gone: in our own table, and in the one of the platform.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, TransactionTrait};

use crate::{
    domain::{Decision, MerchantId, Outcome, Unreadable, assess},
    reconcile::ports::{AssessedRecord, PageCommit, StoredVersion},
    store::{
        Store,
        connection::{
            dialect::Dialect,
            error::{is_raised, is_refusal, refusal},
        },
        records::{
            discrepancies::Written,
            lookup,
            platform_deletions::DeletionResult,
            stored::Stored,
            write::{self, Asked},
        },
    },
};

impl Store {
    /// Writes the records that differ, and says what became of each that was touched.
    pub(in crate::store) async fn write<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        merchant: MerchantId,
        page: &PageCommit<'_, R>,
        one_by_one: bool,
    ) -> Result<HashMap<i64, Written>, DbErr> {
        let is_written =
            |record: &&AssessedRecord<R>| !record.decision.leaves_it() || record.decision == Decision::Adopt;
        let differing: Vec<&AssessedRecord<R>> = page.batch.records.iter().filter(is_written).collect();
        if page.dry_run {
            let written = differing.iter().filter(|record| record.decision != Decision::Adopt);
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
                Err(error) if self.refuses::<R>(&error) => {
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
        differing: &[&AssessedRecord<R>],
        asked: Asked,
    ) -> Result<HashMap<i64, Written>, DbErr> {
        let platform = self.platform::<R>();
        let ids_of = |is_meant: &dyn Fn(&Decision) -> bool| -> Vec<i64> {
            let meant = differing.iter().filter(|record| is_meant(&record.decision));
            meant.map(|record| record.record.id()).collect()
        };
        // The platform may hold a record that our own table lacks.
        let upserted = differing.iter().filter(|record| platform.is_some() || record.decision != Decision::Restore);
        let upserted: Vec<&R> = upserted.map(|record| &record.record).collect();
        let upserted = write::upsert(txn, self.dialect, merchant, &upserted, asked).await?;
        let restored = ids_of(&|decision| *decision == Decision::Restore);
        let restored = write::restore::<R>(txn, self.dialect, merchant, &restored, asked.ago).await?;
        if let Some(platform) = platform {
            let mut ids = ids_of(&|decision| *decision != Decision::Adopt);
            if ids.is_empty() {
                return Ok(HashMap::new());
            }
            let marked = platform.marked_since::<R>(txn, merchant, &ids, asked.ago).await?;
            ids.retain(|id| !marked.contains(id));
            let mut written = platform.write::<R>(txn, merchant, &ids).await?;
            self.confirm_unchanged(txn, merchant, differing, asked.latest, &mut written).await?;
            written.extend(marked.into_iter().map(|id| (id, (Outcome::Unchanged, None))));
            return Ok(written);
        }
        let restored = restored.into_iter().map(|id| (id, Outcome::Updated));
        Ok(restored.chain(upserted).map(|(id, outcome)| (id, (outcome, None))).collect())
    }

    /// Marks the records of a page that are gone. `one_by_one`: each behind a savepoint, to find the one that is refused.
    pub(in crate::store) async fn mark_deleted<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        merchant: MerchantId,
        page: &PageCommit<'_, R>,
        one_by_one: bool,
    ) -> Result<DeletionResult, DbErr> {
        let gone = &page.batch.deleted;
        if !one_by_one {
            return self.mark_together::<R>(txn, merchant, gone, page.dry_run).await;
        }
        let mut all = DeletionResult::default();
        for one in gone {
            let savepoint = txn.begin().await?;
            match self.mark_together::<R>(&savepoint, merchant, std::slice::from_ref(one), page.dry_run).await {
                Ok(done) => {
                    savepoint.commit().await?;
                    all.marked.extend(done.marked);
                    all.refused.extend(done.refused);
                }
                Err(error) if self.refuses::<R>(&error) => {
                    savepoint.rollback().await?;
                    let reason = format!("the deletion was not written: {}", refusal(&error));
                    all.refused.push(Unreadable { id: Some(one.0), ..Unreadable::failed(reason) });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    async fn mark_together<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        merchant: MerchantId,
        gone: &[StoredVersion],
        dry_run: bool,
    ) -> Result<DeletionResult, DbErr> {
        match self.platform::<R>() {
            Some(platform) => platform.mark_deleted::<R>(txn, self.dialect, merchant, gone, dry_run).await,
            None => {
                let marked = write::mark_deleted::<R>(txn, self.dialect, merchant, gone, dry_run).await?;
                Ok(DeletionResult { marked, refused: Vec::new() })
            }
        }
    }

    /// Whether an error is about one record. A function of the platform may raise any code.
    pub(in crate::store) fn refuses<R: Stored>(&self, error: &DbErr) -> bool {
        is_refusal(error) || self.platform::<R>().is_some() && is_raised(error)
    }

    /// A function may say that it left a record unchanged. Where the record still differs, something has kept it from being
    /// written: a trigger, or a column with less precision.
    async fn confirm_unchanged<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        merchant: MerchantId,
        differing: &[&AssessedRecord<R>],
        latest: Option<DateTime<Utc>>,
        written: &mut HashMap<i64, Written>,
    ) -> Result<(), DbErr> {
        let is_unchanged = |id: &i64| written.get(id).is_some_and(|(outcome, _)| *outcome == Outcome::Unchanged);
        let doubted: Vec<&AssessedRecord<R>> =
            differing.iter().copied().filter(|one| is_unchanged(&one.record.id())).collect();
        if doubted.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = doubted.iter().map(|one| one.record.id()).collect();
        let stored = lookup::look_up::<R>(txn, self.dialect, self.platform::<R>(), merchant, &ids).await?;
        for one in doubted {
            let id = one.record.id();
            let still = match assess(&one.record, stored.get(&id), latest) {
                Ok(Decision::Create) => "is missing".to_owned(),
                Ok(Decision::Update { fields }) => format!("differs in {}", fields.join(", ")),
                Ok(Decision::Restore) => "is marked as deleted".to_owned(),
                _ => continue,
            };
            let reason = format!(
                "the function of the platform answered unchanged, and the record still {still}; look for a trigger, or a column with less precision"
            );
            written.insert(id, (Outcome::Failed, Some(reason)));
        }
        Ok(())
    }
}
