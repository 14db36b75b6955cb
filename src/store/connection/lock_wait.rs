//! Notices that another process holds the lock of SQLite.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// A wait counts for this long: calls try the lock again within half a second.
const REMEMBERED_FOR: Duration = Duration::from_secs(2);

/// When a call last found the lock taken. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct LockWait(Arc<Mutex<Option<Instant>>>);

impl LockWait {
    /// Records that the lock is taken now.
    pub fn note(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Whether the lock was taken a moment ago.
    pub fn is_recent(&self) -> bool {
        self.0.lock().is_some_and(|taken| taken.elapsed() < REMEMBERED_FOR)
    }
}
