//! One run, in: what Salla lists; out: what the database now holds. The hot path.

use std::panic::{AssertUnwindSafe, catch_unwind};

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    list_reader::{ListReader, NewRecords, Step},
    missing::{self, TooManyDeleted},
};
use crate::{
    domain::{Covered, Record, RotationWindow, RunStatus, StoredRecord, Unreadable, Verdict, Window, assess},
    reconcile::{
        ports::{
            Batch, Claim, Cursor, Ledger, MerchantContext, PageCommit, PageRequest, PlannedWrite, Source, SourceError,
            Target, TargetError,
        },
        progress::ProgressSender,
        run::resource_runs::RunProgress,
        span,
        walk::WalkError,
    },
};

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    ListWalk(#[from] WalkError),
    #[error(transparent)]
    TooManyDeleted(#[from] TooManyDeleted),
    /// A person asked for it.
    #[error("the run was cancelled")]
    Cancelled,
    /// The process is shutting down; the run can go on elsewhere.
    #[error("the process is shutting down")]
    Stopped,
    /// Others waited, and the run has been given back for them.
    #[error("the run has made way for others")]
    MadeWay,
}

/// What a run works with.
#[derive(Debug)]
pub struct RunContext<'a, S, T> {
    pub claim: &'a Claim,
    /// Of the part that the run is at.
    pub window: Window,
    pub source: &'a S,
    pub target: &'a T,
    /// The part of what is held that may be gone at once.
    pub max_deletion_ratio: f64,
    /// Fetches may be dropped when this is called, commits never.
    pub stop: &'a CancellationToken,
    pub progress: &'a ProgressSender,
}

