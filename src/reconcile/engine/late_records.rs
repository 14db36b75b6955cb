//! Records that Salla showed late: their changes are older than what an earlier run covered. They contradict the
//! assumption that a list shows a change soon. `docs/explanation/guarantees.md` has the assumptions.

use super::{ResourceState, RunContext, RunProgress};
use crate::{
    domain::{Covered, Decision, Listing, Record, SETTLING},
    reconcile::ports::{AssessedRecord, Batch},
};

impl<S, T> RunContext<'_, S, T> {
    /// Counts and logs the late records of a batch.
    pub(super) fn note_late_records<R: Record>(
        &self,
        batch: &Batch<R>,
        state: &ResourceState,
        progress: &mut RunProgress,
    ) {
        let Covered::UpTo(watermark) = self.claim.covered(R::RESOURCE) else { return };
        let settled_until = watermark - SETTLING;
        // The rows of other lists do not show every change. A later night finds it in the details.
        let shows_changes = state.reader.cursor().listing == Listing::Filter;
        let is_late = |one: &&AssessedRecord<R>| {
            let changed = one.record.updated_at();
            let is_new = match &one.decision {
                Decision::Create => true,
                Decision::Update { .. } => {
                    let stored = one.stored.as_ref().and_then(|stored| stored.updated_at);
                    shows_changes && stored.is_some() && stored < changed
                }
                _ => false,
            };
            let is_covered = changed.is_some_and(|changed| changed < settled_until);
            is_new && is_covered && !one.repeat && !state.reader.has_failed(one.record.id())
        };
        let late: Vec<i64> = batch.records.iter().filter(is_late).map(|one| one.record.id()).collect();
        if late.is_empty() || self.claim.request.dry_run {
            return;
        }
        tracing::warn!(
            records = late.len(),
            salla.ids = ?late,
            %watermark,
            "{} changed before the watermark, and no earlier run found the changes",
            R::RESOURCE
        );
        *progress.late_records.entry(R::RESOURCE).or_default() += late.len() as u64;
    }
}
