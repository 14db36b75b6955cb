//! Samples of the details of orders that the sorted list did not show: they tell whether it misses changes.

use std::collections::HashMap;

use rand::seq::{IndexedRandom, SliceRandom};
use tokio::time::Instant;

use super::{EngineError, ResourceState, RunContext, RunProgress};
use crate::{
    domain::{Listing, ListingViolation, Record},
    reconcile::ports::{Batch, Source, Target},
};

/// So many orders are drawn at random, whatever `reconcile.detail_check_nights` says.
const DRAWN: usize = 10;

/// So many samples are read before the results are committed.
const BATCH: usize = 60;

impl<S, T> RunContext<'_, S, T> {
    /// Reads samples after a sorted list, and judges whether it missed changes. Returns whether the lists have been read;
    /// otherwise, all records must be scanned.
    pub(super) async fn confirm_sorted_list<R>(
        &self,
        state: &mut ResourceState,
        progress: &mut RunProgress,
    ) -> Result<bool, EngineError>
    where
        R: Record,
        S: Source<R>,
        T: Target<R>,
    {
        if state.reader.cursor().listing != Listing::Sort {
            return Ok(true);
        }
        if state.reader.cursor().missed_changes == 0 {
            for ids in self.draw_samples(state).await?.chunks(BATCH) {
                self.read_samples::<R>(ids, state, progress).await?;
            }
        }
        if state.reader.cursor().missed_changes == 0 {
            return Ok(true);
        }
        self.scan_instead("the sorted list misses changes", Some(ListingViolation::MissedChange), state, progress)?;
        Ok(false)
    }

    /// The orders whose details are oldest, and some at random, among those that this run did not meet.
    async fn draw_samples<R>(&self, state: &ResourceState) -> Result<Vec<i64>, EngineError>
    where
        R: Record,
        T: Target<R>,
    {
        let Some(plan) = &state.sorted else {
            return Ok(Vec::new());
        };
        let has_seen = |id| state.reader.has_seen(id);
        let mut checked = self.target.checked(self.claim.lease.merchant, &has_seen).await?;
        checked.sort_unstable_by_key(|(id, checked_at)| (*checked_at, *id));
        let rest = checked.split_off(checked.len().min(plan.samples));
        let mut ids: Vec<i64> = checked.into_iter().map(|(id, _)| id).collect();
        ids.extend(rest.sample(&mut rand::rng(), DRAWN).map(|(id, _)| *id));
        ids.shuffle(&mut rand::rng());
        Ok(ids)
    }

    async fn read_samples<R>(
        &self,
        ids: &[i64],
        state: &mut ResourceState,
        progress: &mut RunProgress,
    ) -> Result<(), EngineError>
    where
        R: Record,
        S: Source<R>,
        T: Target<R>,
    {
        let mut batch = Batch { asked_at: Instant::now(), latest: state.reader.latest_stamp(), ..Batch::default() };
        let rows: HashMap<_, _> = self.target.checks(self.claim.lease.merchant, ids).await?;
        let rows = rows.into_iter().map(|(id, check)| (id, check.summary)).collect();
        let gone = self.read_records::<R>(ids, &rows, &mut batch, state).await?;
        let mut missed = Vec::new();
        for suspected in state.missed_changes(&batch.records, self.recent_since(state)) {
            let Some(one) = batch.records.iter().find(|one| one.record.id() == suspected.id) else { continue };
            let listed = self.source.is_listed(self.merchant(), &one.record, &state.requests);
            if self.cancellable(listed).await?? {
                missed.push(suspected);
            }
        }
        state.reader.note_missed_changes(&missed);
        self.read_items(&mut batch, state).await?;
        // Of an order that is gone, the list of its days decides.
        let met = ids.iter().copied().filter(|id| !gone.contains(id)).collect();
        batch.seen = state.reader.meet(met);
        self.commit(batch, state, progress).await
    }
}