/// Reads every page and commits what differs; then asks for what no page showed.
pub async fn reconcile<R, S, T>(context: &RunContext<'_, S, T>, progress: &mut RunProgress) -> Result<(), EngineError>
where
    R: Record,
    S: Source<R>,
    T: Target<R> + Ledger,
{
    let resumed = context.claim.resumed.as_ref().filter(|earlier| earlier.cursor.resource == R::RESOURCE);
    let start = match resumed {
        Some(earlier) => (earlier.cursor.clone(), earlier.seen.clone()),
        None => {
            let slice = context.slice::<R>().await?;
            progress.part().slice = slice;
            ListReader::start(R::RESOURCE, context.source.begin(context.window.since, slice), progress.commits_ever)
        }
    };
    let failed_records = if context.claim.has_failed_records {
        context.target.failed_records(context.claim.lease.merchant).await?
    } else {
        Vec::new()
    };
    let mut reader = ListReader::new(start, failed_records, context.claim.now);
    let ended = context.walk::<R>(&mut reader, progress).await;
    match &ended {
        Ok(()) => {
            let RunProgress { parts, at, pending, .. } = progress;
            pending.absorb(&mut parts[*at].totals);
        }
        // What was done counts, whatever ends the run, unless the database is the trouble.
        Err(EngineError::Target(_)) => {}
        Err(_) => {
            if let Some((batch, cursor)) = progress.pending.rest()
                && let Err(error) = context.write::<R>(batch, &cursor, progress).await
            {
                tracing::debug!(error = %error, "the last pages are not committed, and will be read again");
            }
        }
    }
    ended
}

impl<S, T> RunContext<'_, S, T> {
    /// From page to page to the end of the lists, and then to what they do not show.
    async fn walk<R>(&self, reader: &mut ListReader, progress: &mut RunProgress) -> Result<(), EngineError>
    where
        R: Record,
        S: Source<R>,
        T: Target<R> + Ledger,
    {
        loop {
            let (cursor, part) = (reader.cursor(), progress.part());
            part.status = RunStatus::Running;
            part.observed_at = cursor.observed_at;
            part.unidentified = cursor.unidentified;
            part.listing = Some(cursor.listing);
            let Some(request) = reader.next(self.whose()) else {
                return missing::ask(self, reader, progress).instrument(span::of_vanished()).await;
            };
            let settled = self.page(request, reader, progress).instrument(span::of_page(request.number)).await?;
            // A page that is committed is progress: runs that make way for each other come to their ends.
            if settled
                && progress.pending.is_empty()
                && let Some(time_slice) = &mut progress.time_slice
                && time_slice.is_over(self.target, &self.claim.lease).await?
            {
                return Err(EngineError::MadeWay);
            }
        }
    }

    /// The store, as Salla's side has to know it.
    pub fn whose(&self) -> MerchantContext<'_> {
        MerchantContext { merchant: self.claim.lease.merchant, erased: &self.claim.erased }
    }

    /// The part of the older records that is due, where they are read in turns: of a store whose list has been read whole
    /// before, and unless that is asked for.
    async fn slice<R>(&self) -> Result<Option<RotationWindow>, TargetError>
    where
        R: Record,
        S: Source<R>,
        T: Target<R>,
    {
        let known = matches!(self.claim.covered(R::RESOURCE), Covered::UpTo(_));
        if !self.source.supports_rotation() || !known || self.claim.request.full {
            return Ok(None);
        }
        self.target.slice(self.claim.lease.merchant).await
    }

    /// A fetch, which may be dropped.
    pub async fn cancellable<F: Future>(&self, fetch: F) -> Result<F::Output, EngineError> {
        self.stop.run_until_cancelled(fetch).await.ok_or(EngineError::Stopped)
    }

    /// Gets a page and settles it; false: the list is read in another way from here on.
    async fn page<R>(
        &self,
        request: PageRequest<'_>,
        reader: &mut ListReader,
        progress: &mut RunProgress,
    ) -> Result<bool, EngineError>
    where
        R: Record,
        S: Source<R>,
        T: Target<R>,
    {
        let asked_at = Instant::now();
        let page = self.cancellable(self.source.page(request, &progress.requests)).await??;
        self.progress.page(request.whose.merchant, request.number, page.total_pages);
        match reader.admit(page)? {
            Step::Page(admitted) => self.settle((admitted, asked_at), reader, progress).await.map(|()| true),
            Step::Replanned(reason) => {
                tracing::warn!(reason, "the store's list is read in another way");
                Ok(false)
            }
        }
    }

    /// Decides about what a page brought, reads what is incomplete, and commits.
    async fn settle<R>(
        &self,
        (admitted, asked_at): (NewRecords<R>, Instant),
        reader: &ListReader,
        progress: &mut RunProgress,
    ) -> Result<(), EngineError>
    where
        R: Record,
        S: Source<R>,
        T: Target<R>,
    {
        let NewRecords { records, repeats, summaries, unreadable, ids } = admitted;
        let latest = reader.latest_stamp();
        let mut batch = Batch { unreadable, seen: ids, latest, asked_at, ..Batch::default() };
        batch.records = self.assess_all(self.before_until(records), latest, &mut batch.unreadable).await?;
        // Of one that the run has met, a copy that cannot be read tells nothing.
        let repeats = self.assess_all(self.before_until(repeats), latest, &mut Vec::new()).await?;
        batch.records.extend(repeats.into_iter().map(|repeat| PlannedWrite { repeat: true, ..repeat }));
        if !summaries.is_empty() {
            self.look_closer(summaries, &mut batch, (reader, progress)).await?;
        }
        self.read_lines(&mut batch, (reader, progress)).await?;
        self.commit(reader, progress, batch).await
    }

    /// Commits a batch, now or, where nothing of it differs, soon.
    pub async fn commit<R>(
        &self,
        reader: &ListReader,
        progress: &mut RunProgress,
        mut batch: Batch<R>,
    ) -> Result<(), EngineError>
    where
        R: Record,
        T: Target<R>,
    {
        let ids = batch.records.iter().map(|record| record.record.id()).chain(batch.gone.iter().map(|(id, _)| *id));
        batch.recovered = ids.filter(|id| reader.has_failed(*id)).collect();
        let cursor = reader.cursor();
        progress.commits_ever = cursor.commits;
        match progress.pending.take(batch, cursor) {
            Some(batch) => self.write(batch, cursor, progress).await,
            None => match progress.pending.due() {
                Some((batch, cursor)) => self.write::<R>(batch, &cursor, progress).await,
                None => Ok(()),
            },
        }
    }

    async fn write<R>(&self, batch: Batch<R>, cursor: &Cursor, progress: &mut RunProgress) -> Result<(), EngineError>
    where
        R: Record,
        T: Target<R>,
    {
        let commit = PageCommit {
            batch: &batch,
            parts: &progress.parts,
            at: progress.at,
            requests: progress.requests.get(),
            cursor,
            dry_run: self.claim.request.dry_run,
        };
        let committed = self.target.commit(&self.claim.lease, commit).await?;
        progress.part().totals = committed.totals;
        let unreadable = batch.unreadable.iter().chain(&batch.counted_already);
        progress.bad.extend(unreadable.filter_map(|bad| bad.id));
        progress.commits += 1;
        progress.pending.committed();
        if committed.cancel { Err(EngineError::Cancelled) } else { Ok(()) }
    }

    /// What changed after the end that was asked for is left to later runs.
    pub fn before_until<R: Record>(&self, mut records: Vec<R>) -> Vec<R> {
        if let Some(until) = self.claim.request.until {
            records.retain(|record| record.updated_at().is_none_or(|at| at < until));
        }
        records
    }

    /// Reads what is held of the records, in one query, and decides about each. Some turn out to be `unreadable`.
    pub async fn assess_all<R>(
        &self,
        records: Vec<R>,
        latest: Option<DateTime<Utc>>,
        unreadable: &mut Vec<Unreadable>,
    ) -> Result<Vec<PlannedWrite<R>>, TargetError>
    where
        R: Record,
        T: Target<R>,
    {
        let ids: Vec<i64> = records.iter().map(Record::id).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut held = self.target.held(self.claim.lease.merchant, &ids).await?;
        let assess_one = |record: R| {
            let held = held.remove(&record.id());
            match guarded(&record, held.as_ref(), latest) {
                Ok(verdict) => Some(PlannedWrite { verdict, held, record, repeat: false }),
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

/// A defect that one record's content brings out is its own trouble, not the run's.
fn guarded<R: Record>(
    record: &R,
    held: Option<&StoredRecord<R>>,
    latest: Option<DateTime<Utc>>,
) -> Result<Verdict, Unreadable> {
    let reason = || "cannot be compared: the program panicked".to_owned();
    let panicked = |_| Err(Unreadable::skipped(Some(record.id()), "", reason()));
    catch_unwind(AssertUnwindSafe(|| assess(record, held, latest))).unwrap_or_else(panicked)
}
