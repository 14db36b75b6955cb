//! Notices that the database could not write to its disk.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use sea_orm::DbErr;
use tokio::time::Instant;

use super::error::is_disk_failure;

/// A failure counts for this long: runs that could not be written are tried again sooner.
const REMEMBERED_FOR: Duration = Duration::from_secs(30);

/// When the disk last failed. To read still works then. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct DiskFailure(Arc<Mutex<Option<Instant>>>);

impl DiskFailure {
    /// Records the time if the error reports a disk that is full or broken.
    pub fn note(&self, error: &DbErr) {
        if is_disk_failure(error) {
            *self.0.lock() = Some(Instant::now());
        }
    }

    /// How long ago the disk failed, if that was a moment ago.
    pub fn recent(&self) -> Option<Duration> {
        self.0.lock().map(|failed| failed.elapsed()).filter(|ago| *ago < REMEMBERED_FOR)
    }
}
