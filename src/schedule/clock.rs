//! The database's time, which decides, and which need not be asked for at each ring.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use crate::reconcile::ports::{DatabaseError, ScheduleStore};

/// A sleeping machine counts no time, and clocks drift or are set.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// The database's clock, asked now and then and reckoned on between.
#[derive(Debug, Default)]
pub struct Clock(Option<(DateTime<Utc>, Instant)>);

impl Clock {
    /// About what the database's clock shows.
    pub async fn now(&mut self, store: &impl ScheduleStore) -> Result<DateTime<Utc>, DatabaseError> {
        if let Some((then, asked)) = self.0
            && asked.elapsed() < ASK_EVERY
        {
            return Ok(then + TimeDelta::from_std(asked.elapsed()).unwrap_or_default());
        }
        // It was read after this instant, so that what is reckoned from here is never ahead of it.
        let asked = Instant::now();
        let now = store.now().await?;
        self.0 = Some((now, asked));
        Ok(now)
    }
}
