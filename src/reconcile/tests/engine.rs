//! Pages, details, missing records and commits.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    fake_salla::{FakeSalla, Shown, instant, order, unavailable},
    fake_store::{FakeStore, Left, claim},
    runner,
};
use crate::{
    domain::{FailureKind, Resource, RunStatus},
    reconcile::ports::{Claim, RunOutcome, SourceError},
};

/// Executes a run of the orders to its end.
async fn reconcile(salla: &FakeSalla, store: &FakeStore, claim: Claim) -> RunOutcome {
    runner(salla, store, &[Resource::Orders]).execute(claim, &CancellationToken::new()).await;
    store.outcome()
}

fn counts(outcome: &RunOutcome) -> [u64; 5] {
    let totals = outcome.resource_runs[0].totals;
    [totals.created, totals.updated, totals.unchanged, totals.skipped, totals.failed]
}

#[tokio::test(start_paused = true)]
async fn missing_and_stale_records_are_written_and_others_left() {
    let (salla, store) = (FakeSalla::with((1..=25).map(|id| order(id, 100 + id))), FakeStore::default());
    (1..=5).for_each(|id| store.store(&order(id, 100 + id)));
    (6..=8).for_each(|id| store.store(&order(id, 1)));
    let outcome = reconcile(&salla, &store, claim(1)).await;
    assert_eq!(outcome.status, RunStatus::Succeeded, "{outcome:?}");
    assert_eq!(counts(&outcome), [17, 3, 5, 0, 0]);
    assert_eq!(store.present(), (1..=25).collect::<Vec<_>>());
    assert_eq!(outcome.watermarks.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn records_that_an_earlier_run_should_have_found_are_counted() {
    let covered = |watermark| Claim { watermarks: vec![(Resource::Orders, instant(watermark))], ..claim(1) };
    // The change of the third order may not have been in the list when the earlier run read it.
    for (watermarks, late) in [(Some(1_000), 2), (None, 0)] {
        let changed = [400, 500, 950, 2_000];
        let (salla, store) = (FakeSalla::with((1..).zip(changed).map(|(id, at)| order(id, at))), FakeStore::default());
        salla.0.lock().orders.push((order(5, 600), Shown::Whole));
        store.store(&order(5, 600));
        let runner = runner(&salla, &store, &[Resource::Orders]);
        runner.execute(watermarks.map_or_else(|| claim(1), covered), &CancellationToken::new()).await;
        let metrics = runner.metrics.render(None).unwrap();
        let line = format!("salla_reconciler_late_records_total{{resource=\"orders\"}} {late}\n");
        assert!(metrics.contains(&line), "{watermarks:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_page_is_looked_up_once() {
    let (salla, store) = (FakeSalla::with((1..=30).map(|id| order(id, id))), FakeStore::default());
    let outcome = reconcile(&salla, &store, claim(1)).await;
    assert!(store.0.lock().lookups as u64 <= outcome.requests, "{} requests", outcome.requests);
}

#[tokio::test(start_paused = true)]
async fn pages_before_an_error_are_committed() {
    let (salla, store) = (FakeSalla::with((1..=30).map(|id| order(id, id))), FakeStore::default());
    salla.fail_list(Resource::Orders, 2, unavailable);
    let outcome = reconcile(&salla, &store, claim(1)).await;
    assert_eq!(counts(&outcome), [20, 0, 0, 0, 0]);
    assert_eq!(outcome.failure.unwrap().kind, FailureKind::SallaUnavailable);
    assert!(store.present().len() == 20 && outcome.watermarks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_ends_at_its_next_commit() {
    let (salla, store) = (FakeSalla::with((1..=30).map(|id| order(id, id))), FakeStore::default());
    store.0.lock().cancel = true;
    let outcome = reconcile(&salla, &store, claim(1)).await;
    assert_eq!((outcome.status, store.0.lock().commits.len()), (RunStatus::Cancelled, 1));
}

#[tokio::test(start_paused = true)]
async fn a_run_yields_after_its_time_slice_where_others_wait() {
    for (others_wait, latency, yields) in [(true, 61, true), (false, 61, false), (true, 1, false)] {
        let (salla, store) = (FakeSalla::with((1..=30).map(|id| order(id, id))), FakeStore::default());
        salla.0.lock().latency = Duration::from_secs(latency);
        store.0.lock().others_wait = others_wait;
        runner(&salla, &store, &[Resource::Orders]).execute(claim(1), &CancellationToken::new()).await;
        assert_eq!(matches!(store.left(), Left::Yielded), yields, "{others_wait} {latency}");
        assert!(!store.present().is_empty(), "a slice makes progress");
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_record_is_fetched_and_marked_deleted() {
    let (salla, store) = (FakeSalla::with((1..=20).map(|id| order(id, 100 + id))), FakeStore::default());
    salla.0.lock().orders.push((order(21, 1), Shown::Nowhere));
    (1..=22).for_each(|id| store.store(&order(id, 1)));
    let outcome = reconcile(&salla, &store, claim(1)).await;
    assert_eq!(outcome.status, RunStatus::Succeeded, "{outcome:?}");
    assert_eq!(salla.0.lock().asked, [21, 22]);
    assert_eq!(store.present(), (1..=21).collect::<Vec<_>>(), "22 is gone, 21 is not");
}

#[tokio::test(start_paused = true)]
async fn too_many_deletions_stop_the_run_and_mark_nothing() {
    let (salla, store) = (FakeSalla::with((1..=20).map(|id| order(id, 100 + id))), FakeStore::default());
    (1..=40).for_each(|id| store.store(&order(id, 1)));
    let outcome = reconcile(&salla, &store, claim(1)).await;
    assert_eq!(outcome.failure.unwrap().kind, FailureKind::MassDeletionBlocked);
    assert_eq!(store.present().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn failed_records_beyond_the_limit_are_deferred() {
    let (salla, store) = (FakeSalla::with([order(1, 1)]), FakeStore::default());
    store.0.lock().failed_records = (1_000..2_500).collect();
    let outcome = reconcile(&salla, &store, Claim { has_failed_records: true, ..claim(1) }).await;
    assert_eq!((outcome.status, salla.0.lock().asked.len()), (RunStatus::Partial, 1_000));
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_deletions_holds_for_failed_records() {
    for (gone, is_blocked) in [(2, false), (20, true)] {
        let (salla, store) = (FakeSalla::with((1..=20).map(|id| order(id, 100 + id))), FakeStore::default());
        (1..=20 + gone).for_each(|id| store.store(&order(id, 1)));
        let failed: Vec<i64> = (21..=20 + gone).collect();
        store.0.lock().failed_records.clone_from(&failed);
        store.0.lock().outside_window = failed;
        let outcome = reconcile(&salla, &store, Claim { has_failed_records: true, ..claim(1) }).await;
        let kind = outcome.failure.map(|failure| failure.kind);
        assert_eq!(kind, is_blocked.then_some(FailureKind::MassDeletionBlocked), "{gone}");
        assert_eq!(store.present().len(), if is_blocked { 40 } else { 20 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_record_that_is_readable_again_was_not_omitted_by_the_list() {
    let (salla, store) = (FakeSalla::with((1..=20).map(|id| order(id, 100 + id))), FakeStore::default());
    salla.0.lock().orders.extend((21..=60).map(|id| (order(id, 1), Shown::Nowhere)));
    (1..=60).for_each(|id| store.store(&order(id, 1)));
    let failed: Vec<i64> = (21..=60).collect();
    store.0.lock().failed_records.clone_from(&failed);
    store.0.lock().outside_window = failed;
    let outcome = reconcile(&salla, &store, Claim { has_failed_records: true, ..claim(1) }).await;
    assert_eq!((outcome.status, store.present().len()), (RunStatus::Succeeded, 60), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_record_that_another_writer_writes_meanwhile_is_not_marked_deleted() {
    let (salla, store) = (FakeSalla::with([order(1, 100)]), FakeStore::default());
    store.store(&order(2, 1));
    store.0.lock().failed_records = vec![2];
    store.0.lock().outside_window = vec![2];
    let webhook = store.clone();
    salla.0.lock().on_asked = Some(Box::new(move |id| webhook.store(&order(id, 50))));
    let outcome = reconcile(&salla, &store, Claim { has_failed_records: true, ..claim(1) }).await;
    assert_eq!((outcome.status, store.present()), (RunStatus::Succeeded, vec![1, 2]));
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_that_the_last_commit_reports_is_not_lost_after_an_error() {
    let (salla, store) = (FakeSalla::with((1..=30).map(|id| order(id, id))), FakeStore::default());
    (1..=30).for_each(|id| store.store(&order(id, id)));
    salla.fail_list(Resource::Orders, 2, unavailable);
    store.0.lock().cancel = true;
    assert_eq!(reconcile(&salla, &store, claim(1)).await.status, RunStatus::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_one_record_fails_only_that_record() {
    let (salla, store) = (FakeSalla::with((1..=20).map(|id| order(id, id))), FakeStore::default());
    salla.show_all(Shown::Summary);
    salla.fail_order(7, unavailable);
    let outcome = reconcile(&salla, &store, claim(1)).await;
    assert_eq!((outcome.status, counts(&outcome)), (RunStatus::Partial, [19, 0, 0, 1, 0]));
}

#[tokio::test(start_paused = true)]
async fn five_errors_in_a_row_are_the_merchant_s_where_no_other_record_can_be_read() {
    for (failing, is_merchant_wide) in [(1..=20, true), (6..=12, false)] {
        let (salla, store) = (FakeSalla::with((1..=20).map(|id| order(id, id))), FakeStore::default());
        salla.show_all(Shown::Summary);
        for id in failing.clone() {
            salla.fail_order(id, || SourceError::Rejected { reason: "403".to_owned() });
        }
        let outcome = reconcile(&salla, &store, claim(1)).await;
        if is_merchant_wide {
            assert_eq!(outcome.failure.unwrap().kind, FailureKind::SallaRequestRejected);
        } else {
            assert_eq!((outcome.status, counts(&outcome)), (RunStatus::Partial, [13, 0, 0, 7, 0]), "{failing:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_run_reads_the_details_of_every_summary() {
    let (salla, store) = (FakeSalla::with((1..=20).map(|id| order(id, id))), FakeStore::default());
    salla.show_all(Shown::Summary);
    reconcile(&salla, &store, claim(1)).await;
    let mut asked = salla.0.lock().asked.clone();
    asked.sort_unstable();
    assert_eq!(asked, (1..=20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn pages_of_a_part_that_panicked_are_not_committed_by_the_next() {
    let (salla, store) = (FakeSalla::with((1..=30).map(|id| order(id, id))), FakeStore::default());
    (1..=30).for_each(|id| store.store(&order(id, id)));
    salla.fail_list(Resource::Orders, 2, || panic!("the answer brings out a defect"));
    let kinds = [Resource::Orders, Resource::Products];
    runner(&salla, &store, &kinds).execute(claim(1), &CancellationToken::new()).await;
    let outcome = store.outcome();
    assert_eq!(outcome.resource_runs[0].status, RunStatus::Failed);
    assert_eq!(
        (outcome.resource_runs[1].status, outcome.resource_runs[1].totals.fetched),
        (RunStatus::Succeeded, 0),
        "{outcome:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_control_record_that_is_not_its_own_ends_the_run() {
    let (salla, store) = (FakeSalla::with((1..=20).map(|id| order(id, id))), FakeStore::default());
    salla.show_all(Shown::Summary);
    // The records of the second page fail; those of the first are the controls.
    for id in 11..=20 {
        salla.fail_order(id, || SourceError::Rejected { reason: "403".to_owned() });
    }
    let limited = || SourceError::RateLimited { retry_after: Some(Duration::from_secs(900)) };
    salla.after_orders_asked(10, limited);
    let outcome = reconcile(&salla, &store, claim(1)).await;
    assert_eq!(outcome.failure.unwrap().kind, FailureKind::RateLimited);
}
