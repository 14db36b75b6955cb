//! Notices that a table was altered under the sessions that have prepared statements of it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use sea_orm::DbErr;
use tokio::time::Instant;

use super::error::has_stale_plan;

/// When a stale prepared statement was last detected. Older sessions may hold stale statements and are closed. Clones
/// share it.
#[derive(Debug, Clone, Default)]
pub struct StalePlans(Arc<Mutex<Option<Instant>>>);

impl StalePlans {
    /// Records the time if the error reports a stale plan.
    pub fn note(&self, error: &DbErr) {
        if has_stale_plan(error) {
            tracing::info!("table altered; closing sessions with stale prepared statements");
            *self.0.lock() = Some(Instant::now());
        }
    }

    /// Whether a session of this age may hold such statements.
    pub fn outdates(&self, age: Duration) -> bool {
        self.0.lock().is_some_and(|found| found.elapsed() < age)
    }
}
