//! Notices that a table was altered under the sessions that have prepared statements of it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use sea_orm::DbErr;
use tokio::time::Instant;

use super::error::has_stale_plan;

/// When a statement was last found to be of a table that has been altered since. Sessions that are older than that have
/// prepared such statements, and are closed. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Altered(Arc<Mutex<Option<Instant>>>);

impl Altered {
    /// Takes note of an error that says so.
    pub fn note(&self, error: &DbErr) {
        if has_stale_plan(error) {
            tracing::info!("a table was altered; sessions with statements of the old one are closed");
            *self.0.lock() = Some(Instant::now());
        }
    }

    /// Whether a session of this age may hold such statements.
    pub fn outdates(&self, age: Duration) -> bool {
        self.0.lock().is_some_and(|found| found.elapsed() < age)
    }
}
