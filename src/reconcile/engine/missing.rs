//! Records that are stored and that no list showed, and records that earlier runs could not read or write. Each is read
//! at its own address. Absence from a list is only a reason to ask.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::{EngineError, ResourceState, RunContext, RunProgress, details::checked};
use crate::{
    domain::{Listing, Record, Resource, SETTLING, StoredRecord},
    reconcile::ports::{Batch, ExpectedRecords, RecordStore, Source},
};

/// So many records are read before the results are committed.
const BATCH: usize = 60;

/// So many failed records are retried in one run.
const MAX_RETRIED: usize = 1_000;

/// So few deletions never stop a run.
const FEW: usize = 2;

type Version = Option<DateTime<Utc>>;

/// More records are missing than one run may mark deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{absent} of {held} stored {resource} are missing in the list; {missing} of {asked} that were fetched are gone or were omitted by the list, more than \
     reconcile.max_deletion_ratio allows; none was marked as deleted"
)]
pub struct TooManyDeleted {
    resource: Resource,
    held: usize,
    absent: usize,
    asked: usize,
    missing: usize,
}

/// Limits how many of the stored records one run may mark deleted.
struct DeletionGuard {
    resource: Resource,
    held: usize,
    absent: usize,
    max_ratio: f64,
}

impl DeletionGuard {
    /// Stops when too many records are missing, or when the answers so far predict it: a broken list is not checked record
    /// by record. `earlier`: the records that were missing before the run was resumed.
    fn check(&self, asked: usize, missing: usize, earlier: usize) -> Result<(), TooManyDeleted> {
        let allowed = ((self.held as f64 * self.max_ratio) as usize).max(FEW);
        let predicted = if asked < BATCH { missing } else { missing * self.absent / asked };
        if predicted.max(missing) + earlier <= allowed {
            return Ok(());
        }
        let (asked, missing) = (asked + earlier, missing + earlier);
        Err(TooManyDeleted { resource: self.resource, held: self.held, absent: self.absent + earlier, asked, missing })
    }
}

/// The stored records that no list showed.
struct Absent {
    /// Each with its stored version.
    versions: BTreeMap<i64, Version>,
    /// Of these, failed records. The lists need not show them.
    failed: HashSet<i64>,
    guard: DeletionGuard,
    /// The lists showed what changed since then; `None`: everything.
    since: Version,
    /// When the run began, by Salla's clock.
    began: DateTime<Utc>,
}

impl Absent {
    /// Adds failed records that are stored: the limit of deletions holds for them too.
    fn add_stored<R: Record>(&mut self, stored: HashMap<i64, StoredRecord<R>>) {
        let stored: Vec<_> = stored.into_iter().filter(|(_, stored)| !stored.deleted).collect();
        self.failed.extend(stored.iter().map(|(id, _)| *id));
        self.versions.extend(stored.into_iter().map(|(id, stored)| (id, stored.updated_at)));
        self.guard.held += self.versions.len() - self.guard.absent;
        self.guard.absent = self.versions.len();
    }
}

/// What records at their own addresses turned out to be.
#[derive(Default)]
struct Found {
    /// Salla says that they are gone.
    gone: Vec<i64>,
    /// They exist, and the lists should have shown them.
    left_out: Vec<i64>,
}

/// Reads the absent records and the failed ones, corrects them, and marks deleted those that Salla says are gone.
pub(super) async fn check<R, S, T>(
    context: &RunContext<'_, S, T>,
    state: &mut ResourceState,
    progress: &mut RunProgress,
) -> Result<(), EngineError>
where
    R: Record,
    S: Source<R>,
    T: RecordStore<R>,
{
    let mut absent = context.find_absent(state, progress).await?;
    let failed: Vec<i64> = state.reader.unsettled().filter(|id| !absent.versions.contains_key(id)).collect();
    let (retried, deferred) = failed.split_at(failed.len().min(MAX_RETRIED));
    if !deferred.is_empty() {
        tracing::warn!(resource = %R::RESOURCE, records = deferred.len(), "retry limit reached; remaining failed records deferred to the next run");
        state.deferred = deferred.len();
    }
    if !retried.is_empty() {
        // Look up the versions before the requests, so that a later write of another writer prevents a deletion.
        absent.add_stored(context.records.look_up(context.claim.lease.merchant, retried).await?);
    }
    let mut gone = context.check_absent(&absent, state, progress).await?;
    let not_stored: Vec<i64> = retried.iter().copied().filter(|id| !absent.versions.contains_key(id)).collect();
    for ids in not_stored.chunks(BATCH) {
        gone.extend(context.check_each(ids, |_| false, state, progress).await?.gone);
    }
    context.mark_deleted(gone, &absent, state, progress).await
}

