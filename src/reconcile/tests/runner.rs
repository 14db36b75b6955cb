//! What follows from an error, and several kinds of record in one run.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    fake_salla::{FakeSalla, order},
    fake_store::{FakeStore, Left, away, claim, statuses},
    runner,
};
use crate::{
    domain::{FailureKind, MerchantId, Resource, RunStatus, WaitReason},
    reconcile::{
        Ended, OnStop,
        ports::{CredentialError, DatabaseError, SourceError},
    },
};

const BOTH: [Resource; 2] = [Resource::Orders, Resource::Products];

/// The run after an error of the first list.
async fn after(error: impl Fn() -> SourceError + Send + Sync + 'static) -> Left {
    let (salla, store) = (FakeSalla::with([order(1, 1)]), FakeStore::default());
    salla.fail_list(Resource::Orders, 0, error);
    runner(&salla, &store, &BOTH).execute(claim(1), &CancellationToken::new()).await;
    store.left()
}

fn failure(left: Left) -> (FailureKind, Option<Duration>) {
    match left {
        Left::Finished(outcome) => (outcome.failure.unwrap().kind, outcome.again.map(|again| again.pause)),
        other => panic!("{other:?}"),
    }
}

fn wait(left: Left) -> (WaitReason, Duration) {
    match left {
        Left::Released(pause, Some(wait)) => (wait.reason, pause),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_whole_merchant_fail_the_run() {
    let errors: [(fn() -> SourceError, FailureKind); 4] = [
        (|| SourceError::NoToken(MerchantId(1)), FailureKind::NoToken),
        (|| SourceError::ClientCredentials("wrong".into()), FailureKind::InvalidClientCredentials),
        (
            || SourceError::Unauthorized { merchant: MerchantId(1), reason: "revoked".into() },
            FailureKind::NeedsReauthorization,
        ),
        (|| SourceError::Unavailable { reason: "500".into(), per_row: false }, FailureKind::SallaUnavailable),
    ];
    for (error, kind) in errors {
        assert_eq!(failure(after(error).await), (kind, None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_ends_the_run_and_another_takes_up_the_rest() {
    let limited = || SourceError::RateLimited { retry_after: Some(Duration::from_secs(900)) };
    assert_eq!(failure(after(limited).await), (FailureKind::RateLimited, Some(Duration::from_secs(900))));
    let unannounced = || SourceError::RateLimited { retry_after: None };
    assert_eq!(failure(after(unannounced).await).1, Some(Duration::from_secs(120)), "at least two minutes");
}

#[tokio::test(start_paused = true)]
async fn a_backoff_releases_the_run_with_its_reason() {
    let resting = || SourceError::OpenCircuit { pause: Duration::from_secs(40), reason: "503".into() };
    assert_eq!(wait(after(resting).await), (WaitReason::SallaUnavailable, Duration::from_secs(40)));
    let (reason, pause) = wait(after(|| SourceError::AddressLimit { pause: Duration::from_secs(100) }).await);
    assert_eq!(reason, WaitReason::AddressLimit);
    assert!((100..=160).contains(&pause.as_secs()), "{pause:?}");
    let backend = || SourceError::Credentials(CredentialError::Unavailable { reason: "no answer".into() });
    assert_eq!(wait(after(backend).await).0, WaitReason::TokenStoreUnavailable);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_one_kind_leaves_the_others_alone() {
    let missing_scope = || SourceError::MissingScope { scope: "products.read", reason: "no".into() };
    let (salla, store) = (FakeSalla::with([order(1, 1)]), FakeStore::default());
    salla.fail_list(Resource::Products, 0, missing_scope);
    runner(&salla, &store, &BOTH).execute(claim(1), &CancellationToken::new()).await;
    let outcome = store.outcome();
    assert_eq!(statuses(&outcome), [RunStatus::Succeeded, RunStatus::Failed]);
    assert_eq!(outcome.status, RunStatus::Partial);
    assert_eq!(outcome.watermarks.len(), 1, "only what was read is covered");
    assert_eq!(store.present(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_releases_the_run() {
    let (salla, store) = (FakeSalla::with([order(1, 1)]), FakeStore::default());
    store.0.lock().commit_errors.push_back(Some(away()));
    runner(&salla, &store, &BOTH).execute(claim(1), &CancellationToken::new()).await;
    match store.left() {
        Left::ReleasedAfterFailure(pause, Some(wait)) => {
            assert_eq!((wait.reason, pause), (WaitReason::Database, Duration::from_secs(5)));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_that_refuses_fails_the_run() {
    let (salla, store) = (FakeSalla::with([order(1, 1)]), FakeStore::default());
    store.0.lock().commit_errors.push_back(Some(DatabaseError::Refused("no".into())));
    runner(&salla, &store, &BOTH).execute(claim(1), &CancellationToken::new()).await;
    assert_eq!(store.outcome().failure.unwrap().kind, FailureKind::Database);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_leaves_the_run_alone() {
    let (salla, store) = (FakeSalla::with([order(1, 1)]), FakeStore::default());
    let claim = claim(1);
    store.0.lock().commit_errors.push_back(Some(DatabaseError::LeaseLost(claim.lease.run_id)));
    let ended = runner(&salla, &store, &BOTH).execute(claim, &CancellationToken::new()).await;
    assert!(matches!(ended, Ended::Elsewhere(MerchantId(1))) && store.0.lock().left.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_the_part_and_not_the_process() {
    let (salla, store) = (FakeSalla::with([order(1, 1)]), FakeStore::default());
    salla.0.lock().panics = true;
    runner(&salla, &store, &[Resource::Orders]).execute(claim(1), &CancellationToken::new()).await;
    assert_eq!(store.outcome().failure.unwrap().kind, FailureKind::Internal);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_daemon_releases_its_run_and_a_stopped_command_cancels_it() {
    for on_stop in [OnStop::Release, OnStop::Cancel] {
        let (salla, store) = (FakeSalla::with((1..=50).map(|id| order(id, id))), FakeStore::default());
        salla.0.lock().latency = Duration::from_secs(10);
        let mut runner = runner(&salla, &store, &BOTH);
        runner.on_stop = on_stop;
        let stop = CancellationToken::new();
        let (_, ()) = tokio::join!(runner.execute(claim(1), &stop), async {
            tokio::time::sleep(Duration::from_secs(15)).await;
            stop.cancel();
        });
        match (on_stop, store.left()) {
            (OnStop::Release, Left::Released(Duration::ZERO, None)) => {}
            (OnStop::Cancel, Left::Finished(outcome)) => assert_eq!(outcome.status, RunStatus::Cancelled),
            other => panic!("{other:?}"),
        }
    }
}
