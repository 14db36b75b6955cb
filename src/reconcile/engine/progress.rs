//! The progress and position of a run.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::{
    EngineError, list_reader::ListReader, pending_commit::PendingCommit, sorted_plan::SortedPlan, time_slice::TimeSlice,
};
use crate::{
    domain::{Listing, Resource, ResourceRun, SortedListResult},
    reconcile::ports::{Cursor, Lease, RequestCount, RunQueue},
};

/// The progress of a run. It is updated with each page, so that it is known at any end.
#[derive(Debug, Default)]
pub struct RunProgress {
    /// One for each kind of record.
    pub resource_runs: Vec<ResourceRun>,
    /// The index of the present resource run.
    pub at: usize,
    /// Requests to Salla.
    pub requests: RequestCount,
    /// Commits since the claim.
    pub commits: u32,
    /// Commits since the run began.
    pub commits_ever: u32,
    /// The time slice of the run; `None`: unlimited.
    pub time_slice: Option<TimeSlice>,
    /// Pages that are not committed yet.
    pub pending: PendingCommit,
    /// The results of sorted lists since the claim.
    pub sorted_lists: Vec<SortedListResult>,
    /// The number of late records since the claim.
    pub late_records: HashMap<Resource, u64>,
}

impl RunProgress {
    /// The present resource run.
    pub fn resource_run(&mut self) -> &mut ResourceRun {
        &mut self.resource_runs[self.at]
    }

    /// Shows where the lists are read.
    pub fn note_position(&mut self, cursor: &Cursor) {
        let resource_run = self.resource_run();
        resource_run.observed_at = cursor.observed_at;
        resource_run.unidentified = cursor.unidentified;
        resource_run.listing = Some(cursor.listing);
    }

    /// Requeues the run if its time slice is used up and others wait. Only after a commit: each slice makes progress.
    pub async fn yield_if_due(&mut self, queue: &impl RunQueue, lease: &Lease) -> Result<(), EngineError> {
        if self.pending.is_empty()
            && let Some(time_slice) = &mut self.time_slice
            && time_slice.is_over(queue, lease).await?
        {
            return Err(EngineError::Yielded);
        }
        Ok(())
    }
}

/// One kind of record while it is reconciled.
#[derive(Debug)]
pub struct ResourceState {
    /// The way through the lists.
    pub reader: ListReader,
    /// The requests of the run.
    pub requests: RequestCount,
    /// Records that this run could not read.
    pub unreadable: HashSet<i64>,
    /// Failed records that are left to the next run.
    pub deferred: usize,
    /// How the list can be read sorted by time of change; `None`: it cannot.
    pub sorted: Option<SortedPlan>,
}

impl ResourceState {
    /// Nothing has been read.
    pub fn new(reader: ListReader, requests: RequestCount) -> Self {
        Self { reader, requests, unreadable: HashSet::new(), deferred: 0, sorted: None }
    }

    /// The start of the changes that the lists show; `since`: the start of the window.
    pub fn changes_since(&self, since: DateTime<Utc>) -> DateTime<Utc> {
        let is_sorted = self.reader.cursor().listing == Listing::Sort;
        self.sorted.as_ref().filter(|_| is_sorted).map_or(since, |plan| plan.threshold)
    }

    /// Some records that are probably readable: lists showed them, and neither this run nor an earlier one found them
    /// unreadable. They tell whether an error concerns `ids` alone or the whole merchant.
    pub fn controls(&self, ids: &[i64]) -> Vec<i64> {
        self.reader.controls(ids, &self.unreadable)
    }
}
