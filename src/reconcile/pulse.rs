//! Whether the worker's loop still turns.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// A call to a database that does not answer ends long before this.
const ALIVE_FOR: Duration = Duration::from_secs(300);

/// The loop's last turn. Clones share it.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Mutex<Instant>>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Pulse {
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
