//! The ledger's contract, on the store itself: claims, leases, fences.

use std::{collections::HashSet, pin::pin, sync::LazyLock, time::Duration};

use futures::poll;
use salla_reconciler::{
    domain::{
        BackfillRule, Covered, Listing, MerchantId, Request, Resource, ResourceRun, RunStatus, Scope, Totals, Trigger,
        Wait, WaitReason, Window,
    },
    reconcile::ListWalk,
    reconcile::ports::{
        Actor, BackoffStore, Batch, CredentialStore, Cursor, DatabaseError, EnqueueOutcome, IdempotencyKey,
        MerchantRegistry, NewRun, PageCommit, RecordStore, Registration, Released, RunHistory, RunOutcome, RunQueue,
        ScheduleStore, Sealed, StartOutcome, SweepDecision, Tokens,
    },
    store::Store,
};
use sea_orm::{ConnectionTrait, TransactionTrait};
use tokio::time::sleep;

use crate::support::{Engine, SCHEMA, database::TestDatabase};

on_every_database!(
    a_run_is_claimed_once,
    a_lapsed_lease_is_taken_over_and_the_old_holder_writes_nothing,
    a_sweep_queues_one_run_per_merchant,
    a_locked_merchant_is_queued_later,
    a_merchant_with_a_queued_run_gets_no_second_one,
    a_cancelled_run_does_not_wait,
    runs_by_hand_go_first,
    a_page_that_was_committed_before_is_not_counted_twice,
    a_renewal_returns_the_runs_that_continue,
    old_runs_are_removed,
    keys_and_audit_entries_expire,
    only_own_leases_are_renewed,
    a_merchant_that_is_removed_during_its_run,
    the_foreground_requeues_an_expired_daemon_run,
    a_refresh_is_begun_once,
    a_late_save_of_tokens_counts,
    an_ended_sweep_is_reported_once,
    concurrent_requests_queue_one_run,
    a_committed_page_resets_failed_attempts,
    five_failed_attempts_end_a_run,
    a_process_holds_one_run_with_failed_attempts,
    the_foreground_counts_failed_attempts,
    aborted_transactions_affect_no_other_call,
);

struct Fixture {
    database: TestDatabase,
    stores: Vec<Store>,
    _folder: tempfile::TempDir,
}

/// A database with merchants 1 to `merchants`, and so many processes' views of it.
async fn fixture(engine: Engine, merchants: i64, processes: usize, lease: Duration) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let database = TestDatabase::create(engine, &folder).await;
    let mut stores = Vec::new();
    for _ in 0..processes {
        stores.push(Store::connect(&database.url.clone().into(), SCHEMA, 4, lease).await.unwrap());
    }
    stores[0].migrate().await.unwrap();
    for id in 1..=merchants {
        let tokens = Tokens { access: Sealed("x".into()), refresh: None, expires_at: None, owner_confirmed: false };
        stores[0]
            .register(&Registration { merchant_id: MerchantId(id), name: None, tokens }, &Actor::Local)
            .await
            .unwrap();
    }
    Fixture { database, stores, _folder: folder }
}

const LONG: Duration = Duration::from_secs(60);

/// As if every lease had run out.
async fn lapse(fixture: &Fixture) {
    let ago = chrono::Utc::now() - chrono::TimeDelta::minutes(1);
    fixture.database.execute("UPDATE runs SET lease_expires_at = $1 WHERE status = 'running'", [ago.into()]).await;
}

fn by(trigger: Trigger, merchant: i64) -> NewRun {
    NewRun { merchant: MerchantId(merchant), trigger, request: Request::default(), by: Actor::Local, key: None }
}

fn window() -> Window {
    Window { since: chrono::DateTime::UNIX_EPOCH, until: chrono::Utc::now() }
}

/// A cursor, other than that of another number.
fn cursor(commits: u32) -> Cursor {
    Cursor {
        resource: Resource::Orders,
        commits,
        commits_before: 0,
        observed_at: None,
        listing: Listing::Scan,
        scopes: vec![Scope::EVERYTHING],
        left_out: 0,
        unidentified: 0,
        failed_rows: 0,
        all_details: false,
        missed_changes: 0,
        walk: ListWalk::new(false, 1),
    }
}

