//! What is held here and no list showed, and what earlier runs could not settle: each is asked for at its own
//! address. Absence from a list is only a reason to ask.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use super::{
    list_reader::ListReader,
    run_context::{EngineError, RunContext},
};
use crate::{
    domain::{Listing, Record, Resource},
    reconcile::{
        ports::{Batch, ExpectedRecords, Source, Target},
        run::resource_runs::RunProgress,
    },
};

/// So many are asked for before what came of it is committed.
const BATCH: usize = 60;

/// So many that earlier runs could not settle are tried in one run.
const MAX_UNSETTLED: usize = 1_000;

/// So few that are gone are never a crowd.
const FEW: usize = 2;

/// A list shows changes this late.
const SETTLING: TimeDelta = TimeDelta::seconds(60);

type Version = Option<DateTime<Utc>>;

/// More is gone than can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "of {held} {resource} that are held and ought to be listed, {absent} were not; of the {asked} that were asked for, \
     {missing} are gone or were left out, which is more than reconcile.max_deletion_ratio allows; none was marked"
)]
pub struct TooManyDeleted {
    resource: Resource,
    held: usize,
    absent: usize,
    asked: usize,
    missing: usize,
}

/// Keeps count of what ought to be there.
struct DeletionGuard {
    resource: Resource,
    held: usize,
    absent: usize,
    share: f64,
}

impl DeletionGuard {
    /// Stops when too much is missing, or when what was asked for so far says that it will be: a list that is broken is
    /// not asked for order by order.
    fn check(&self, asked: usize, missing: usize) -> Result<(), TooManyDeleted> {
        let allowed = ((self.held as f64 * self.share) as usize).max(FEW);
        let foreseen = if asked < BATCH { missing } else { missing * self.absent / asked };
        if foreseen.max(missing) <= allowed {
            return Ok(());
        }
        Err(TooManyDeleted { resource: self.resource, held: self.held, absent: self.absent, asked, missing })
    }
}

/// Asks for what the lists did not show, corrects it, and marks what Salla says is gone.
pub async fn ask<R, S, T>(
    context: &RunContext<'_, S, T>,
    reader: &mut ListReader,
    progress: &mut RunProgress,
) -> Result<(), EngineError>
where
    R: Record,
    S: Source<R>,
    T: Target<R>,
{
    let began = reader.cursor().observed_at.unwrap_or(context.claim.now);
    let since = (reader.cursor().listing == Listing::Filter).then_some(context.window.since);
    let until = context.claim.request.until.map_or(began, |until| until.min(began));
    let has_seen = |id| reader.has_seen(id);
    let ought = match (since, progress.part().slice) {
        (Some(since), _) => ExpectedRecords::ChangedSince(since, until),
        (None, Some(slice)) => ExpectedRecords::InRotation(slice, context.window.since, until),
        (None, None) => ExpectedRecords::CreatedBefore(until),
    };
    let (held, absent) = context.target.unseen(context.claim.lease.merchant, ought, &has_seen).await?;
    let absent: BTreeMap<i64, Version> = absent.into_iter().collect();
    let brake = DeletionGuard { resource: R::RESOURCE, held, absent: absent.len(), share: context.max_deletion_ratio };

    let mut gone = check_unlisted(context, reader, progress, (&absent, brake, (since, began))).await?;
    let unsettled: Vec<i64> = reader.unsettled().filter(|id| !absent.contains_key(id)).collect();
    let (unsettled, later) = unsettled.split_at(unsettled.len().min(MAX_UNSETTLED));
    if !later.is_empty() {
        tracing::warn!(resource = %R::RESOURCE, records = later.len(), "retry limit reached; remaining failed records deferred to the next run");
        progress.unsettled = later.len();
    }
    for ids in unsettled.chunks(BATCH) {
        gone.extend(settle(context, reader, progress, ids, |_| false).await?.0);
    }
    if !gone.is_empty() {
        // Some may be held all the same, in a version that was not asked about.
        let strangers: Vec<i64> = gone.iter().copied().filter(|id| !absent.contains_key(id)).collect();
        let strangers = context.target.held(context.claim.lease.merchant, &strangers).await?;
        let version = |id: &i64| absent.get(id).copied().or_else(|| strangers.get(id).map(|held| held.updated_at));
        let batch = Batch {
            gone: gone.iter().map(|id| (*id, version(id).flatten())).collect(),
            seen: reader.meet(gone),
            ..Batch::default()
        };
        context.commit::<R>(reader, progress, batch).await?;
    }
    Ok(())
}

