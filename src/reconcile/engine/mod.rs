//! One kind of record of one run: from what Salla lists to what the database holds. The hot path.

mod assess;
mod commit;
mod details;
mod late_records;
mod list_reader;
mod missing;
mod order_items;
mod pending_commit;
mod progress;
mod read_lists;
mod samples;
mod sorted_list;
mod sorted_plan;
mod time_slice;

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use self::{list_reader::ListReader, missing::TooManyDeleted, pending_commit::PendingCommit};
use super::{
    ports::{Claim, DatabaseError, MerchantContext, Page, PageRequest, RecordStore, RunQueue, Source, SourceError},
    progress::ProgressSender,
    walk::WalkError,
};
use crate::domain::{Covered, DetailCheckNights, Listing, Record, RotationPace, RotationWindow, RunStatus, Window};

pub use self::{
    progress::{ResourceState, RunProgress},
    time_slice::TimeSlice,
};

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    ListWalk(#[from] WalkError),
    #[error(transparent)]
    TooManyDeleted(#[from] TooManyDeleted),
    /// A person asked for it.
    #[error("the run was cancelled")]
    Cancelled,
    /// The process is shutting down; the run can continue in another process.
    #[error("the process is shutting down")]
    Stopped,
    /// The time slice is used up, and the run was requeued because others wait.
    #[error("the time slice is used up")]
    Yielded,
}

/// What a run works with.
#[derive(Debug)]
pub struct RunContext<'a, S, T> {
    pub claim: &'a Claim,
    /// The window of the kind of record that is reconciled.
    pub window: Window,
    pub source: &'a S,
    pub records: &'a T,
    /// The share of the stored records that may be marked deleted by one run.
    pub max_deletion_ratio: f64,
    /// Salla shows changes this late.
    pub overlap: TimeDelta,
    /// Within how many nights all details are read.
    pub detail_checks: DetailCheckNights,
    /// Fetches may be dropped when this is called, commits never.
    pub stop: &'a CancellationToken,
    pub reporter: &'a ProgressSender,
}

/// Reconciles one kind of record. Returns how many failed records were deferred to the next run.
pub async fn reconcile<R, S, T>(
    context: &RunContext<'_, S, T>,
    progress: &mut RunProgress,
) -> Result<usize, EngineError>
where
    R: Record,
    S: Source<R>,
    T: RecordStore<R> + RunQueue,
{
    let mut state = context.begin::<R>(progress).await?;
    let ended = context.read_lists::<R>(&mut state, progress).await;
    context.commit_rest::<R>(ended.as_ref().err(), progress).await?;
    if ended.is_ok() {
        RunContext::<S, T>::close_sorted_list(progress);
    }
    ended.map(|()| state.deferred)
}

impl<S, T> RunContext<'_, S, T> {
    /// The start position in the lists, or the position after a crash.
    async fn begin<R>(&self, progress: &mut RunProgress) -> Result<ResourceState, EngineError>
    where
        R: Record,
        S: Source<R>,
        T: RecordStore<R>,
    {
        let resumed = self.claim.resumed.as_ref().filter(|earlier| earlier.cursor.resource == R::RESOURCE);
        let mut sorted = None;
        let (cursor, seen) = match resumed {
            Some(earlier) => {
                if earlier.cursor.listing == Listing::Sort {
                    sorted = self.plan_sorted_list::<R>(progress).await?;
                }
                (earlier.cursor.clone(), earlier.seen.clone())
            }
            None => {
                let slice = self.rotation_window::<R>().await?;
                progress.resource_run().slice = slice;
                let (mut scopes, mut listing) = self.source.begin(self.window.since, slice);
                if listing == Listing::Sort {
                    sorted = self.plan_sorted_list::<R>(progress).await?;
                    (scopes, listing) = self.sorted_or_all::<R>(sorted.as_ref());
                    progress.resource_run().slice = sorted.map(|plan| plan.slice);
                }
                ListReader::start(R::RESOURCE, scopes, listing, progress.commits_ever)
            }
        };
        let failed_records = if self.claim.has_failed_records {
            self.records.failed_records(self.claim.lease.merchant).await?
        } else {
            Vec::new()
        };
        let reader = ListReader::new(cursor, seen, failed_records, self.claim.now);
        // A resource run that panicked may have left its pages behind.
        progress.pending = PendingCommit::default();
        progress.resource_run().status = RunStatus::Running;
        progress.note_position(reader.cursor());
        Ok(ResourceState { sorted, ..ResourceState::new(reader, progress.requests.clone()) })
    }

    async fn fetch<R>(&self, request: PageRequest<'_>, progress: &RunProgress) -> Result<Page<R>, EngineError>
    where
        R: Record,
        S: Source<R>,
    {
        let page = self.cancellable(self.source.page(request, &progress.requests)).await??;
        self.reporter.page(request.whose.merchant, request.number, page.total_pages);
        Ok(page)
    }

    /// The merchant, as Salla's side has to know it.
    fn merchant(&self) -> MerchantContext<'_> {
        MerchantContext { merchant: self.claim.lease.merchant, erased: &self.claim.erased }
    }

    /// The part of the older records that is due, of a merchant whose list has been read to its end before. A full run
    /// reads all.
    async fn rotation_window<R>(&self) -> Result<Option<RotationWindow>, DatabaseError>
    where
        R: Record,
        S: Source<R>,
        T: RecordStore<R>,
    {
        let is_known = matches!(self.claim.covered(R::RESOURCE), Covered::UpTo(_));
        if !self.source.supports_rotation() || !is_known || self.claim.request.full {
            return Ok(None);
        }
        self.records.slice(self.claim.lease.merchant, RotationPace::ROTATION).await
    }

    /// A fetch, which may be dropped.
    async fn cancellable<F: Future>(&self, fetch: F) -> Result<F::Output, EngineError> {
        self.stop.run_until_cancelled(fetch).await.ok_or(EngineError::Stopped)
    }
}
