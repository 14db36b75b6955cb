//! Pages on which nothing differs. Only the progress of the run must be written for them. That can
//! wait for a moment, or for the next page that has more to write. A process that takes over the
//! run reads these pages again.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    domain::{Outcome, Record, Totals},
    reconcile::ports::{Batch, Cursor, Seen},
};

/// How often a run commits at least. At the rate that Salla permits, this is every page.
const COMMIT_EVERY: Duration = Duration::from_millis(250);

/// The progress since the last commit, which is not committed yet. It contains no difference.
#[derive(Debug)]
pub struct PendingCommit {
    committed_at: Instant,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    cursor: Cursor,
    seen: Seen,
    unchanged: u64,
}

impl Default for PendingCommit {
    fn default() -> Self {
        Self { committed_at: Instant::now(), waiting: None }
    }
}

impl PendingCommit {
    /// Whether everything is committed.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_none()
    }

    /// Absorbs a batch without differences, with the `cursor` behind it; returns a batch that
    /// something does, with what has waited before it.
    pub fn take<R: Record>(&mut self, batch: Batch<R>, cursor: &Cursor) -> Option<Batch<R>> {
        if batch.is_unchanged() {
            let waiting =
                self.waiting.get_or_insert_with(|| Waiting { cursor: cursor.clone(), seen: Seen::new(), unchanged: 0 });
            waiting.cursor = cursor.clone();
            waiting.unchanged += batch.unchanged();
            append(&mut waiting.seen, batch.seen);
            return None;
        }
        Some(self.before(batch))
    }

    /// The waiting pages as a batch, with the cursor behind them, if they must be committed by now.
    pub fn due<R: Record>(&mut self) -> Option<(Batch<R>, Cursor)> {
        if self.committed_at.elapsed() < COMMIT_EVERY { None } else { self.rest() }
    }

    /// The waiting pages as a batch, with the cursor behind them.
    pub fn rest<R: Record>(&mut self) -> Option<(Batch<R>, Cursor)> {
        let Waiting { cursor, seen, unchanged } = self.waiting.take()?;
        Some((Batch { seen, unchanged, ..Batch::default() }, cursor))
    }

    /// Counts what waits at the end of a part: where the run stands there is of no use any more.
    pub fn absorb(&mut self, totals: &mut Totals) {
        if let Some(waiting) = self.waiting.take() {
            (0..waiting.unchanged).for_each(|_| totals.count(Outcome::Unchanged));
        }
    }

    /// Notes a commit.
    pub fn committed(&mut self) {
        self.committed_at = Instant::now();
    }

    fn before<R: Record>(&mut self, mut batch: Batch<R>) -> Batch<R> {
        if let Some(Waiting { mut seen, unchanged, .. }) = self.waiting.take() {
            append(&mut seen, std::mem::take(&mut batch.seen));
            batch.seen = seen;
            batch.unchanged += unchanged;
        }
        batch
    }
}

/// Ids of the pass that the last ones were of are put to them.
fn append(seen: &mut Seen, more: Seen) {
    for (pass, ids) in more {
        match seen.last_mut() {
            Some((last, known)) if *last == pass => known.extend(ids),
            _ => seen.push((pass, ids)),
        }
    }
}