/// Asks for what is held and absent, spread over all of it, and returns what is gone.
async fn check_unlisted<R, S, T>(
    context: &RunContext<'_, S, T>,
    reader: &mut ListReader,
    progress: &mut RunProgress,
    (absent, brake, (since, began)): (&BTreeMap<i64, Version>, DeletionGuard, (Version, DateTime<Utc>)),
) -> Result<Vec<i64>, EngineError>
where
    R: Record,
    S: Source<R>,
    T: Target<R>,
{
    let ids: Vec<i64> = absent.keys().copied().collect();
    let stride = ids.len().div_ceil(BATCH).max(1);
    let spread: Vec<i64> = (0..stride).flat_map(|start| ids.iter().copied().skip(start).step_by(stride)).collect();
    let (mut gone, mut asked) = (Vec::new(), 0);
    for ids in spread.chunks(BATCH) {
        let belongs = |record: &R| ought_to_be_listed(record, since, began);
        let (more, left_out) = settle(context, reader, progress, ids, belongs).await?;
        asked += ids.len();
        gone.extend(more);
        if !left_out.is_empty() {
            tracing::warn!(resource = %R::RESOURCE, salla.ids = ?left_out, "the list left out records that it ought to hold; they were read one by one");
        }
        let left_out = reader.note_left_out(u32::try_from(left_out.len()).unwrap_or(u32::MAX));
        brake.check(asked, gone.len() + left_out as usize)?;
    }
    Ok(gone)
}

/// Reads records at their own addresses and commits what came of it. Returns those that are gone, and those that belong
/// into the list.
async fn settle<R, S, T>(
    context: &RunContext<'_, S, T>,
    reader: &mut ListReader,
    progress: &mut RunProgress,
    ids: &[i64],
    belongs: impl Fn(&R) -> bool,
) -> Result<(Vec<i64>, Vec<i64>), EngineError>
where
    R: Record,
    S: Source<R>,
    T: Target<R>,
{
    let asked_at = Instant::now();
    let read = context.read_each::<R>(ids, reader, progress).await?;
    let (mut batch, mut records, mut met) =
        (Batch { asked_at, latest: reader.latest_stamp(), ..Batch::default() }, Vec::new(), Vec::new());
    let (mut gone, mut listed) = (Vec::new(), Vec::new());
    for (&id, record) in ids.iter().zip(read) {
        let Some(record) = record else {
            gone.push(id);
            continue;
        };
        met.push(id);
        match record {
            Ok(record) => {
                if belongs(&record) {
                    listed.push(id);
                }
                records.push(record);
            }
            Err(bad) if reader.matches_failed_row() => batch.counted_already.push(bad),
            Err(bad) => batch.unreadable.push(bad),
        }
    }
    batch.records = context.assess_all(records, batch.latest, &mut batch.unreadable).await?;
    context.read_lines(&mut batch, (reader, progress)).await?;
    batch.seen = reader.meet(met);
    context.commit(reader, progress, batch).await?;
    Ok((gone, listed))
}

/// Whether the lists of this run should have shown a record that exists.
fn ought_to_be_listed<R: Record>(record: &R, since: Version, began: DateTime<Utc>) -> bool {
    // What changed a moment before may still have been on its way into the list.
    let settled = |at: DateTime<Utc>| at < began - SETTLING;
    let within = |at: DateTime<Utc>| since.is_none_or(|since| since.timestamp() <= at.timestamp());
    !record.is_unlisted() && record.updated_at().is_none_or(|at| settled(at) && within(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brake() {
        let stops = |held, absent, asked, missing| {
            DeletionGuard { resource: Resource::Orders, held, absent, share: 0.25 }.check(asked, missing).is_err()
        };
        assert!(!stops(1, 1, 1, 1) && !stops(3, 2, 2, 2), "a few are never a crowd");
        assert!(stops(10, 3, 3, 3));
        assert!(!stops(100, 25, 25, 25));
        assert!(stops(100, 26, 26, 26));
        // After a batch that is spread over all that is absent, the rest is foreseen.
        assert!(stops(100_000, 100_000, 60, 60));
        assert!(!stops(100_000, 100_000, 60, 14));
        assert!(!stops(100_000, 20_000, 60, 60));
    }
}
