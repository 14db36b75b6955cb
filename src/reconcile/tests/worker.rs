//! Many runs at a time.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    fake_salla::{FakeSalla, order},
    fake_store::{FakeStore, Left, claim},
    runner,
};
use crate::{
    domain::Resource,
    reconcile::{Heartbeat, Worker},
};

fn worker(salla: &FakeSalla, store: &FakeStore, concurrency: usize) -> Worker<FakeSalla, FakeStore> {
    let runner = runner(salla, store, &[Resource::Orders]);
    Worker { runner, concurrency, wake: Arc::new(Notify::new()), heartbeat: Heartbeat::default() }
}

#[tokio::test(start_paused = true)]
async fn no_more_runs_go_on_at_a_time_than_are_configured() {
    let (salla, store) = (FakeSalla::with([order(1, 1)]), FakeStore::default());
    salla.0.lock().latency = Duration::from_secs(10);
    store.0.lock().queue = (1..=7).map(claim).collect();
    let stop = CancellationToken::new();
    let look = async {
        sleep(Duration::from_secs(5)).await;
        assert_eq!(store.0.lock().queue.len(), 4, "three of seven are claimed");
        sleep(Duration::from_secs(300)).await;
        stop.cancel();
    };
    tokio::join!(worker(&salla, &store, 3).work(stop.clone()), look);
    let left = store.0.lock().left.clone();
    assert_eq!(left.len(), 7);
    assert!(left.iter().all(|left| matches!(left, Left::Finished(_))), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_worker_releases_its_runs_and_claims_none() {
    let (salla, store) = (FakeSalla::with([order(1, 1)]), FakeStore::default());
    salla.0.lock().latency = Duration::from_secs(60);
    store.0.lock().queue = (1..=5).map(claim).collect();
    let stop = CancellationToken::new();
    let look = async {
        sleep(Duration::from_secs(5)).await;
        stop.cancel();
    };
    tokio::join!(worker(&salla, &store, 2).work(stop.clone()), look);
    let state = store.0.lock();
    assert_eq!((state.queue.len(), state.left.len()), (3, 2));
    assert!(state.left.iter().all(|left| matches!(left, Left::Released(_, None))), "{:?}", state.left);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_panics_does_not_end_the_worker() {
    let (salla, store) = (FakeSalla::with([order(1, 1)]), FakeStore::default());
    salla.0.lock().panics = true;
    store.0.lock().queue = vec![claim(1), claim(2)];
    let stop = CancellationToken::new();
    let look = async {
        sleep(Duration::from_secs(5)).await;
        salla.0.lock().panics = false;
        store.0.lock().queue.push(claim(3));
        sleep(Duration::from_secs(60)).await;
        stop.cancel();
    };
    tokio::join!(worker(&salla, &store, 2).work(stop.clone()), look);
    assert_eq!(store.0.lock().left.len(), 3);
}
