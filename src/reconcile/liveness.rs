//! Whether the process makes progress: every loop turns, and no task has ended early.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// A call to a database that does not answer ends long before this.
const ALIVE_FOR: Duration = Duration::from_secs(300);

/// The background tasks, as probes look at them. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Liveness {
    /// The loop that claims runs.
    pub worker: Heartbeat,
    /// The loop that looks at the schedule.
    pub schedule: Heartbeat,
    /// The loop that renews leases.
    pub heartbeat: Heartbeat,
    failure: Arc<Mutex<Option<String>>>,
}

impl Liveness {
    /// A task has ended before its time.
    pub fn fail(&self, message: &str) {
        *self.failure.lock() = Some(message.to_owned());
    }

    /// Which task has ended before its time.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// The reason to restart the process; `None`: it makes progress.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let loops =
            [("the worker", &self.worker), ("the schedule", &self.schedule), ("the heartbeat", &self.heartbeat)];
        let silent = loops.into_iter().find(|(_, pulse)| !pulse.is_alive());
        self.failure().or_else(|| silent.map(|(name, _)| format!("{name} has not moved for five minutes")))
    }
}

/// The loop's last turn. Clones share it.
#[derive(Debug, Clone)]
pub struct Heartbeat(Arc<Mutex<Instant>>);

impl Default for Heartbeat {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Heartbeat {
    /// The loop has turned.
    pub fn beat(&self) {
        *self.0.lock() = Instant::now();
    }

    /// It has turned within the last five minutes.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.0.lock().elapsed() < ALIVE_FOR
    }
}