fn page(cursor: &Cursor, totals: Totals) -> PageCommit<'_, salla_reconciler::domain::Order> {
    static NOTHING: LazyLock<Batch<salla_reconciler::domain::Order>> = LazyLock::new(Batch::default);
    let resource_runs = vec![ResourceRun { totals, ..ResourceRun::waiting(Resource::Orders, Some(window())) }].leak();
    PageCommit {
        batch: &NOTHING,
        resource_runs,
        at: 0,
        requests: 1,
        cursor,
        dry_run: false,
        backfill: BackfillRule::All,
    }
}

fn succeeded() -> RunOutcome {
    RunOutcome {
        status: RunStatus::Succeeded,
        failure: None,
        resource_runs: vec![ResourceRun::waiting(Resource::Orders, Some(window()))],
        requests: 1,
        watermarks: vec![(Resource::Orders, chrono::Utc::now())],
        again: None,
    }
}

async fn a_run_is_claimed_once(engine: Engine) {
    let fixture = fixture(engine, 40, 4, LONG).await;
    let fired = fixture.stores[0]
        .record_sweep(
            chrono::Utc::now(),
            "p",
            SweepDecision::Run { trigger: Trigger::Schedule, spread: Duration::ZERO },
        )
        .await;
    assert_eq!(fired.unwrap().unwrap().runs, 40);
    let claimers = fixture.stores.iter().map(|store| async move {
        let mut claimed = Vec::new();
        loop {
            let claims = store.claim(3).await.unwrap().claims;
            if claims.is_empty() {
                return claimed;
            }
            claimed.extend(claims.into_iter().map(|claim| claim.lease.run_id));
            tokio::task::yield_now().await;
        }
    });
    let claimed: Vec<_> = futures::future::join_all(claimers).await.into_iter().flatten().collect();
    assert_eq!(claimed.len(), 40);
    assert_eq!(claimed.iter().collect::<HashSet<_>>().len(), 40);
}

async fn a_lapsed_lease_is_taken_over_and_the_old_holder_writes_nothing(engine: Engine) {
    let fixture = fixture(engine, 1, 2, LONG).await;
    let [stalled, other] = &fixture.stores[..] else { unreachable!() };
    stalled.enqueue(by(Trigger::Http, 1)).await.unwrap();
    let first = stalled.claim(1).await.unwrap().claims.remove(0);
    let two = cursor(2);
    stalled.commit(&first.lease, page(&two, Totals::default())).await.unwrap();
    assert!(other.claim(1).await.unwrap().claims.is_empty());
    lapse(&fixture).await;
    let second = other.claim(1).await.unwrap().claims.remove(0);
    assert_eq!(second.lease.run_id, first.lease.run_id);
    assert_eq!(second.resumed.as_ref().unwrap().cursor, two);

    let three = cursor(3);
    assert!(matches!(
        stalled.commit(&first.lease, page(&three, Totals::default())).await,
        Err(DatabaseError::LeaseLost(_))
    ));
    assert!(matches!(stalled.finish(&first.lease, succeeded()).await, Err(DatabaseError::LeaseLost(_))));
    assert_eq!(stalled.release(&first.lease, Duration::ZERO, None).await.unwrap(), Released::LeaseLost);
    assert_eq!(fixture.database.text("SELECT status FROM runs").await, "running");
    assert!(fixture.database.rows("SELECT * FROM watermarks").await.is_empty());
    other.commit(&second.lease, page(&three, Totals::default())).await.unwrap();
    assert_eq!(other.finish(&second.lease, succeeded()).await.unwrap().status, RunStatus::Succeeded);
    // An end whose answer was lost is asked for again.
    assert!(other.finish(&second.lease, succeeded()).await.is_ok());
}

async fn a_sweep_queues_one_run_per_merchant(engine: Engine) {
    let fixture = fixture(engine, 10, 3, LONG).await;
    let slot = chrono::Utc::now();
    let firing = SweepDecision::Run { trigger: Trigger::Schedule, spread: Duration::from_secs(600) };
    let fired =
        futures::future::join_all(fixture.stores.iter().map(|store| store.record_sweep(slot, "p", firing))).await;
    let made: Vec<_> = fired.into_iter().map(Result::unwrap).collect();
    assert_eq!(made.iter().flatten().map(|fired| fired.runs).collect::<Vec<_>>(), [10], "{made:?}");
    let runs = fixture.stores[0]
        .runs(salla_reconciler::reconcile::ports::RunFilter { limit: 100, ..Default::default() })
        .await
        .unwrap();
    assert!(runs.iter().all(|run| run.run_id.get_version_num() == 7), "{runs:?}");
    assert_eq!(fixture.database.number("SELECT count(DISTINCT scheduled_at) FROM runs").await, 10);
    assert_eq!(fixture.stores[0].last_sweep("p").await.unwrap().unwrap().timestamp_millis(), slot.timestamp_millis());
    assert_eq!(fixture.stores[0].last_sweep("another").await.unwrap(), None);
}

