//! Whether and how tonight's list is read sorted by time of change, and what is remembered of it.

use chrono::{DateTime, Utc};

use super::{ResourceState, RunContext, RunProgress};
use crate::{
    domain::{Covered, Listing, Record, RotationPace, RotationWindow, Scope, SortedList},
    reconcile::ports::{DatabaseError, RecordStore, Source},
};

/// How tonight's sorted list is read.
#[derive(Debug, Clone, Copy)]
pub struct SortedPlan {
    /// The list must show every change at or after this instant.
    pub threshold: DateTime<Utc>,
    /// How many records are stored.
    pub stored: u64,
    /// The part of the list that is read besides.
    pub slice: RotationWindow,
    /// So many records have their details read besides.
    pub samples: usize,
}

impl<S, T> RunContext<'_, S, T> {
    /// Returns the plan for the sorted list, or `None` where it cannot be read tonight. The orders need a watermark, and the
    /// request must name no window.
    pub(super) async fn plan_sorted_list<R>(
        &self,
        progress: &mut RunProgress,
    ) -> Result<Option<SortedPlan>, DatabaseError>
    where
        R: Record,
        S: Source<R>,
        T: RecordStore<R>,
    {
        let request = &self.claim.request;
        let is_plain = !request.full && request.since.is_none() && request.until.is_none();
        let Covered::UpTo(covered) = self.claim.covered(R::RESOURCE) else {
            return Ok(None);
        };
        if !self.source.supports_sort() || !is_plain {
            return Ok(None);
        }
        let merchant = self.claim.lease.merchant;
        let read = self.records.sorted_list(merchant, covered).await?;
        let list = *progress.resource_run().sorted_list.get_or_insert(SortedList { violation: None, ..read.list });
        let threshold = match list.threshold(read.stored, read.details_since, covered, self.overlap) {
            Ok(threshold) => threshold,
            Err(reason) => {
                tracing::debug!(reason, "the sorted list is not used");
                return Ok(None);
            }
        };
        let Some(slice) = self.records.slice(merchant, RotationPace::SORTED_LIST).await? else {
            return Ok(None);
        };
        let nights = u64::from(self.detail_checks.nights(list.is_proven(read.details_since)));
        let samples = if nights == 0 { 0 } else { read.stored.div_ceil(nights) };
        let samples = usize::try_from(samples).unwrap_or(usize::MAX);
        Ok(Some(SortedPlan { threshold, stored: read.stored, slice, samples }))
    }

    /// The lists of a run that may read the sorted list.
    pub(super) fn sorted_or_all<R>(&self, plan: Option<&SortedPlan>) -> (Vec<Scope>, Listing)
    where
        R: Record,
        S: Source<R>,
    {
        match plan {
            Some(plan) => (vec![self.source.slice_scope(plan.slice), Scope::SortedByChange], Listing::Sort),
            None => (vec![Scope::EVERYTHING], Listing::Scan),
        }
    }

    /// Reads the sorted list instead of all records, if it can be read tonight.
    pub(super) async fn sort_instead<R>(
        &self,
        state: &mut ResourceState,
        progress: &mut RunProgress,
    ) -> Result<(), DatabaseError>
    where
        R: Record,
        S: Source<R>,
        T: RecordStore<R>,
    {
        state.sorted = self.plan_sorted_list::<R>(progress).await?;
        if let (scopes, Listing::Sort) = self.sorted_or_all::<R>(state.sorted.as_ref()) {
            state.reader.sort(scopes);
            progress.resource_run().slice = state.sorted.map(|plan| plan.slice);
        }
        Ok(())
    }

    /// The state of the sorted list after a run that came to its end.
    pub(super) fn close_sorted_list(progress: &mut RunProgress) {
        let resource_run = progress.resource_run();
        if let (Some(list), Some(observed_at)) = (resource_run.sorted_list, resource_run.observed_at)
            && list.violation.is_none()
        {
            let is_complete = resource_run.listing == Some(Listing::Sort);
            resource_run.sorted_list =
                Some(if is_complete { list.complete(observed_at) } else { list.scanned(observed_at) });
        }
    }
}
