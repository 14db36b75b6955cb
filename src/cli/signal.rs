//! SIGTERM, which Kubernetes and ECS send, and Ctrl-C.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at the first of them. They are caught from the call on, not only from the first poll.
pub fn termination() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