const SWEEP: SweepDecision = SweepDecision::Run { trigger: Trigger::Schedule, spread: Duration::ZERO };

/// Another session holds the row of one merchant: the others get their runs, and that one gets its run later.
async fn a_locked_merchant_is_queued_later(engine: Engine) {
    if engine == Engine::Sqlite {
        // It has one writer, and locks no rows.
        return;
    }
    let fixture = fixture(engine, 12, 1, LONG).await;
    let (store, database) = (&fixture.stores[0], &fixture.database);
    let other = database.db.begin().await.unwrap();
    other.execute_unprepared("SELECT 1 FROM merchants WHERE merchant_id = 7 FOR UPDATE").await.unwrap();
    let began = tokio::time::Instant::now();
    let fired = store.record_sweep(chrono::Utc::now(), "p", SWEEP).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!((fired.runs, fired.locked), (11, vec![MerchantId(7)]));
    assert_eq!(store.enqueue_deferred().await.unwrap().locked, [MerchantId(7)]);
    for claim in store.claim(20).await.unwrap().claims {
        store.finish(&claim.lease, succeeded()).await.unwrap();
    }
    assert!(store.ended_sweeps().await.unwrap().is_empty(), "one run is still to be made");
    other.rollback().await.unwrap();
    assert_eq!(store.enqueue_deferred().await.unwrap().runs, 1);
    assert_eq!(store.enqueue_deferred().await.unwrap().runs, 0);
    assert_eq!(database.number("SELECT count(*) FROM runs WHERE merchant_id = 7").await, 1);

    // It stays locked until a later sweep has queued it: each merchant counts once in each sweep.
    let other = database.db.begin().await.unwrap();
    other.execute_unprepared("SELECT 1 FROM merchants WHERE merchant_id = 8 FOR UPDATE").await.unwrap();
    store.record_sweep(chrono::Utc::now(), "p", SWEEP).await.unwrap().unwrap();
    other.rollback().await.unwrap();
    store.record_sweep(chrono::Utc::now(), "p", SWEEP).await.unwrap().unwrap();
    assert_eq!(store.enqueue_deferred().await.unwrap().already_queued, [MerchantId(8)]);
    let incomplete = "SELECT count(*) FROM sweeps WHERE run_count + already_queued <> 12 OR deferred IS NOT NULL";
    assert_eq!(database.number(incomplete).await, 0);
}

async fn a_merchant_with_a_queued_run_gets_no_second_one(engine: Engine) {
    let fixture = fixture(engine, 3, 2, LONG).await;
    let store = &fixture.stores[0];
    let slot = |second: i64| chrono::Utc::now() - chrono::TimeDelta::seconds(100 - second);
    assert_eq!(store.record_sweep(slot(0), "p", SWEEP).await.unwrap().unwrap().runs, 3);
    let claim = store.claim(1).await.unwrap().claims.remove(0);
    let second = store.record_sweep(slot(1), "p", SWEEP).await.unwrap().unwrap();
    assert_eq!((second.runs, second.already_queued.len()), (1, 2), "the one that runs gets one more");
    for number in 2..24 {
        let fired = store.record_sweep(slot(number), "p", SWEEP).await.unwrap().unwrap();
        assert_eq!((fired.runs, fired.already_queued.len()), (0, 3));
    }
    assert_eq!(fixture.database.number("SELECT count(*) FROM runs WHERE status = 'queued'").await, 3);
    store.finish(&claim.lease, succeeded()).await.unwrap();
    loop {
        let claims = store.claim(10).await.unwrap().claims;
        if claims.is_empty() {
            break;
        }
        for claim in claims {
            store.finish(&claim.lease, succeeded()).await.unwrap();
        }
    }
    // Two replicas at one moment, each with a separate sweep.
    let fired =
        tokio::join!(store.record_sweep(slot(30), "p", SWEEP), fixture.stores[1].record_sweep(slot(31), "q", SWEEP));
    let runs = [fired.0, fired.1].map(|fired| fired.unwrap().unwrap().runs);
    assert_eq!(runs.iter().sum::<u64>(), 3, "{runs:?}");
}

