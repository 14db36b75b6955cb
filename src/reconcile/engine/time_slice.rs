//! The time slice of a run while others wait.

use std::time::Duration;

use tokio::time::Instant;

use crate::reconcile::ports::{DatabaseError, Lease, RunQueue};

/// While no other run waits, the queue is looked at again after at most this long.
const NEXT_LOOK: Duration = Duration::from_secs(10);

/// A run's turn.
#[derive(Debug)]
pub struct TimeSlice {
    slice: Duration,
    next_look: Instant,
}

impl TimeSlice {
    /// Begins one.
    pub fn begin(slice: Duration) -> Self {
        Self { slice, next_look: Instant::now() + slice }
    }

    /// Whether the run was requeued, because its time slice is used up and others wait.
    pub async fn is_over(&mut self, queue: &impl RunQueue, lease: &Lease) -> Result<bool, DatabaseError> {
        if Instant::now() < self.next_look {
            return Ok(false);
        }
        let over = queue.yield_run(lease).await?;
        self.next_look = Instant::now() + self.slice.min(NEXT_LOOK);
        Ok(over)
    }
}
