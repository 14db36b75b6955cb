//! A database in memory: stored orders, and a queue that notes how each run leaves the process.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use uuid::Uuid;

use super::fake_salla::instant;
use crate::{
    domain::{
        Customer, Decision, Drift, Found, LastDetailCheck, Merchant, MerchantId, Order, OrderStatus, Outcome, Product,
        Record, Request, ResourceRun, RotationPace, RotationWindow, Run, RunId, RunStatus, SortedList, StoredRecord,
        Trigger, Wait,
    },
    reconcile::ports::{
        Actor, Audited, BackoffStore, Claim, ClaimedRuns, Committed, CorrectedRecord, DatabaseError, DriftFilter,
        EndedSweep, EnqueueOutcome, ExpectedRecords, Gauges, GlobalPause, Lease, NewRun, NotReady, PageCommit,
        RecordStore, RecordedSweep, Released, RunFilter, RunHistory, RunOutcome, RunQueue, ScheduleStore,
        SortedListRead, StartOutcome, StoredVersion, SweepDecision,
    },
};

/// What became of a run.
#[derive(Debug, Clone)]
pub enum Left {
    Finished(RunOutcome),
    Released(Duration, Option<Wait>),
    ReleasedAfterFailure(Duration, Option<Wait>),
    Yielded,
}

/// What a test sets and reads.
#[derive(Default)]
pub struct State {
    pub orders: BTreeMap<i64, StoredRecord<Order>>,
    pub failed_records: Vec<i64>,
    /// Orders that the lists of a run need not show.
    pub outside_window: Vec<i64>,
    /// Failures of the next commits, the next one first; `None`: it succeeds.
    pub commit_errors: VecDeque<Option<DatabaseError>>,
    /// The ids that each commit wrote, marked deleted, or found unreadable.
    pub commits: Vec<Vec<i64>>,
    pub lookups: usize,
    /// The next commit reports that a person cancelled the run.
    pub cancel: bool,
    /// Other runs wait in the queue.
    pub others_wait: bool,
    pub queue: Vec<Claim>,
    pub left: Vec<Left>,
}

/// Clones share the state.
#[derive(Clone, Default)]
pub struct FakeStore(pub Arc<Mutex<State>>);

impl FakeStore {
    /// Stores an order as Salla has it.
    pub fn store(&self, order: &Order) {
        self.0.lock().orders.insert(order.id, stored(order));
    }

    /// The ids that are stored and not marked deleted.
    pub fn present(&self) -> Vec<i64> {
        self.0.lock().orders.iter().filter(|(_, order)| !order.deleted).map(|(id, _)| *id).collect()
    }

    /// How the only run left this process.
    pub fn left(&self) -> Left {
        let left = self.0.lock().left.clone();
        assert_eq!(left.len(), 1, "{left:?}");
        left.into_iter().next().unwrap()
    }

