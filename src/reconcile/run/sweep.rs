//! What many runs came to, in one log line.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::{
    domain::{RunStatus, Totals},
    reconcile::{ports::ScheduleStore, progress::Ended},
};

/// Logs the sweeps whose last run has ended, in any process. Each is logged once.
pub async fn tell(queue: &impl ScheduleStore) {
    let sweeps = match queue.ended_sweeps().await {
        Ok(sweeps) => sweeps,
        Err(error) => {
            tracing::warn!(error = %error, "ended sweeps could not be determined");
            return;
        }
    };
    for ended in sweeps {
        let mut sweep = Sweep::default();
        for (status, runs, totals) in ended.runs {
            sweep.count(status, runs, totals);
        }
        let scheduled_for = ended.scheduled_for.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        sweep.report(Some(&scheduled_for), ended.took);
    }
}

/// Runs, added up.
#[derive(Debug, Default)]
pub struct Sweep {
    by_status: HashMap<RunStatus, u64>,
    totals: Totals,
}

impl Sweep {
    /// Sums up the foreground runs that began at `began`, and logs one line.
    pub fn log(ended: &[Ended], began: Instant) {
        let mut sweep = Self::default();
        for ended in ended {
            match ended {
                Ended::Run(run) => sweep.count(run.status, 1, run.totals),
                Ended::Unrecorded { .. } => sweep.count(RunStatus::Failed, 1, Totals::default()),
                Ended::Elsewhere(_) => {}
            }
        }
        sweep.report(None, began.elapsed());
    }

    fn count(&mut self, status: RunStatus, runs: u64, totals: Totals) {
        *self.by_status.entry(status).or_default() += runs;
        self.totals += totals;
    }

    fn report(&self, scheduled_for: Option<&str>, took: Duration) {
        let of = |status| self.by_status.get(&status).copied().unwrap_or(0);
        tracing::info!(
            schedule.scheduled_for = scheduled_for,
            sweep.runs = self.by_status.values().sum::<u64>(),
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
            backfilled = self.totals.backfilled_total(),
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "sweep ended"
        );
    }
}