async fn a_cancelled_run_does_not_wait(engine: Engine) {
    let fixture = fixture(engine, 1, 1, LONG).await;
    let store = &fixture.stores[0];
    let EnqueueOutcome::Queued(run) = store.enqueue(by(Trigger::Http, 1)).await.unwrap() else { panic!("not queued") };
    let claim = store.claim(1).await.unwrap().claims.remove(0);
    store.cancel(run, &Actor::Local).await.unwrap();
    let wait = Wait { reason: WaitReason::Database, message: "m".to_owned() };
    let released = store.release(&claim.lease, Duration::from_secs(60), Some(&wait)).await.unwrap();
    assert_eq!(released, Released::Cancelled);
    assert_eq!(store.run(run).await.unwrap().unwrap().waiting, None);
}

async fn runs_by_hand_go_first(engine: Engine) {
    let fixture = fixture(engine, 2, 1, LONG).await;
    let store = &fixture.stores[0];
    store
        .record_sweep(
            chrono::Utc::now() - chrono::TimeDelta::minutes(1),
            "p",
            SweepDecision::Run { trigger: Trigger::Schedule, spread: Duration::ZERO },
        )
        .await
        .unwrap();
    // A run that waits is active: by hand one cannot be added to it.
    assert!(matches!(store.enqueue(by(Trigger::Http, 2)).await.unwrap(), EnqueueOutcome::Active(_)));
    assert_eq!(store.enqueue(by(Trigger::Http, 3)).await.unwrap(), EnqueueOutcome::UnknownMerchant);
    let claims = store.claim(10).await.unwrap().claims;
    assert_eq!(claims.len(), 2);
    // The next firing waits for the run that is under way.
    store
        .record_sweep(
            chrono::Utc::now(),
            "p",
            SweepDecision::Run { trigger: Trigger::Schedule, spread: Duration::ZERO },
        )
        .await
        .unwrap();
    assert!(store.claim(10).await.unwrap().claims.is_empty());
    assert!(matches!(store.start(by(Trigger::Cli, 1)).await.unwrap(), StartOutcome::Busy { .. }));
    let first = claims.iter().find(|claim| claim.lease.merchant == MerchantId(1)).unwrap();
    store.finish(&first.lease, succeeded()).await.unwrap();
    let next = store.claim(10).await.unwrap().claims;
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].lease.merchant, MerchantId(1));
    assert!(matches!(next[0].covered(Resource::Orders), Covered::UpTo(_)));
}

async fn a_page_that_was_committed_before_is_not_counted_twice(engine: Engine) {
    let fixture = fixture(engine, 1, 1, LONG).await;
    let store = &fixture.stores[0];
    store.enqueue(by(Trigger::Http, 1)).await.unwrap();
    let claim = store.claim(1).await.unwrap().claims.remove(0);
    let two = cursor(2);
    let mut totals = Totals::default();
    totals.count(salla_reconciler::domain::Outcome::Created);
    let once = store.commit(&claim.lease, page(&two, totals)).await.unwrap();
    let again = store.commit(&claim.lease, page(&two, Totals::default())).await.unwrap();
    assert_eq!(once, again);
}

async fn a_renewal_returns_the_runs_that_continue(engine: Engine) {
    let fixture = fixture(engine, 2, 2, LONG).await;
    let [ours, theirs] = &fixture.stores[..] else { unreachable!() };
    ours.enqueue(by(Trigger::Http, 1)).await.unwrap();
    let claim = ours.claim(1).await.unwrap().claims.remove(0);
    lapse(&fixture).await;
    assert_eq!(ours.renew_leases(&[claim.lease]).await.unwrap(), [claim.lease]);
    assert!(theirs.claim(1).await.unwrap().claims.is_empty());
    lapse(&fixture).await;
    assert_eq!(theirs.claim(1).await.unwrap().claims.len(), 1);
    assert!(ours.renew_leases(&[claim.lease]).await.unwrap().is_empty());
}