impl<S, T> RunContext<'_, S, T> {
    async fn find_absent<R>(&self, state: &ResourceState, progress: &mut RunProgress) -> Result<Absent, EngineError>
    where
        R: Record,
        T: RecordStore<R>,
    {
        let cursor = state.reader.cursor();
        let began = cursor.observed_at.unwrap_or(self.claim.now);
        let since = (cursor.listing == Listing::Filter).then_some(self.window.since);
        let until = self.claim.request.until.map_or(began, |until| until.min(began));
        let expected = match (since, progress.resource_run().slice) {
            (Some(since), _) => ExpectedRecords::ChangedSince(since, until),
            (None, Some(slice)) => ExpectedRecords::InRotation(slice, state.changes_since(self.window.since), until),
            (None, None) => ExpectedRecords::CreatedBefore(until),
        };
        let has_seen = |id| state.reader.has_seen(id);
        let (held, absent) = self.records.unseen(self.claim.lease.merchant, expected, &has_seen).await?;
        let versions: BTreeMap<i64, Version> = absent.into_iter().collect();
        let max_ratio = self.max_deletion_ratio;
        let guard = DeletionGuard { resource: R::RESOURCE, held, absent: versions.len(), max_ratio };
        Ok(Absent { versions, failed: HashSet::new(), guard, since, began })
    }

    /// Reads the absent records in an order that is spread over all of them, and returns those that are gone.
    async fn check_absent<R>(
        &self,
        absent: &Absent,
        state: &mut ResourceState,
        progress: &mut RunProgress,
    ) -> Result<Vec<i64>, EngineError>
    where
        R: Record,
        S: Source<R>,
        T: RecordStore<R>,
    {
        let ids: Vec<i64> = absent.versions.keys().copied().collect();
        let stride = ids.len().div_ceil(BATCH).max(1);
        let spread: Vec<i64> = (0..stride).flat_map(|start| ids.iter().copied().skip(start).step_by(stride)).collect();
        let earlier = state.reader.cursor().left_out as usize;
        let (mut gone, mut asked) = (Vec::new(), 0);
        for ids in spread.chunks(BATCH) {
            let is_expected = |record: &R| {
                !absent.failed.contains(&record.id()) && should_be_listed(record, absent.since, absent.began)
            };
            let found = self.check_each(ids, is_expected, state, progress).await?;
            asked += ids.len();
            gone.extend(found.gone);
            if !found.left_out.is_empty() {
                tracing::warn!(resource = %R::RESOURCE, salla.ids = ?found.left_out, "the list omitted records; they were fetched one by one");
            }
            let left_out = state.reader.note_left_out(u32::try_from(found.left_out.len()).unwrap_or(u32::MAX));
            absent.guard.check(asked, gone.len() + left_out as usize - earlier, earlier)?;
        }
        Ok(gone)
    }

    /// Reads records at their own addresses, and commits the results.
    async fn check_each<R>(
        &self,
        ids: &[i64],
        is_expected: impl Fn(&R) -> bool,
        state: &mut ResourceState,
        progress: &mut RunProgress,
    ) -> Result<Found, EngineError>
    where
        R: Record,
        S: Source<R>,
        T: RecordStore<R>,
    {
        let mut batch = state.reader.batch(Instant::now());
        let read = self.read_each::<R>(ids, state).await?;
        let (mut found, mut records, mut met) = (Found::default(), Vec::new(), Vec::new());
        for (&id, record) in ids.iter().zip(read) {
            let Some(record) = record else {
                found.gone.push(id);
                continue;
            };
            met.push(id);
            match record {
                Ok(record) => {
                    if is_expected(&record) {
                        found.left_out.push(id);
                    }
                    records.push(record);
                }
                Err(bad) if state.reader.matches_failed_row() => batch.counted_already.push(bad),
                Err(bad) => batch.unreadable.push(bad),
            }
        }
        batch.records = self.assess_all(records, batch.latest, &mut batch.unreadable).await?;
        // A list that shows one of them again later may show an old row.
        if self.source.shows_summaries() {
            batch.checked = batch.records.iter().filter_map(|record| checked(record, None)).collect();
        }
        self.read_items(&mut batch, state).await?;
        batch.seen = state.reader.note_details(met);
        self.commit(batch, state, progress).await?;
        Ok(found)
    }

    async fn mark_deleted<R>(
        &self,
        gone: Vec<i64>,
        absent: &Absent,
        state: &mut ResourceState,
        progress: &mut RunProgress,
    ) -> Result<(), EngineError>
    where
        R: Record,
        T: RecordStore<R>,
    {
        if gone.is_empty() {
            return Ok(());
        }
        let version = |id: &i64| absent.versions.get(id).copied().flatten();
        let batch = Batch {
            deleted: gone.iter().map(|id| (*id, version(id))).collect(),
            seen: state.reader.note_details(gone),
            ..Batch::<R>::default()
        };
        self.commit(batch, state, progress).await
    }
}

/// Whether the lists of this run should have shown a record that exists.
fn should_be_listed<R: Record>(record: &R, since: Version, began: DateTime<Utc>) -> bool {
    // A change of a moment before may still have been on its way into the list.
    let settled = |at: DateTime<Utc>| at < began - SETTLING;
    let within = |at: DateTime<Utc>| since.is_none_or(|since| since.timestamp() <= at.timestamp());
    !record.is_unlisted() && record.updated_at().is_none_or(|at| settled(at) && within(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_deletions_stop_the_run() {
        let guard = |held, absent| DeletionGuard { resource: Resource::Orders, held, absent, max_ratio: 0.25 };
        let stops = |held, absent, asked, missing| guard(held, absent).check(asked, missing, 0).is_err();
        assert!(!stops(1, 1, 1, 1) && !stops(3, 2, 2, 2), "a few deletions never stop a run");
        assert!(stops(10, 3, 3, 3));
        assert!(!stops(100, 25, 25, 25));
        assert!(stops(100, 26, 26, 26));
        // After a batch that is spread over all that is absent, the rest is foreseen.
        assert!(stops(100_000, 100_000, 60, 60));
        assert!(!stops(100_000, 100_000, 60, 14));
        assert!(!stops(100_000, 20_000, 60, 60));
        // The records of an earlier process say nothing about the rest.
        assert!(guard(1_000, 150).check(60, 0, 100).is_ok());
        assert!(guard(1_000, 200).check(60, 60, 100).is_err());
    }
}
