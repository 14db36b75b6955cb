//! What is held here and no list showed, and what earlier runs could not settle: each is asked for at its own
//! address. Absence from a list is only a reason to ask.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    engine::{Done, EngineError, Work},
    ports::{Batch, Source, Target},
    survey::Survey,
};
use crate::domain::{Listing, Record};

/// So many are asked for before what came of it is committed.
const BATCH: usize = 60;

/// A list shows changes this late.
const SETTLING: TimeDelta = TimeDelta::seconds(60);

/// More is gone than can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "of {held} orders that are held and ought to be listed, {missing} are gone or left out, which is more than \
     reconcile.max_disappeared allows; none was marked"
)]
pub struct MassDisappearance {
    missing: usize,
    held: usize,
}

/// Asks for what the lists did not show, corrects it, and marks what Salla says is gone.
pub async fn ask<R, S, T>(work: &Work<'_, S, T>, survey: &mut Survey, done: &mut Done) -> Result<(), EngineError>
where
    R: Record,
    S: Source<R>,
    T: Target<R>,
{
    let merchant = work.claim.lease.merchant;
    let began = survey.cursor().observed_at.unwrap_or(work.claim.now);
    let since = (survey.cursor().listing == Listing::UpdatedAtMin).then_some(work.window.since);
    let until = work.claim.request.until.map_or(began, |until| until.min(began));
    let held = work.target.held_ids(merchant, since, until).await?;
    let absent: BTreeSet<i64> = held.iter().copied().filter(|id| !survey.has_seen(*id)).collect();
    let unwell = work.target.unwell(merchant).await?;
    let ids: BTreeSet<i64> =
        absent.iter().copied().chain(unwell.into_iter().filter(|id| !survey.has_seen(*id))).collect();
    let ids: Vec<i64> = ids.into_iter().collect();

    // One alone is never a crowd.
    let allowed = ((held.len() as f64 * work.max_disappeared) as usize).max(1);
    let (mut gone, mut left_out) = (Vec::new(), 0);
    for batch in ids.chunks(BATCH) {
        let (mut read, mut records, mut met) = (Batch::default(), Vec::new(), Vec::new());
        for &id in batch {
            match work.unless_stopped(work.source.record(merchant, id, &done.requests)).await?? {
                None => gone.push(id),
                Some(Ok(record)) => {
                    let belongs = ought_to_be_listed(&record, since, began);
                    left_out += usize::from(absent.contains(&id) && belongs);
                    met.push(id);
                    records.push(record);
                }
                Some(Err(bad)) => {
                    met.push(id);
                    read.unreadable.push(bad);
                }
            }
            let missing = gone.iter().filter(|id| absent.contains(id)).count() + left_out;
            if missing > allowed {
                return Err(MassDisappearance { missing, held: held.len() }.into());
            }
        }
        if !met.is_empty() {
            read.records = work.assess_all(records, false).await?;
            read.seen = survey.meet(met);
            work.commit(survey, done, &read).await?;
        }
    }
    if left_out > 0 {
        tracing::warn!(orders = left_out, "the list left out orders that it ought to hold; they were read one by one");
    }
    if !gone.is_empty() {
        let seen = survey.meet(gone.clone());
        work.commit::<R>(survey, done, &Batch { gone, seen, ..Batch::default() }).await?;
    }
    Ok(())
}

/// Whether the lists of this run should have shown a record that exists.
fn ought_to_be_listed<R: Record>(record: &R, since: Option<DateTime<Utc>>, began: DateTime<Utc>) -> bool {
    // What changed a moment before may still have been on its way into the list.
    let settled = record.updated_at() < began - SETTLING;
    let within = since.is_none_or(|since| since.timestamp() <= record.updated_at().timestamp());
    settled && within && !record.is_unlisted()
}