async fn old_runs_are_removed(engine: Engine) {
    let fixture = fixture(engine, 1, 1, LONG).await;
    let store = &fixture.stores[0];
    store.enqueue(by(Trigger::Http, 1)).await.unwrap();
    let claim = store.claim(1).await.unwrap().claims.remove(0);
    assert_eq!(store.prune(Duration::ZERO).await.unwrap(), 0);
    store.finish(&claim.lease, succeeded()).await.unwrap();
    assert_eq!(store.prune(LONG).await.unwrap(), 0);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(store.prune(Duration::ZERO).await.unwrap(), 1);
}

async fn keys_and_audit_entries_expire(engine: Engine) {
    let fixture = fixture(engine, 3, 1, LONG).await;
    let (store, database) = (&fixture.stores[0], &fixture.database);
    for merchant in 1..=3 {
        let key = IdempotencyKey { key: merchant.to_string(), body: [0; 32] };
        let made = store.enqueue(NewRun { key: Some(key), ..by(Trigger::Http, merchant) }).await.unwrap();
        assert!(matches!(made, EnqueueOutcome::Queued(_)));
    }
    let ago = |hours| chrono::Utc::now() - chrono::TimeDelta::hours(hours);
    for (hours, key) in [(25, "1"), (23, "2")] {
        database
            .execute("UPDATE idempotency_keys SET created_at = $1 WHERE key = $2", [ago(hours).into(), key.into()])
            .await;
    }
    for (days, merchant) in [(366, 1), (364, 2)] {
        let values = [ago(days * 24).into(), merchant.into()];
        database.execute("UPDATE audit SET at = $1 WHERE merchant_id = $2", values).await;
    }
    // The key of a run that is gone goes with it, and what is on record of the run stays.
    database
        .execute("UPDATE runs SET finished_at = $1, status = 'cancelled' WHERE merchant_id = 3", [ago(48).into()])
        .await;
    assert_eq!(store.prune(Duration::from_secs(86_400)).await.unwrap(), 1);
    let kept = database.rows("SELECT key FROM idempotency_keys").await;
    let kept: Vec<String> = kept.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
    assert_eq!(kept, ["2"]);
    let entries = store.audit(None, 10).await.unwrap();
    let entries: Vec<_> = entries.iter().map(|entry| (entry.action.as_str(), entry.merchant_id.unwrap().0)).collect();
    let expected = ["run.trigger", "merchant.register"].map(|action| [(action, 3), (action, 2)]);
    assert_eq!(entries, expected.concat());
}

async fn only_own_leases_are_renewed(engine: Engine) {
    let fixture = fixture(engine, 2, 1, LONG).await;
    let store = &fixture.stores[0];
    for merchant in [1, 2] {
        store.enqueue(by(Trigger::Http, merchant)).await.unwrap();
    }
    let claims = store.claim(2).await.unwrap().claims;
    lapse(&fixture).await;
    assert_eq!(store.renew_leases(&[claims[0].lease]).await.unwrap(), [claims[0].lease]);
    let again = store.claim(2).await.unwrap().claims;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].lease.run_id, claims[1].lease.run_id);
    // The older lease on the same run is not the newer one.
    assert!(store.renew_leases(&[claims[1].lease]).await.unwrap().is_empty());
}

async fn a_merchant_that_is_removed_during_its_run(engine: Engine) {
    let fixture = fixture(engine, 1, 1, LONG).await;
    let store = &fixture.stores[0];
    store.enqueue(by(Trigger::Http, 1)).await.unwrap();
    let claim = store.claim(1).await.unwrap().claims.remove(0);
    assert!(store.remove(MerchantId(1), &Actor::Local).await.unwrap());
    assert_eq!(store.finish(&claim.lease, succeeded()).await.unwrap().status, RunStatus::Succeeded);
    assert!(fixture.database.rows("SELECT * FROM watermarks").await.is_empty());
}

