//! The waits of runs of this process that the database cannot record.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;

use crate::domain::{Run, RunId, RunStatus, Wait, Waiting};

/// An entry is shown for this long after its wait: by then the run was released, or its lease lapsed.
const SHOWN_AFTER: TimeDelta = TimeDelta::seconds(60);

/// The waits that are not on record, by run. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct UnrecordedWaits(Arc<Mutex<HashMap<RunId, Waiting>>>);

impl UnrecordedWaits {
    /// Notes that a run waits, or that the database knows about it.
    pub fn note(&self, run: RunId, wait: Option<(&Wait, Duration)>, is_recorded: bool) {
        let (mut waits, now) = (self.0.lock(), Utc::now());
        waits.retain(|_, wait| is_current(wait.until, now));
        let Some((wait, pause)) = wait.filter(|_| !is_recorded) else {
            waits.remove(&run);
            return;
        };
        let until = now + TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
        let attempts = 1;
        waits.insert(run, Waiting { reason: wait.reason, message: wait.message.clone(), until, attempts });
    }

    /// Adds them to runs that this process read.
    pub fn show(&self, runs: &mut [Run]) {
        let (waits, now) = (self.0.lock(), Utc::now());
        for run in runs.iter_mut().filter(|run| run.status == RunStatus::Running && run.waiting.is_none()) {
            run.waiting = waits.get(&run.run_id).filter(|wait| is_current(wait.until, now)).cloned();
        }
    }
}

fn is_current(until: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    until.checked_add_signed(SHOWN_AFTER).is_none_or(|end| now < end)
}
