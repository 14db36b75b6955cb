//! Looks up what is stored, and decides what to do about each record.

use std::panic::{AssertUnwindSafe, catch_unwind};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::{
    EngineError, RunContext,
    list_reader::{ListReader, NewRecords},
};
use crate::{
    domain::{Decision, Record, StoredRecord, Summary, Unreadable, assess},
    reconcile::ports::{AssessedRecord, Batch, DatabaseError, RecordStore},
};

impl<S, T> RunContext<'_, S, T> {
    /// Decides about the records of a page. Beside the batch: the summaries that may need details.
    pub(super) async fn assess_page<R>(
        &self,
        page: NewRecords<R>,
        reader: &ListReader,
        asked_at: Instant,
    ) -> Result<(Batch<R>, Vec<Summary>), EngineError>
    where
        R: Record,
        T: RecordStore<R>,
    {
        let NewRecords { records, repeats, summaries, unreadable, ids } = page;
        let mut batch = Batch { unreadable, seen: ids, ..reader.batch(asked_at) };
        let latest = batch.latest;
        batch.records = self.assess_all(self.before_until(records), latest, &mut batch.unreadable).await?;
        // Of a record that the run has met, a copy that cannot be read says nothing.
        let repeats = self.assess_all(self.before_until(repeats), latest, &mut Vec::new()).await?;
        batch.records.extend(repeats.into_iter().map(|repeat| AssessedRecord { repeat: true, ..repeat }));
        Ok((batch, summaries))
    }

    /// Removes the records that changed after the end of the window: later runs reconcile them.
    pub(super) fn before_until<R: Record>(&self, mut records: Vec<R>) -> Vec<R> {
        if let Some(until) = self.claim.request.until {
            records.retain(|record| record.updated_at().is_none_or(|at| at < until));
        }
        records
    }

    /// Looks the records up in one query, and decides about each. Some turn out to be `unreadable`.
    pub(super) async fn assess_all<R>(
        &self,
        records: Vec<R>,
        latest: Option<DateTime<Utc>>,
        unreadable: &mut Vec<Unreadable>,
    ) -> Result<Vec<AssessedRecord<R>>, DatabaseError>
    where
        R: Record,
        T: RecordStore<R>,
    {
        let ids: Vec<i64> = records.iter().map(Record::id).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = self.records.look_up(self.claim.lease.merchant, &ids).await?;
        let assess_one = |record: R| {
            let stored = found.remove(&record.id());
            match guarded(&record, stored.as_ref(), latest) {
                Ok(decision) => Some(AssessedRecord { decision, stored, record, repeat: false }),
                Err(bad) => {
                    unreadable.push(bad);
                    None
                }
            }
        };
        let mut assessed = Vec::with_capacity(records.len());
        assessed.extend(records.into_iter().filter_map(assess_one));
        Ok(assessed)
    }
}

/// A panic that the content of one record causes costs that record only.
fn guarded<R: Record>(
    record: &R,
    stored: Option<&StoredRecord<R>>,
    latest: Option<DateTime<Utc>>,
) -> Result<Decision, Unreadable> {
    let reason = || "cannot be compared: the program panicked".to_owned();
    let panicked = |_| Err(Unreadable::skipped(Some(record.id()), "", reason()));
    catch_unwind(AssertUnwindSafe(|| assess(record, stored, latest))).unwrap_or_else(panicked)
}
