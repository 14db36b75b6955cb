//! The leases that this process holds: renewed together, and given up one by one.
//!
//! Only what is listed here is renewed. A run whose task has ended, however it ended, is not, so that its
//! lease lapses and another process takes it up.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::reconcile::{
    Heartbeat,
    ports::{Lease, RunQueue},
};

/// The leases of this process, each with the token that stops its run. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Leases(Arc<Mutex<HashMap<Lease, CancellationToken>>>);

/// A lease that is kept until this is dropped.
#[derive(Debug)]
pub struct LeaseGuard {
    leases: Leases,
    lease: Lease,
    /// Called when the lease is lost, or the run is to stop.
    pub stop: CancellationToken,
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        self.leases.0.lock().remove(&self.lease);
    }
}

impl Leases {
    /// Holds `lease`; its run is stopped by `parent`, and when the lease is lost. An older lease on the same
    /// run, which must have lapsed, is given up.
    pub fn hold(&self, lease: Lease, parent: &CancellationToken) -> LeaseGuard {
        let stop = parent.child_token();
        let mut held = self.0.lock();
        for (older, stop) in held.iter() {
            if older.run_id == lease.run_id {
                stop.cancel();
            }
        }
        held.insert(lease, stop.clone());
        LeaseGuard { leases: self.clone(), lease, stop }
    }

    /// Renews the leases every `pause`, until `done` is called. `heartbeat` beats each time.
    pub async fn keep(&self, queue: &impl RunQueue, pause: Duration, heartbeat: &Heartbeat, done: &CancellationToken) {
        while done.run_until_cancelled(sleep(pause)).await.is_some() {
            // On a connection that has fallen silent it would hang for longer than the leases last.
            if timeout(pause * 2, self.renew(queue)).await.is_err() {
                tracing::warn!("leases could not be renewed: no answer of the database; trying again");
            }
            heartbeat.beat();
        }
    }

    /// Renews the leases, and stops the runs whose leases are lost.
    async fn renew(&self, queue: &impl RunQueue) {
        let held: Vec<Lease> = self.0.lock().keys().copied().collect();
        if held.is_empty() {
            return;
        }
        match queue.renew_leases(&held).await {
            Ok(renewed) => {
                let leases = self.0.lock();
                for lost in held.iter().filter(|lease| !renewed.contains(lease)) {
                    if let Some(stop) = leases.get(lost) {
                        stop.cancel();
                    }
                }
            }
            Err(error) => tracing::warn!(error = %error, "leases could not be renewed; trying again"),
        }
    }
}
