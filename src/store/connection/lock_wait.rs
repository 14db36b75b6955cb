//! Notices that another process holds the lock of SQLite.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// A wait counts for this long: calls try the lock again within half a second.
const REMEMBERED_FOR: Duration = Duration::from_secs(2);

/// For how long calls have found the lock taken. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct LockWait(Arc<Mutex<Option<Taken>>>);

#[derive(Debug, Clone, Copy)]
struct Taken {
    since: Instant,
    last: Instant,
}

impl LockWait {
    /// Records that the lock is taken now. No call got it since the last note.
    pub fn note(&self) {
        let now = Instant::now();
        let mut taken = self.0.lock();
        *taken = Some(Taken { since: taken.map_or(now, |taken| taken.since), last: now });
    }

    /// Records that a call got the lock.
    pub fn end(&self) {
        *self.0.lock() = None;
    }

    /// For how long the lock has been taken; `None`: it was not taken a moment ago.
    pub fn lasted(&self) -> Option<Duration> {
        let taken = self.0.lock().filter(|taken| taken.last.elapsed() < REMEMBERED_FOR)?;
        Some(taken.since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_lasts_until_a_call_gets_the_lock() {
        let wait = LockWait::default();
        assert_eq!(wait.lasted(), None);
        for _ in 0..40 {
            wait.note();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(wait.lasted(), Some(Duration::from_secs(40)));
        wait.end();
        assert_eq!(wait.lasted(), None);
        wait.note();
        assert_eq!(wait.lasted(), Some(Duration::ZERO));
        tokio::time::advance(REMEMBERED_FOR).await;
        assert_eq!(wait.lasted(), None, "calls try again within half a second");
    }
}
