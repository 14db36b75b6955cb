//! Log lines that anybody can cause: they are counted, and written once a minute.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

const EVERY: Duration = Duration::from_secs(60);

/// Limits one kind of log line. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct LogLimit(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    count: u64,
    until: Option<Instant>,
}

impl LogLimit {
    /// Counts one occurrence. Calls `log` with 1 for the first of a minute, and at its end with the number of the others.
    pub fn count(&self, log: impl Fn(u64) + Send + 'static) {
        let until = Instant::now() + EVERY;
        {
            let mut counted = self.0.lock();
            if counted.until.is_some_and(|until| Instant::now() < until) {
                counted.count += 1;
                return;
            }
            *counted = Counted { count: 0, until: Some(until) };
        }
        log(1);
        let counted = Arc::clone(&self.0);
        tokio::spawn(async move {
            sleep_until(until).await;
            let others = std::mem::take(&mut counted.lock().count);
            if others > 0 {
                log(others);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_two_lines_a_minute() {
        let (limit, lines) = (LogLimit::default(), Arc::new(Mutex::new(Vec::new())));
        let count = || {
            let lines = Arc::clone(&lines);
            limit.count(move |requests| lines.lock().push(requests));
        };
        (0..1000).for_each(|_| count());
        assert_eq!(*lines.lock(), [1]);
        tokio::time::sleep(EVERY + Duration::from_secs(1)).await;
        assert_eq!(*lines.lock(), [1, 999]);
        count();
        assert_eq!(*lines.lock(), [1, 999, 1]);
    }
}