async fn the_foreground_requeues_an_expired_daemon_run(engine: Engine) {
    let fixture = fixture(engine, 1, 1, LONG).await;
    let store = &fixture.stores[0];
    store.enqueue(by(Trigger::Http, 1)).await.unwrap();
    let backfill = store.claim(1).await.unwrap().claims.remove(0);
    let two = cursor(2);
    store.commit(&backfill.lease, page(&two, Totals::default())).await.unwrap();
    lapse(&fixture).await;
    let StartOutcome::Claimed { claim: ours, .. } = store.start(by(Trigger::Cli, 1)).await.unwrap() else {
        panic!("it is busy")
    };
    store.finish(&ours.lease, succeeded()).await.unwrap();
    let again = store.claim(1).await.unwrap().claims.remove(0);
    assert_eq!(again.lease.run_id, backfill.lease.run_id);
    assert_eq!(again.resumed.unwrap().cursor, two);
}

async fn a_refresh_is_begun_once(engine: Engine) {
    let fixture = fixture(engine, 1, 4, LONG).await;
    let first = fixture.stores[0].load(MerchantId(1)).await.unwrap().unwrap().version;
    let begin = fixture.stores.iter().map(|store| store.begin_refresh(MerchantId(1), first, uuid::Uuid::new_v4()));
    let won = futures::future::join_all(begin).await.into_iter().filter(|won| *won.as_ref().unwrap()).count();
    assert_eq!(won, 1);
    let store = &fixture.stores[0];
    assert!(store.load(MerchantId(1)).await.unwrap().unwrap().refreshing_for.is_some());
    let tokens = Tokens { access: Sealed("y".into()), refresh: None, expires_at: None, owner_confirmed: false };
    store.complete_refresh(MerchantId(1), first, &tokens).await.unwrap();
    let renewed = store.load(MerchantId(1)).await.unwrap().unwrap();
    assert_eq!((renewed.version, renewed.refreshing_for, renewed.tokens.access.0.as_str()), (first + 1, None, "y"));
    assert!(!store.begin_refresh(MerchantId(1), first, uuid::Uuid::new_v4()).await.unwrap());
    // A refusal of tokens that have been replaced says nothing about the new ones.
    store.revoked(MerchantId(1), first).await.unwrap();
    assert_eq!(fixture.database.text("SELECT state FROM merchants").await, "active");
    store.revoked(MerchantId(1), first + 1).await.unwrap();
    assert_eq!(fixture.database.text("SELECT state FROM merchants").await, "needs_reauthorization");
}

async fn a_late_save_of_tokens_counts(engine: Engine) {
    let fixture = fixture(engine, 1, 1, LONG).await;
    let (store, id) = (&fixture.stores[0], MerchantId(1));
    let version = store.load(id).await.unwrap().unwrap().version;
    let [ours, other] = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
    assert!(store.begin_refresh(id, version, ours).await.unwrap());
    store.abandon_refresh(id, other).await.unwrap();
    assert!(!store.begin_refresh(id, version, other).await.unwrap());
    store.abandon_refresh(id, ours).await.unwrap();
    assert!(store.begin_refresh(id, version, other).await.unwrap());
    // A process that stalls is given up, and then wakes up with the new tokens.
    let long_ago = chrono::Utc::now() - chrono::TimeDelta::minutes(3);
    fixture.database.execute("UPDATE credentials SET refresh_started_at = $1", [long_ago.into()]).await;
    assert_eq!(store.doubt(None).await.unwrap(), [id]);
    assert!(store.doubt(None).await.unwrap().is_empty());
    assert_eq!(fixture.database.text("SELECT state FROM merchants").await, "needs_reauthorization");
    let tokens = Tokens { access: Sealed("y".into()), refresh: None, expires_at: None, owner_confirmed: false };
    store.complete_refresh(id, version, &tokens).await.unwrap();
    assert_eq!(fixture.database.text("SELECT state FROM merchants").await, "active");
}

async fn an_ended_sweep_is_reported_once(engine: Engine) {
    let fixture = fixture(engine, 2, 2, LONG).await;
    let [store, other] = &fixture.stores[..] else { unreachable!() };
    let firing = SweepDecision::Run { trigger: Trigger::Schedule, spread: Duration::ZERO };
    store.record_sweep(chrono::Utc::now(), "p", firing).await.unwrap();
    for claim in store.claim(2).await.unwrap().claims {
        assert!(other.ended_sweeps().await.unwrap().is_empty());
        store.finish(&claim.lease, succeeded()).await.unwrap();
    }
    let told = [store.ended_sweeps().await.unwrap(), other.ended_sweeps().await.unwrap()].concat();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].runs, [(RunStatus::Succeeded, 2, Totals::default())]);
}

