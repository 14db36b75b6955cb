//! The position in the queue up to which this process has claimed runs.
//!
//! PostgreSQL leaves an entry in the index for each claimed run, until the table is vacuumed. A
//! claim that looks for the first due run steps over all these entries. A sweep leaves one for each
//! merchant. So a claim starts at the key of the last claimed run. It starts at the beginning of
//! the queue only now and then.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use sea_orm::QueryResult;
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use crate::store::connection::stamp::instant;

/// Runs that other processes released before it, or left when they died, are seen by then.
const LOOK_BACK: Duration = Duration::from_secs(1);

/// The key of a run in the queue, as in the index `runs_due`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueKey {
    pub priority: i64,
    pub scheduled_at: DateTime<Utc>,
    pub watermark_at_enqueue: DateTime<Utc>,
    pub id: Uuid,
}

impl QueueKey {
    /// The key of a row of `runs`; `None`: the row is not in the queue.
    pub fn of(row: &QueryResult) -> Option<Self> {
        Some(Self {
            priority: row.try_get("", "priority").ok()?,
            scheduled_at: instant(row, "scheduled_at")?,
            watermark_at_enqueue: instant(row, "watermark_at_enqueue")?,
            id: row.try_get("", "id").ok()?,
        })
    }

    /// The highest priority first, then the earliest.
    fn is_behind(&self, other: &Self) -> bool {
        let key = |key: &Self| (-key.priority, key.scheduled_at, key.watermark_at_enqueue, key.id);
        key(self) > key(other)
    }
}

/// The key of the last claimed run, for a short time. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct QueuePosition(Arc<Mutex<Option<LastClaim>>>);

#[derive(Debug, Clone, Copy)]
struct LastClaim {
    key: QueueKey,
    claimed_all_at: Instant,
}

impl QueuePosition {
    /// The key after which a claim looks; `None`: it looks from the beginning of the queue.
    pub fn key(&self) -> Option<QueueKey> {
        self.0
            .lock()
            .filter(|last_claim| last_claim.claimed_all_at.elapsed() < LOOK_BACK)
            .map(|last_claim| last_claim.key)
    }

    /// Notes the runs of a claim that looked from the beginning.
    pub fn begin(&self, claimed: &[QueueKey]) {
        let last = claimed.iter().copied().reduce(|last, key| if key.is_behind(&last) { key } else { last });
        *self.0.lock() = last.map(|key| LastClaim { key, claimed_all_at: Instant::now() });
    }

    /// Notes the runs of a claim that looked from the key on.
    pub fn advance(&self, claimed: &[QueueKey]) {
        if let Some(last_claim) = &mut *self.0.lock() {
            let behind = claimed.iter().filter(|key| key.priority == last_claim.key.priority);
            last_claim.key = behind.fold(last_claim.key, |last, key| if key.is_behind(&last) { *key } else { last });
        }
    }

    /// The next claim looks from the beginning, because a run before the key was released.
    pub fn forget(&self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(priority: i64, minute: i64) -> QueueKey {
        let scheduled_at = DateTime::from_timestamp(1_790_000_000 + minute * 60, 0).unwrap();
        QueueKey { priority, scheduled_at, watermark_at_enqueue: scheduled_at, id: Uuid::nil() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_position_advances_and_expires() {
        let queue_position = QueuePosition::default();
        assert_eq!(queue_position.key(), None);
        queue_position.begin(&[key(0, 3), key(0, 5), key(10, 9)]);
        assert_eq!(queue_position.key(), Some(key(0, 5)));
        queue_position.advance(&[key(0, 7), key(10, 20)]);
        assert_eq!(queue_position.key(), Some(key(0, 7)));
        queue_position.advance(&[key(0, 6)]);
        assert_eq!(queue_position.key(), Some(key(0, 7)));
        tokio::time::advance(LOOK_BACK).await;
        assert_eq!(queue_position.key(), None, "the whole queue is to be looked at again");
        queue_position.begin(&[key(0, 1)]);
        queue_position.forget();
        assert_eq!(queue_position.key(), None);
        queue_position.begin(&[]);
        assert_eq!(queue_position.key(), None);
    }
}
