//! Reads the list that is sorted by time of change, down to the changes that earlier runs have
//! read. The server must prove that it sorts. Otherwise the run scans the whole list.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use tracing::Instrument;

use super::{EngineError, ResourceState, RunContext, RunProgress};
use crate::{
    domain::{
        ContentHash, Decision, DetailCheckSchedule, Listing, Record, Scope, SortedList, SortedListResult, needs_detail,
    },
    reconcile::{
        ports::{AssessedRecord, Batch, Listed, Page, PageRequest, RecordStore, Row, RunQueue, Source},
        sorted::{Bounds, Conclusion, Rules, SortedPage, SortedRow, SortedWalk, Step},
        span,
    },
};

/// A change that the sorted list should have shown, tonight or on an earlier night.
#[derive(Debug, Clone, Copy)]
pub struct MissedChange {
    pub id: i64,
    /// The stored time of change.
    pub stored: Option<DateTime<Utc>>,
    /// Salla's time of change.
    pub changed: Option<DateTime<Utc>>,
}

/// The rows of a sorted list that the run has met.
#[derive(Default)]
struct MetRows {
    /// The hashes of the rows, where they could be read.
    rows: HashMap<i64, ContentHash>,
    /// Rows whose details were not read.
    unread: HashSet<i64>,
    /// Rows of orders that were newer than their details, and different, when the details were last read.
    newer_locally: HashSet<i64>,
}

impl ResourceState {
    /// Records that changed before `settled_until` and that no earlier run stored, although the list shows them.
    pub fn missed_changes<R: Record>(
        &self,
        records: &[AssessedRecord<R>],
        settled_until: Option<DateTime<Utc>>,
    ) -> Vec<MissedChange> {
        if self.reader.cursor().listing != Listing::Sort {
            return Vec::new();
        }
        let missed = records.iter().filter_map(|one| missed_change(one, settled_until));
        missed.filter(|missed| !self.reader.has_failed(missed.id)).collect()
    }
}

fn missed_change<R: Record>(one: &AssessedRecord<R>, settled_until: Option<DateTime<Utc>>) -> Option<MissedChange> {
    let stored = one.stored.as_ref().filter(|stored| !stored.deleted)?;
    let is_newer = stored.updated_at.is_some() && one.record.updated_at() > stored.updated_at;
    let is_newer = is_newer && matches!(one.decision, Decision::Update { .. });
    let is_settled = one.record.updated_at() < settled_until;
    let missed = MissedChange { id: one.record.id(), stored: stored.updated_at, changed: one.record.updated_at() };
    (is_newer && is_settled).then_some(missed)
}

