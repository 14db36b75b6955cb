//! Commits pages: at once, or a moment later where nothing on them differs.

use super::{EngineError, ResourceState, RunContext, RunProgress};
use crate::{
    domain::Record,
    reconcile::ports::{Batch, Cursor, PageCommit, RecordStore},
};

impl<S, T> RunContext<'_, S, T> {
    /// Commits a batch now or, where nothing of it differs, soon.
    pub(super) async fn commit<R>(
        &self,
        mut batch: Batch<R>,
        state: &mut ResourceState,
        progress: &mut RunProgress,
    ) -> Result<(), EngineError>
    where
        R: Record,
        T: RecordStore<R>,
    {
        let ids = batch.records.iter().map(|record| record.record.id()).chain(batch.deleted.iter().map(|(id, _)| *id));
        batch.recovered = ids.filter(|id| state.reader.has_failed(*id)).collect();
        let unreadable = batch.unreadable.iter().chain(&batch.counted_already);
        state.unreadable.extend(unreadable.filter_map(|bad| bad.id));
        self.note_late_records(&batch, state, progress);
        let cursor = state.reader.cursor();
        progress.commits_ever = cursor.commits;
        match progress.pending.take(batch, cursor) {
            Some(batch) => self.write(batch, cursor, progress).await,
            None => match progress.pending.due() {
                Some((batch, cursor)) => self.write::<R>(batch, &cursor, progress).await,
                None => Ok(()),
            },
        }
    }

    /// Commits or counts the pages that wait at the end of a kind of record; `error`: what ended it. Fails only when a
    /// person cancelled the run: that is a better reason for its end than `error`.
    pub(super) async fn commit_rest<R>(
        &self,
        error: Option<&EngineError>,
        progress: &mut RunProgress,
    ) -> Result<(), EngineError>
    where
        R: Record,
        T: RecordStore<R>,
    {
        match error {
            None => {
                let RunProgress { resource_runs, at, pending, .. } = progress;
                pending.absorb(&mut resource_runs[*at].totals);
            }
            // Nothing can be written now.
            Some(EngineError::Database(_)) => {}
            Some(_) => {
                if let Some((batch, cursor)) = progress.pending.rest() {
                    match self.write::<R>(batch, &cursor, progress).await {
                        Err(EngineError::Cancelled) => return Err(EngineError::Cancelled),
                        Err(error) => {
                            tracing::debug!(error = %error, "the last pages are not committed, and are read again");
                        }
                        Ok(()) => {}
                    }
                }
            }
        }
        Ok(())
    }

    async fn write<R>(&self, batch: Batch<R>, cursor: &Cursor, progress: &mut RunProgress) -> Result<(), EngineError>
    where
        R: Record,
        T: RecordStore<R>,
    {
        let commit = PageCommit {
            batch: &batch,
            resource_runs: &progress.resource_runs,
            at: progress.at,
            requests: progress.requests.get(),
            cursor,
            dry_run: self.claim.request.dry_run,
            backfill: self.claim.backfill(R::RESOURCE),
        };
        let committed = self.records.commit(&self.claim.lease, commit).await?;
        progress.resource_run().totals = committed.totals;
        progress.commits += 1;
        progress.pending.committed();
        if committed.cancel { Err(EngineError::Cancelled) } else { Ok(()) }
    }
}