    /// The outcome of the only run.
    pub fn outcome(&self) -> RunOutcome {
        match self.left() {
            Left::Finished(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }
}

fn stored(order: &Order) -> StoredRecord<Order> {
    StoredRecord {
        updated_at: order.updated_at,
        content_hash: Some(order.content_hash()),
        payload_hash: None,
        deleted: false,
        columns: order.columns.clone(),
        items_version: None,
        known: None,
    }
}

/// A claim on a run of all kinds of record, of a merchant whose records were never read.
pub fn claim(merchant: i64) -> Claim {
    Claim {
        lease: Lease { run_id: Uuid::now_v7(), merchant: MerchantId(merchant), epoch: 1 },
        trigger: Trigger::Schedule,
        request: Request { full: true, ..Request::default() },
        now: instant(1_000_000),
        watermarks: Vec::new(),
        registered_at: instant(0),
        pause: None,
        recent_requests: 0,
        has_failed_records: false,
        resumed: None,
        erased: Vec::new(),
        failed_attempts: 0,
    }
}

pub fn away() -> DatabaseError {
    DatabaseError::Unavailable("no answer".into())
}

impl RecordStore<Order> for FakeStore {
    async fn look_up(&self, _: MerchantId, ids: &[i64]) -> Result<HashMap<i64, StoredRecord<Order>>, DatabaseError> {
        let mut state = self.0.lock();
        state.lookups += 1;
        Ok(ids.iter().filter_map(|id| Some((*id, state.orders.get(id)?.clone()))).collect())
    }

    async fn checks(&self, _: MerchantId, _: &[i64]) -> Result<HashMap<i64, LastDetailCheck>, DatabaseError> {
        Ok(HashMap::new())
    }

    async fn slice(&self, _: MerchantId, _: RotationPace) -> Result<Option<RotationWindow>, DatabaseError> {
        Ok(None)
    }

    async fn sorted_list(&self, _: MerchantId, _: DateTime<Utc>) -> Result<SortedListRead, DatabaseError> {
        Ok(SortedListRead { list: SortedList::default(), stored: 0, details_since: None })
    }

    async fn samples(&self, _: MerchantId, _: DateTime<Utc>, _: usize, _: usize) -> Result<Vec<i64>, DatabaseError> {
        Ok(Vec::new())
    }

    async fn unseen(
        &self,
        _: MerchantId,
        _: ExpectedRecords,
        seen: &(dyn Fn(i64) -> bool + Sync),
    ) -> Result<(usize, Vec<StoredVersion>), DatabaseError> {
        let state = self.0.lock();
        let is_expected = |id: &i64| !state.outside_window.contains(id);
        let present = state.orders.iter().filter(|(id, order)| !order.deleted && is_expected(id));
        let unseen = present.clone().filter(|(id, _)| !seen(**id)).map(|(id, order)| (*id, order.updated_at));
        Ok((present.count(), unseen.collect()))
    }

    async fn failed_records(&self, _: MerchantId) -> Result<Vec<i64>, DatabaseError> {
        Ok(self.0.lock().failed_records.clone())
    }

    async fn commit(&self, _: &Lease, page: PageCommit<'_, Order>) -> Result<Committed, DatabaseError> {
        let mut state = self.0.lock();
        if let Some(Some(error)) = state.commit_errors.pop_front() {
            return Err(error);
        }
        let mut totals = page.resource_runs[page.at].totals;
        let mut ids = Vec::new();
        for planned in page.batch.records.iter().filter(|planned| !planned.repeat) {
            totals.count(planned.outcome());
            if !matches!(planned.decision, Decision::Unchanged | Decision::NewerLocally) {
                ids.push(planned.record.id);
                state.orders.insert(planned.record.id, stored(&planned.record));
            }
        }
        for bad in &page.batch.unreadable {
            totals.count(bad.outcome);
            ids.extend(bad.id);
        }
        (0..page.batch.unchanged).for_each(|_| totals.count(Outcome::Unchanged));
        for (id, version) in &page.batch.deleted {
            ids.push(*id);
            if let Some(order) = state.orders.get_mut(id).filter(|order| order.updated_at == *version) {
                order.deleted = true;
            }
        }
        state.commits.push(ids);
        Ok(Committed { totals, cancel: state.cancel })
    }
}

macro_rules! nothing_of {
    ($($record:ty),+) => {
        $(impl RecordStore<$record> for FakeStore {
            async fn look_up(&self, _: MerchantId, _: &[i64]) -> Result<HashMap<i64, StoredRecord<$record>>, DatabaseError> {
                Ok(HashMap::new())
            }

            async fn checks(&self, _: MerchantId, _: &[i64]) -> Result<HashMap<i64, LastDetailCheck>, DatabaseError> {
                Ok(HashMap::new())
            }

            async fn slice(&self, _: MerchantId, _: RotationPace) -> Result<Option<RotationWindow>, DatabaseError> {
                Ok(None)
            }

            async fn sorted_list(&self, _: MerchantId, _: DateTime<Utc>) -> Result<SortedListRead, DatabaseError> {
                Ok(SortedListRead { list: SortedList::default(), stored: 0, details_since: None })
            }

            async fn samples(&self, _: MerchantId, _: DateTime<Utc>, _: usize, _: usize) -> Result<Vec<i64>, DatabaseError> {
                Ok(Vec::new())
            }

            async fn unseen(
                &self,
                _: MerchantId,
                _: ExpectedRecords,
                _: &(dyn Fn(i64) -> bool + Sync),
            ) -> Result<(usize, Vec<StoredVersion>), DatabaseError> {
                Ok((0, Vec::new()))
            }

            async fn failed_records(&self, _: MerchantId) -> Result<Vec<i64>, DatabaseError> {
                Ok(Vec::new())
            }

            async fn commit(&self, _: &Lease, page: PageCommit<'_, $record>) -> Result<Committed, DatabaseError> {
                Ok(Committed { totals: page.resource_runs[page.at].totals, cancel: false })
            }
        })+
    };
}
nothing_of!(Product, Customer, OrderStatus);

impl RunQueue for FakeStore {
    async fn enqueue(&self, _: NewRun) -> Result<EnqueueOutcome, DatabaseError> {
        Ok(EnqueueOutcome::UnknownMerchant)
    }

    async fn start(&self, _: NewRun) -> Result<StartOutcome, DatabaseError> {
        Ok(StartOutcome::UnknownMerchant)
    }

    async fn claim(&self, limit: u32) -> Result<ClaimedRuns, DatabaseError> {
        let mut state = self.0.lock();
        let most = state.queue.len().min(limit as usize);
        Ok(ClaimedRuns { claims: state.queue.drain(..most).collect(), abandoned: Vec::new() })
    }

    async fn global_pause(&self) -> Result<Option<GlobalPause>, DatabaseError> {
        Ok(None)
    }

    async fn renew_leases(&self, held: &[Lease]) -> Result<Vec<Lease>, DatabaseError> {
        Ok(held.to_vec())
    }

    async fn finish(&self, lease: &Lease, ending: RunOutcome) -> Result<Run, DatabaseError> {
        let run = Run {
            run_id: lease.run_id,
            merchant_id: lease.merchant,
            status: ending.status,
            trigger: Trigger::Schedule,
            listing: None,
            dry_run: false,
            window: None,
            totals: ResourceRun::sum(&ending.resource_runs),
            resource_results: ending.resource_runs.clone(),
            requests: ending.requests,
            error: ending.failure.clone(),
            waiting: None,
            queued_at: instant(0),
            started_at: None,
            finished_at: None,
        };
        self.0.lock().left.push(Left::Finished(ending));
        Ok(run)
    }

    async fn release(&self, _: &Lease, pause: Duration, wait: Option<&Wait>) -> Result<Released, DatabaseError> {
        self.0.lock().left.push(Left::Released(pause, wait.cloned()));
        Ok(Released::Queued)
    }

    async fn release_after_failure(
        &self,
        _: &Lease,
        pause: Duration,
        wait: Option<&Wait>,
    ) -> Result<Released, DatabaseError> {
        self.0.lock().left.push(Left::ReleasedAfterFailure(pause, wait.cloned()));
        Ok(Released::Queued)
    }

    async fn note_wait(&self, _: &Lease, _: Option<(&Wait, Duration)>) -> Result<(), DatabaseError> {
        Ok(())
    }

    async fn yield_run(&self, _: &Lease) -> Result<bool, DatabaseError> {
        let mut state = self.0.lock();
        if state.others_wait {
            state.left.push(Left::Yielded);
        }
        Ok(state.others_wait)
    }

    async fn cancel(&self, _: RunId, _: &Actor) -> Result<Option<bool>, DatabaseError> {
        Ok(None)
    }
}

impl ScheduleStore for FakeStore {
    async fn last_sweep(&self, _: &str) -> Result<Option<DateTime<Utc>>, DatabaseError> {
        Ok(None)
    }

    async fn record_sweep(
        &self,
        _: DateTime<Utc>,
        _: &str,
        _: SweepDecision,
    ) -> Result<Option<RecordedSweep>, DatabaseError> {
        Ok(None)
    }

    async fn enqueue_deferred(&self) -> Result<RecordedSweep, DatabaseError> {
        Ok(RecordedSweep::default())
    }

    async fn ended_sweeps(&self) -> Result<Vec<EndedSweep>, DatabaseError> {
        Ok(Vec::new())
    }

    async fn now(&self) -> Result<DateTime<Utc>, DatabaseError> {
        Ok(instant(1_000_000))
    }
}

impl RunHistory for FakeStore {
    async fn runs(&self, _: RunFilter) -> Result<Vec<Run>, DatabaseError> {
        Ok(Vec::new())
    }

    async fn run(&self, _: RunId) -> Result<Option<Run>, DatabaseError> {
        Ok(None)
    }

    async fn discrepancies(&self, _: RunId, _: u64, _: u64) -> Result<Vec<Found>, DatabaseError> {
        Ok(Vec::new())
    }

    async fn drift(&self, _: DriftFilter) -> Result<Vec<Drift>, DatabaseError> {
        Ok(Vec::new())
    }

    async fn corrected_records(&self, _: DriftFilter, _: i64, _: u64) -> Result<Vec<CorrectedRecord>, DatabaseError> {
        Ok(Vec::new())
    }

    async fn audit(&self, _: Option<i64>, _: u64) -> Result<Vec<Audited>, DatabaseError> {
        Ok(Vec::new())
    }

    async fn merchants(&self) -> Result<Vec<Merchant>, DatabaseError> {
        Ok(Vec::new())
    }

    async fn gauges(&self) -> Result<Gauges, DatabaseError> {
        Ok(Gauges::default())
    }

    async fn ready(&self) -> Result<(), NotReady> {
        Ok(())
    }

    async fn prune(&self, _: Duration) -> Result<u64, DatabaseError> {
        Ok(0)
    }
}

impl BackoffStore for FakeStore {
    async fn pause(&self, _: MerchantId, _: Duration) -> Result<(), DatabaseError> {
        Ok(())
    }

    async fn save_recent_requests(&self, _: MerchantId, _: u32) -> Result<(), DatabaseError> {
        Ok(())
    }
}

/// The statuses of the resource runs of a run.
pub fn statuses(outcome: &RunOutcome) -> Vec<RunStatus> {
    outcome.resource_runs.iter().map(|resource_run| resource_run.status).collect()
}
