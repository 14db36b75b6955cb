//! The loop over the pages of the lists: fetch, look up and compare, read details, commit.

use tokio::time::Instant;
use tracing::Instrument;

use super::{EngineError, ResourceState, RunContext, RunProgress, missing};
use crate::{
    domain::Record,
    reconcile::{
        ports::{PageRequest, RecordStore, RunQueue, Source},
        span,
    },
};

impl<S, T> RunContext<'_, S, T> {
    /// Reads the lists page by page to their ends, and then asks for the records that no page showed.
    pub(super) async fn read_lists<R>(
        &self,
        state: &mut ResourceState,
        progress: &mut RunProgress,
    ) -> Result<(), EngineError>
    where
        R: Record,
        S: Source<R>,
        T: RecordStore<R> + RunQueue,
    {
        loop {
            if state.reader.is_at_sorted_list() {
                self.read_sorted_list::<R>(state, progress).await?;
            } else if let Some(request) = state.reader.next(self.merchant()) {
                let page = span::of_page(request.number);
                self.reconcile_page(request, state, progress).instrument(page).await?;
            } else if self.confirm_sorted_list::<R>(state, progress).await? {
                break;
            }
        }
        missing::check(self, state, progress).instrument(span::of_missing()).await
    }

    /// One page: fetch it, look its records up and decide, read details, commit.
    async fn reconcile_page<R>(
        &self,
        request: PageRequest<'_>,
        state: &mut ResourceState,
        progress: &mut RunProgress,
    ) -> Result<(), EngineError>
    where
        R: Record,
        S: Source<R>,
        T: RecordStore<R> + RunQueue,
    {
        let asked_at = Instant::now();
        let page = self.fetch(request, progress).await?;
        let is_filtered = page.out_of_scope.is_none();
        let admitted = state.reader.admit(page)?;
        if !is_filtered {
            self.sort_instead::<R>(state, progress).await?;
        }
        progress.note_position(state.reader.cursor());
        let Some(records) = admitted else {
            return Ok(());
        };
        let (mut batch, summaries) = self.assess_page(records, &state.reader, asked_at).await?;
        self.read_details(summaries, &mut batch, state).await?;
        let missed = state.missed_changes(&batch.records, self.recent_since(state));
        state.reader.note_missed_changes(&missed);
        self.read_items(&mut batch, state).await?;
        self.commit(batch, state, progress).await?;
        progress.yield_if_due(self.records, &self.claim.lease).await
    }
}
