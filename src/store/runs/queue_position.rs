//! Where in the queue this process last found something.
//!
//! PostgreSQL leaves an entry in the index for each claimed run, until the table is vacuumed. A
//! claim that looks for the first due run steps over all these entries. A sweep leaves one for each
//! merchant. So a claim starts at the place of the last claimed run. It starts at the beginning of
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

/// The place of a run in the queue, as in the index `runs_due`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub priority: i64,
    pub scheduled_at: DateTime<Utc>,
    pub watermark_at_enqueue: DateTime<Utc>,
    pub id: Uuid,
}

impl Place {
    /// Of a row of `runs`; `None`: it stands at no place.
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
        let key = |place: &Self| (-place.priority, place.scheduled_at, place.watermark_at_enqueue, place.id);
        key(self) > key(other)
    }
}

/// Shared by a store's clones.
#[derive(Debug, Clone, Default)]
pub struct Frontier(Arc<Mutex<Option<Known>>>);

#[derive(Debug, Clone, Copy)]
struct Known {
    place: Place,
    looked_at_all: Instant,
}

impl Frontier {
    /// Where to look from; `None`: from the beginning.
    pub fn place(&self) -> Option<Place> {
        self.0.lock().filter(|known| known.looked_at_all.elapsed() < LOOK_BACK).map(|known| known.place)
    }

    /// The whole queue was looked at, and these were claimed.
    pub fn begin(&self, claimed: &[Place]) {
        let last = claimed.iter().copied().reduce(|last, place| if place.is_behind(&last) { place } else { last });
        *self.0.lock() = last.map(|place| Known { place, looked_at_all: Instant::now() });
    }

    /// These were claimed behind it.
    pub fn advance(&self, claimed: &[Place]) {
        if let Some(known) = &mut *self.0.lock() {
            let behind = claimed.iter().filter(|place| place.priority == known.place.priority);
            known.place = behind.fold(known.place, |last, place| if place.is_behind(&last) { *place } else { last });
        }
    }

    /// Something was put back before it.
    pub fn forget(&self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(priority: i64, minute: i64) -> Place {
        let scheduled_at = DateTime::from_timestamp(1_790_000_000 + minute * 60, 0).unwrap();
        Place { priority, scheduled_at, watermark_at_enqueue: scheduled_at, id: Uuid::nil() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_position_advances_and_expires() {
        let frontier = Frontier::default();
        assert_eq!(frontier.place(), None);
        frontier.begin(&[place(0, 3), place(0, 5), place(10, 9)]);
        assert_eq!(frontier.place(), Some(place(0, 5)));
        frontier.advance(&[place(0, 7), place(10, 20)]);
        assert_eq!(frontier.place(), Some(place(0, 7)));
        frontier.advance(&[place(0, 6)]);
        assert_eq!(frontier.place(), Some(place(0, 7)));
        tokio::time::advance(LOOK_BACK).await;
        assert_eq!(frontier.place(), None, "the whole queue is to be looked at again");
        frontier.begin(&[place(0, 1)]);
        frontier.forget();
        assert_eq!(frontier.place(), None);
        frontier.begin(&[]);
        assert_eq!(frontier.place(), None);
    }
}