async fn concurrent_requests_queue_one_run(engine: Engine) {
    let fixture = fixture(engine, 1, 3, LONG).await;
    for _ in 0..10 {
        let requests = (0..12).map(|number| {
            let store = &fixture.stores[number % 3];
            async move {
                let queued = matches!(store.enqueue(by(Trigger::Http, 1)).await.unwrap(), EnqueueOutcome::Queued(_));
                (queued, store.claim(1).await.unwrap().claims)
            }
        });
        let answers = futures::future::join_all(requests).await;
        assert_eq!(answers.iter().filter(|answer| answer.0).count(), 1);
        let claims: Vec<_> = answers.into_iter().flat_map(|answer| answer.1).collect();
        let claims = if claims.is_empty() { fixture.stores[0].claim(1).await.unwrap().claims } else { claims };
        assert_eq!(claims.len(), 1);
        fixture.stores[0].finish(&claims[0].lease, succeeded()).await.unwrap();
    }
}

/// The failed attempts of each merchant's run.
async fn failed_attempts(fixture: &Fixture) -> Vec<(i64, i64)> {
    let rows = fixture.database.rows("SELECT merchant_id, failed_attempts FROM runs ORDER BY merchant_id").await;
    rows.iter().map(|row| (row.try_get_by_index(0).unwrap(), row.try_get_by_index(1).unwrap())).collect()
}

async fn a_committed_page_resets_failed_attempts(engine: Engine) {
    let fixture = fixture(engine, 1, 1, LONG).await;
    let store = &fixture.stores[0];
    store.enqueue(by(Trigger::Http, 1)).await.unwrap();
    let mut claim = store.claim(1).await.unwrap().claims.remove(0);
    // Far more crashes than park a run that gets nowhere.
    for number in 2..10 {
        assert_eq!(failed_attempts(&fixture).await, [(1, 0)]);
        lapse(&fixture).await;
        claim = store.claim(1).await.unwrap().claims.remove(0);
        assert_eq!(failed_attempts(&fixture).await, [(1, 1)]);
        store.commit(&claim.lease, page(&cursor(number), Totals::default())).await.unwrap();
    }
    assert_eq!(store.finish(&claim.lease, succeeded()).await.unwrap().status, RunStatus::Succeeded);
    assert_eq!(fixture.database.number("SELECT attempt FROM runs").await, 9);
}

async fn five_failed_attempts_end_a_run(engine: Engine) {
    let fixture = fixture(engine, 1, 1, LONG).await;
    let store = &fixture.stores[0];
    store.enqueue(by(Trigger::Http, 1)).await.unwrap();
    for died in 0..5 {
        let claim = store.claim(1).await.unwrap().claims.pop().unwrap_or_else(|| panic!("parked after {died} deaths"));
        // An orderly end does not count as a failed attempt, and does not reset the number.
        if died == 2 {
            assert_eq!(store.release(&claim.lease, Duration::ZERO, None).await.unwrap(), Released::Queued);
            assert_eq!(failed_attempts(&fixture).await, [(1, died)]);
            assert_eq!(store.claim(1).await.unwrap().claims.len(), 1);
        }
        assert_eq!(failed_attempts(&fixture).await, [(1, died)]);
        lapse(&fixture).await;
    }
    assert!(store.claim(1).await.unwrap().claims.is_empty());
    assert_eq!(failed_attempts(&fixture).await, [(1, 5)]);
    assert_eq!(fixture.database.text("SELECT status || ' ' || error_kind FROM runs").await, "failed worker_crash_loop");
    let told = fixture.database.text("SELECT error_message FROM runs").await;
    assert!(told.contains("5 times in a row") && told.contains("check the logs"), "{told}");
    // The merchant is free for its next run.
    assert!(matches!(store.enqueue(by(Trigger::Http, 1)).await.unwrap(), EnqueueOutcome::Queued(_)));
    assert_eq!(store.claim(1).await.unwrap().claims.len(), 1);
}

