//! Samples of the details of orders that the sorted list did not show: they tell whether it misses changes.

use std::collections::HashMap;

use tokio::time::Instant;

use super::{EngineError, ResourceState, RunContext, RunProgress, sorted_plan::SortedPlan};
use crate::{
    domain::{Listing, Record, SortedListResult},
    reconcile::ports::{RecordStore, Source},
};

/// So many orders are drawn at random, whatever `reconcile.detail_check_nights` says.
const DRAWN: usize = 10;

/// So many samples with an unknown change are looked for in the list. If none of them is listed, one more counts as missed.
const MAX_LOOKED_UP: usize = 20;

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
        T: RecordStore<R>,
    {
        if state.reader.cursor().listing != Listing::Sort {
            return Ok(true);
        }
        let Some(plan) = state.sorted else {
            self.scan_instead(SortedListResult::NoPlan, state, progress)?;
            return Ok(false);
        };
        if state.reader.cursor().missed_changes == 0 {
            for ids in self.draw_samples(plan, state).await?.chunks(BATCH) {
                self.read_samples::<R>(ids, state, progress).await?;
                // All records are scanned in any case.
                if state.reader.cursor().missed_changes > 0 {
                    break;
                }
            }
        }
        if state.reader.cursor().missed_changes == 0 {
            return Ok(true);
        }
        self.scan_instead(SortedListResult::MissedChange, state, progress)?;
        Ok(false)
    }

    /// The orders whose details are oldest, and some at random, among those whose details this run did not read.
    async fn draw_samples<R>(&self, plan: SortedPlan, state: &ResourceState) -> Result<Vec<i64>, EngineError>
    where
        R: Record,
        T: RecordStore<R>,
    {
        let began = state.reader.cursor().observed_at.unwrap_or(self.claim.now);
        Ok(self.records.samples(self.claim.lease.merchant, began, plan.samples, DRAWN).await?)
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
        T: RecordStore<R>,
    {
        let mut batch = state.reader.batch(Instant::now());
        let rows: HashMap<_, _> = self.records.checks(self.claim.lease.merchant, ids).await?;
        let rows = rows.into_iter().map(|(id, check)| (id, check.summary)).collect();
        let gone = self.read_records::<R>(ids, &rows, &mut batch, state).await?;
        batch.records.iter_mut().for_each(|one| one.repeat = state.reader.has_seen(one.record.id()));
        batch.unreadable.retain(|bad| bad.id.is_none_or(|id| !state.reader.has_seen(id)));
        let suspected = state.missed_changes(&batch.records, self.recent_since(state));
        for (number, missed) in suspected.iter().enumerate() {
            let Some(one) = batch.records.iter().find(|one| one.record.id() == missed.id) else { continue };
            let listed = self.source.is_listed(self.merchant(), &one.record, &state.requests);
            if number >= MAX_LOOKED_UP || self.cancellable(listed).await?? {
                state.reader.note_missed_changes(&suspected[number..=number]);
                break;
            }
        }
        self.read_items(&mut batch, state).await?;
        // The slice decides later whether an order that is gone is marked deleted.
        let met = ids.iter().copied().filter(|id| !gone.contains(id)).collect();
        batch.seen = state.reader.note_details(met);
        self.commit(batch, state, progress).await
    }
}
