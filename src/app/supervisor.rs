//! The background tasks of the daemon. None of them ends before the process is asked to end: where one does, the process
//! ends with an error, and the orchestrator starts another.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

use crate::reconcile::Liveness;

/// Runs tasks, and reports when one ends.
#[derive(Debug, Default)]
pub struct Supervisor {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    liveness: Liveness,
}

impl Supervisor {
    /// A supervisor whose probes look at `liveness`.
    #[must_use]
    pub fn new(liveness: Liveness) -> Self {
        Self { liveness, ..Self::default() }
    }

    /// Runs a task under a name.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.names.insert(self.tasks.spawn(task).id(), name);
    }

    /// Resolves when a task has ended, with what to say about it. Never resolves without a task.
    pub async fn failed(&mut self) -> String {
        let Some(joined) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let message = self.describe(joined);
        self.liveness.fail(&message);
        message
    }

    /// Waits until every task has ended, as it was asked to; an error names those that panicked.
    ///
    /// # Errors
    /// When a task panicked.
    pub async fn drained(&mut self) -> Result<(), String> {
        let mut panicked = Vec::new();
        while let Some(joined) = self.tasks.join_next_with_id().await {
            if joined.is_err() {
                panicked.push(self.describe(joined));
            }
        }
        if panicked.is_empty() { Ok(()) } else { Err(panicked.join("; ")) }
    }

    fn describe(&self, joined: Result<(Id, ()), tokio::task::JoinError>) -> String {
        let name = |id| self.names.get(&id).copied().unwrap_or("a task");
        match joined {
            Ok((id, ())) => format!("{} has ended", name(id)),
            Err(error) => format!("{} has panicked", name(error.id())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_named() {
        let liveness = Liveness::default();
        let mut supervisor = Supervisor::new(liveness.clone());
        supervisor.spawn("the schedule", std::future::pending());
        supervisor.spawn("the worker", async { panic!("as a test") });
        assert_eq!(liveness.problem(), None);
        assert_eq!(supervisor.failed().await, "the worker has panicked");
        assert_eq!(liveness.problem().as_deref(), Some("the worker has panicked"));
        supervisor.spawn("the relay", async {});
        assert_eq!(supervisor.failed().await, "the relay has ended");
    }

    #[tokio::test]
    async fn draining_waits_for_every_task() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("one", async {});
        supervisor.spawn("other", async { tokio::task::yield_now().await });
        assert_eq!(supervisor.drained().await, Ok(()));
        supervisor.spawn("the worker", async { panic!("as a test") });
        assert_eq!(supervisor.drained().await.unwrap_err(), "the worker has panicked");
    }
}
