//! Whether the process makes progress: every loop turns, and no task has ended early.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// A call to a database that does not answer ends long before this.
const ALIVE_FOR: Duration = Duration::from_secs(300);

/// A sleeping loop beats this often.
const BEAT_EVERY: Duration = Duration::from_secs(60);

/// The background tasks, as probes look at them. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Liveness {
    loops: Arc<Mutex<Vec<(&'static str, Heartbeat)>>>,
    failure: Arc<Mutex<Option<String>>>,
}

impl Liveness {
    /// A heartbeat for the loop of this name. The process counts as stuck when it stops.
    #[must_use]
    pub fn watch(&self, name: &'static str) -> Heartbeat {
        let heartbeat = Heartbeat::default();
        self.loops.lock().push((name, heartbeat.clone()));
        heartbeat
    }

    /// A task has ended before its time.
    pub fn fail(&self, message: &str) {
        *self.failure.lock() = Some(message.to_owned());
    }

    /// Which task has ended before its time.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// The reason to restart the process; `None`: it makes progress.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let silent = self.loops.lock().iter().find(|(_, heartbeat)| !heartbeat.is_alive()).map(|(name, _)| *name);
        self.failure().or_else(|| silent.map(|name| format!("{name} has not moved for five minutes")))
    }
}

/// The loop's last turn. Clones share it.
#[derive(Debug, Clone)]
pub struct Heartbeat(Arc<Mutex<Instant>>);

impl Default for Heartbeat {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Heartbeat {
    /// The loop has turned.
    pub fn beat(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Sleeps, and beats meanwhile.
    pub async fn sleep(&self, pause: Duration) {
        let end = Instant::now() + pause;
        loop {
            self.beat();
            if Instant::now() >= end {
                return;
            }
            sleep_until(end.min(Instant::now() + BEAT_EVERY)).await;
        }
    }

    /// It has turned within the last five minutes.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.0.lock().elapsed() < ALIVE_FOR
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stops_is_named() {
        let liveness = Liveness::default();
        let (first, second) = (liveness.watch("the worker"), liveness.watch("the event delivery"));
        advance(ALIVE_FOR - Duration::from_secs(1)).await;
        first.beat();
        assert_eq!(liveness.problem(), None);
        advance(Duration::from_secs(1)).await;
        assert_eq!(liveness.problem().as_deref(), Some("the event delivery has not moved for five minutes"));
        second.beat();
        assert_eq!(liveness.problem(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleeping_loop_is_alive() {
        let liveness = Liveness::default();
        let heartbeat = liveness.watch("the token refresh loop");
        let asleep = tokio::spawn(async move { heartbeat.sleep(ALIVE_FOR * 3).await });
        for _ in 0..20 {
            advance(BEAT_EVERY / 2).await;
            tokio::task::yield_now().await;
            assert_eq!(liveness.problem(), None);
        }
        asleep.abort();
    }
}
