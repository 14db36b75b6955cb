//! What many runs came to: one log line for a firing's worth of them.

use std::collections::HashMap;

use tokio::time::Instant;

use super::runner::Ended;
use crate::domain::{RunStatus, Totals};

/// The runs that ended since this was begun.
#[derive(Debug, Default)]
pub struct Sweep {
    runs: u64,
    by_status: HashMap<RunStatus, u64>,
    totals: Totals,
    began: Option<Instant>,
}

impl Sweep {
    /// The first run begins.
    pub fn begin(&mut self) {
        self.began.get_or_insert_with(Instant::now);
    }

    /// A run ended, or left.
    pub fn add(&mut self, ended: &Ended) {
        match ended {
            Ended::Run(run) => {
                self.runs += 1;
                *self.by_status.entry(run.status).or_default() += 1;
                self.totals += run.totals;
            }
            Ended::Unrecorded { .. } => {
                self.runs += 1;
                *self.by_status.entry(RunStatus::Failed).or_default() += 1;
            }
            Ended::Elsewhere(_) => {}
        }
    }

    /// Writes the line, if there is anything to say, and begins anew.
    pub fn report(&mut self) {
        if self.runs > 0 {
            let of = |status| self.by_status.get(&status).copied().unwrap_or(0);
            let took = self.began.map_or(0, |began| began.elapsed().as_millis());
            tracing::info!(
                sweep.runs = self.runs,
                sweep.succeeded = of(RunStatus::Succeeded),
                sweep.partial = of(RunStatus::Partial),
                sweep.failed = of(RunStatus::Failed),
                sweep.cancelled = of(RunStatus::Cancelled),
                fetched = self.totals.fetched,
                created = self.totals.created,
                updated = self.totals.updated,
                unchanged = self.totals.unchanged,
                skipped = self.totals.skipped,
                failed = self.totals.failed,
                duration_ms = u64::try_from(took).unwrap_or(u64::MAX),
                "sweep ended"
            );
        }
        *self = Self::default();
    }
}