async fn a_process_holds_one_run_with_failed_attempts(engine: Engine) {
    let fixture = fixture(engine, 5, 2, LONG).await;
    let [store, other] = &fixture.stores[..] else { unreachable!() };
    for merchant in 1..=4 {
        store.enqueue(by(Trigger::Http, merchant)).await.unwrap();
    }
    let merchants = |claims: &[salla_reconciler::reconcile::ports::Claim]| {
        claims.iter().map(|claim| claim.lease.merchant.0).collect::<Vec<_>>()
    };
    assert_eq!(store.claim(9).await.unwrap().claims.len(), 4);
    lapse(&fixture).await;
    // The cause is unknown yet, so each is charged.
    assert_eq!(store.claim(9).await.unwrap().claims.len(), 4);
    assert_eq!(failed_attempts(&fixture).await, [(1, 1), (2, 1), (3, 1), (4, 1)]);
    fixture.database.execute("UPDATE runs SET failed_attempts = 3 WHERE merchant_id = 1", []).await;
    lapse(&fixture).await;
    // From now on one at a time, the most suspicious last; a run without a setback need not wait for it.
    store.enqueue(by(Trigger::Http, 5)).await.unwrap();
    let mut ours = store.claim(9).await.unwrap().claims;
    ours.sort_by_key(|claim| claim.lease.merchant.0);
    assert_eq!(merchants(&ours), [2, 5]);
    assert!(store.claim(9).await.unwrap().claims.is_empty());
    // Another process may also hold one of them.
    let theirs = other.claim(9).await.unwrap().claims;
    assert_eq!(merchants(&theirs), [3]);
    assert!(other.claim(9).await.unwrap().claims.is_empty());
    // A page clears its run, and its end makes room.
    let two = cursor(2);
    store.commit(&ours[0].lease, page(&two, Totals::default())).await.unwrap();
    let next = store.claim(9).await.unwrap().claims;
    assert_eq!(merchants(&next), [4]);
    store.finish(&next[0].lease, succeeded()).await.unwrap();
    assert_eq!(merchants(&store.claim(9).await.unwrap().claims), [1]);
    assert_eq!(failed_attempts(&fixture).await, [(1, 4), (2, 0), (3, 2), (4, 2), (5, 0)]);
}

async fn the_foreground_counts_failed_attempts(engine: Engine) {
    let fixture = fixture(engine, 1, 1, LONG).await;
    let store = &fixture.stores[0];
    store.enqueue(by(Trigger::Http, 1)).await.unwrap();
    store.claim(1).await.unwrap();
    for died in 1..5 {
        lapse(&fixture).await;
        let StartOutcome::Claimed { claim: ours, .. } = store.start(by(Trigger::Cli, 1)).await.unwrap() else {
            panic!("it is busy")
        };
        store.finish(&ours.lease, succeeded()).await.unwrap();
        assert_eq!(store.claim(1).await.unwrap().claims.len(), 1);
        assert_eq!(fixture.database.number("SELECT max(failed_attempts) FROM runs").await, died);
    }
    lapse(&fixture).await;
    assert!(matches!(store.start(by(Trigger::Cli, 1)).await.unwrap(), StartOutcome::Claimed { .. }));
    assert_eq!(fixture.database.number("SELECT count(*) FROM runs WHERE error_kind = 'worker_crash_loop'").await, 1);
}

/// A caller may drop a call at any of its awaits, also during `BEGIN`. It leaves no open
/// transaction, in which the writes of the next caller would seem done.
async fn aborted_transactions_affect_no_other_call(engine: Engine) {
    let fixture = fixture(engine, 1, 1, LONG).await;
    let store = Store::connect(&fixture.database.url.clone().into(), SCHEMA, 1, LONG).await.unwrap();
    for polls in 1..=16 {
        {
            let mut call = pin!(store.enqueue(by(Trigger::Http, 1)));
            for _ in 0..polls {
                if poll!(&mut call).is_ready() {
                    break;
                }
                sleep(Duration::from_millis(2)).await;
            }
        }
        store.save_recent_requests(MerchantId(1), polls).await.unwrap();
        let spent = fixture.database.number("SELECT CAST(recent_requests AS bigint) FROM rate_limit_backoffs").await;
        assert_eq!(spent, i64::from(polls), "given up after {polls} polls");
    }
    if engine != Engine::Sqlite {
        // The connection of a call that was not given up is used again.
        let sessions = "SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity \
                        WHERE datname = current_database() AND application_name = 'salla-reconciler'";
        let before = fixture.database.text(sessions).await;
        for spent in 1..=3 {
            store.save_recent_requests(MerchantId(1), spent).await.unwrap();
        }
        assert_eq!(fixture.database.text(sessions).await, before);
    }
}
