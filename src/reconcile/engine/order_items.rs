//! The lines of orders that are new or have changed: a request more for each.

use super::{
    list_reader::ListReader,
    run_context::{EngineError, RunContext},
};
use crate::{
    domain::{Record, Unreadable, Verdict},
    reconcile::{
        ports::{Batch, PlannedWrite, Source},
        run::resource_runs::RunProgress,
    },
};

impl<S, T> RunContext<'_, S, T> {
    /// Reads the lines of those records that are held without, or with those of another version. One whose lines cannot be
    /// had is not written without them: it is skipped, and tried again.
    pub async fn read_lines<R>(
        &self,
        batch: &mut Batch<R>,
        (reader, progress): (&ListReader, &RunProgress),
    ) -> Result<(), EngineError>
    where
        R: Record,
        S: Source<R>,
    {
        if !self.source.has_lines() || self.claim.request.dry_run {
            return Ok(());
        }
        let wanting: Vec<i64> =
            batch.records.iter().filter(|one| wants_lines(one)).map(|one| one.record.id()).collect();
        let whose = self.whose();
        let read = |id, suspect| self.source.lines(whose, (id, suspect), &progress.requests);
        let lines = self.each(&wanting, (reader, progress), read).await?;
        for (id, lines) in wanting.into_iter().zip(lines) {
            let bad = match lines {
                Some(Ok(lines)) => {
                    batch.lines.insert(id, lines);
                    continue;
                }
                Some(Err(bad)) => bad,
                None => Unreadable::skipped(Some(id), "items", "are gone"),
            };
            batch.records.retain(|one| one.record.id() != id);
            batch.checked.retain(|checked| checked.summary.id != id);
            batch.unreadable.push(bad);
        }
        Ok(())
    }
}

/// What is held may be newer than what was read; its lines are not these.
fn wants_lines<R: Record>(one: &PlannedWrite<R>) -> bool {
    let Some(held) = &one.held else {
        return true;
    };
    let ours_is_newer = one.verdict == Verdict::Unchanged && held.updated_at > one.record.updated_at();
    !ours_is_newer && held.lines_of != one.record.updated_at()
}
