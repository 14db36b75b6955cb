//! The items of orders that are new or have changed: one request more for each.

use super::{EngineError, ResourceState, RunContext};
use crate::{
    domain::{Decision, Record, Unreadable},
    reconcile::ports::{AssessedRecord, Batch, Source},
};

impl<S, T> RunContext<'_, S, T> {
    /// Reads the items of the records that are stored without them, or with those of another version. A record whose items
    /// cannot be read is not written without them: it is skipped, and retried by the next run.
    pub(super) async fn read_items<R>(&self, batch: &mut Batch<R>, state: &ResourceState) -> Result<(), EngineError>
    where
        R: Record,
        S: Source<R>,
    {
        if !self.source.has_items() || self.claim.request.dry_run {
            return Ok(());
        }
        let needed: Vec<i64> = batch.records.iter().filter(|one| needs_items(one)).map(|one| one.record.id()).collect();
        let merchant = self.merchant();
        let read = |id, suspect| self.source.lines(merchant, id, suspect, &state.requests);
        let items = self.each(&needed, state, read).await?;
        for (id, items) in needed.into_iter().zip(items) {
            let bad = match items {
                Some(Ok(items)) => {
                    batch.items.insert(id, items);
                    continue;
                }
                Some(Err(bad)) => bad,
                None => Unreadable::skipped(Some(id), "items", "are gone"),
            };
            batch.records.retain(|one| one.record.id() != id);
            batch.checked.retain(|checked| checked.id != id);
            batch.unreadable.push(bad);
        }
        Ok(())
    }
}

/// The stored record may be newer than the one that was read, whose items these are not.
fn needs_items<R: Record>(one: &AssessedRecord<R>) -> bool {
    let Some(stored) = &one.stored else {
        return true;
    };
    let is_newer_locally = one.decision == Decision::NewerLocally
        || one.decision == Decision::Unchanged && stored.updated_at > one.record.updated_at();
    !is_newer_locally && stored.items_version != one.record.updated_at()
}