impl<S, T> RunContext<'_, S, T> {
    /// Changes since then may still be on their way into the list.
    pub(super) fn recent_since(&self, state: &ResourceState) -> Option<DateTime<Utc>> {
        state.reader.cursor().observed_at?.checked_sub_signed(self.overlap)
    }

    /// Reads the sorted list down to the threshold. Goes on to the slice, or begins to scan all records.
    pub(super) async fn read_sorted_list<R>(
        &self,
        state: &mut ResourceState,
        progress: &mut RunProgress,
    ) -> Result<(), EngineError>
    where
        R: Record,
        S: Source<R>,
        T: RecordStore<R> + RunQueue,
    {
        let Some(plan) = state.sorted else {
            return self.scan_instead(SortedListResult::NoPlan, state, progress);
        };
        let stored = usize::try_from(plan.stored).unwrap_or(usize::MAX);
        let (mut walk, mut met): (Option<SortedWalk>, MetRows) = (None, MetRows::default());
        loop {
            let step = walk.as_mut().map_or(Step::Page { number: 1, page_size: None }, SortedWalk::next);
            match step {
                Step::Page { number, page_size } => {
                    let request = PageRequest {
                        whose: self.merchant(),
                        scope: Scope::SortedByChange,
                        number,
                        page_size,
                        by_id: false,
                    };
                    let page = self.fetch::<R>(request, progress).instrument(span::of_page(number)).await?;
                    state.reader.note_clock(page.served_at);
                    progress.note_position(state.reader.cursor());
                    let Some(recent_since) = self.recent_since(state) else {
                        return self.scan_instead(SortedListResult::NoDate, state, progress);
                    };
                    if page.rows.iter().any(|listed| listed.key.id < 0) || page.is_broken {
                        return self.scan_instead(SortedListResult::UnreadableRow, state, progress);
                    }
                    let bounds = Bounds { threshold: plan.threshold, recent_since, stored };
                    let walk = walk.get_or_insert_with(|| SortedWalk::new(bounds, Rules::SOUND));
                    let (total_pages, served_at) = (page.total_pages, page.served_at);
                    let rows = self.sorted_rows(page, walk, &mut met, state).await?;
                    walk.admit_page(SortedPage { rows: &rows, total_pages, served_at });
                }
                Step::Details(ids) => {
                    let changed = self.read_sorted_details::<R>(&ids, &met, state, progress).await?;
                    ids.iter().for_each(|id| _ = met.unread.remove(id));
                    let Some(walk) = &mut walk else { continue };
                    walk.admit_details(&changed);
                    // After a requeue, no details are read again. A further reading, and a dry run, would start again each time.
                    if walk.is_in_first_reading() && !self.claim.request.dry_run {
                        progress.yield_if_due(self.records, &self.claim.lease).await?;
                    }
                }
                Step::Done(conclusion) => {
                    if conclusion == Conclusion::Complete {
                        self.note_unread_rows::<R>(met, state, progress).await?;
                    }
                    self.conclude(conclusion, state, progress)?;
                    if conclusion.needs_all_details(stored) {
                        state.reader.scan_all_details();
                    }
                    return Ok(());
                }
            }
        }
    }

    /// The rows of a page, with the stored facts about each row.
    async fn sorted_rows<R>(
        &self,
        page: Page<R>,
        walk: &SortedWalk,
        met: &mut MetRows,
        state: &ResourceState,
    ) -> Result<Vec<SortedRow>, EngineError>
    where
        R: Record,
        T: RecordStore<R>,
    {
        let merchant = self.claim.lease.merchant;
        let ids: Vec<i64> = page.rows.iter().map(|listed| listed.key.id).collect();
        let (stored, checks) =
            (self.records.look_up(merchant, &ids).await?, self.records.checks(merchant, &ids).await?);
        let (began, is_resumed) = (state.reader.cursor().observed_at, self.claim.resumed.is_some());
        let never = DetailCheckSchedule { now: self.claim.now, all: false, nights: 0 };
        let row = |Listed { key, row }: Listed<R>| {
            let (stored, check) = (stored.get(&key.id), checks.get(&key.id));
            let is_ours = stored.zip(check).is_some_and(|(stored, check)| stored.state() == Some(check.stored));
            // The copy itself may be newer than what Salla has.
            let changed = check.and_then(|check| check.changed).filter(|_| is_ours);
            let is_due = match row {
                Row::Summary(summary) => {
                    met.rows.insert(key.id, summary.content_hash);
                    needs_detail(&summary, stored, check, never, state.reader.has_failed(key.id))
                }
                // A list of summaries shows few of them.
                Row::Whole(_) | Row::Unreadable(_) => true,
            };
            if !walk.has_read(key.id) {
                met.unread.insert(key.id);
            }
            if is_ours && check.is_some_and(|check| check.newer_locally) {
                met.newer_locally.insert(key.id);
            }
            let was_read = is_resumed && check.map(|check| check.checked_at) >= began && !is_due;
            let read_earlier = changed.filter(|_| was_read);
            SortedRow { id: key.id, created_at: key.created_at, stored: changed, read_earlier, is_due }
        };
        Ok(page.rows.into_iter().map(row).collect())
    }

    /// Reads and commits the details of some orders; returns when each one changed.
    async fn read_sorted_details<R>(
        &self,
        ids: &[i64],
        met: &MetRows,
        state: &mut ResourceState,
        progress: &mut RunProgress,
    ) -> Result<HashMap<i64, Option<DateTime<Utc>>>, EngineError>
    where
        R: Record,
        S: Source<R>,
        T: RecordStore<R>,
    {
        let mut batch = state.reader.batch(Instant::now());
        self.read_listed::<R>(ids, &met.rows, &mut batch, state).await?;
        let changed = batch.records.iter().map(|one| (one.record.id(), one.record.updated_at())).collect();
        batch.records.iter_mut().for_each(|one| one.repeat = state.reader.has_seen(one.record.id()));
        batch.unreadable.retain(|bad| bad.id.is_none_or(|id| !state.reader.has_seen(id)));
        let threshold = state.sorted.map(|plan| plan.threshold);
        let missed = state.missed_changes(&batch.records, threshold);
        state.reader.note_missed_changes(&missed);
        self.read_items(&mut batch, state).await?;
        batch.seen = state.reader.note_sorted(ids.to_vec());
        self.commit(batch, state, progress).await?;
        Ok(changed)
    }

    /// Counts the rows that are as they were.
    async fn note_unread_rows<R>(
        &self,
        met: MetRows,
        state: &mut ResourceState,
        progress: &mut RunProgress,
    ) -> Result<(), EngineError>
    where
        R: Record,
        T: RecordStore<R>,
    {
        let ids: Vec<i64> = met.unread.into_iter().filter(|id| !state.reader.has_seen(*id)).collect();
        let unchanged = ids.len() as u64;
        let newer_locally = ids.iter().filter(|id| met.newer_locally.contains(id)).count() as u64;
        let batch = Batch::<R> { unchanged, newer_locally, seen: state.reader.note_sorted(ids), ..Batch::default() };
        self.commit(batch, state, progress).await
    }

    fn conclude(
        &self,
        conclusion: Conclusion,
        state: &mut ResourceState,
        progress: &mut RunProgress,
    ) -> Result<(), EngineError> {
        match conclusion {
            Conclusion::Complete => {
                progress.sorted_lists.push(SortedListResult::Complete);
                state.reader.end_sorted_list();
                progress.note_position(state.reader.cursor());
                Ok(())
            }
            Conclusion::TooManyChanges => self.scan_instead(SortedListResult::TooManyChanges, state, progress),
            Conclusion::Inconclusive(result) => self.scan_instead(result, state, progress),
            Conclusion::NotSorted { nearer, further } => {
                tracing::warn!(
                    salla.ids = ?[nearer.0, further.0],
                    updated_at = ?[nearer.1, further.1],
                    "the list is not sorted by time of change: the second order stands behind the first one, and changed later"
                );
                self.scan_instead(SortedListResult::NotSorted, state, progress)
            }
        }
    }

    /// Leaves the sorted list, and begins to scan all records.
    pub(super) fn scan_instead(
        &self,
        result: SortedListResult,
        state: &mut ResourceState,
        progress: &mut RunProgress,
    ) -> Result<(), EngineError> {
        tracing::info!(reason = %result, "the whole list is scanned instead of the sorted one");
        progress.sorted_lists.push(result);
        let resource_run = progress.resource_run();
        resource_run.slice = None;
        if let Some(violation) = result.violation() {
            let list: SortedList = resource_run.sorted_list.unwrap_or_default();
            resource_run.sorted_list = Some(list.violated(violation, self.claim.now));
        }
        state.reader.scan();
        progress.note_position(state.reader.cursor());
        Ok(())
    }
}
