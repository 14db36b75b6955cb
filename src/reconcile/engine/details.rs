//! Fetches records by id, and distinguishes errors of one record from errors of the merchant.

use std::collections::HashMap;

use futures::{StreamExt, stream};

use super::{EngineError, ResourceState, RunContext};
use crate::{
    domain::{
        ContentHash, Decision, DetailCheckSchedule, Listing, Record, StoredRecord, Summary, Unreadable, needs_detail,
    },
    reconcile::ports::{AssessedRecord, Batch, DetailCheckResult, RecordStore, Source, SourceError},
};

/// So many details are asked for at a time; the merchant's limit decides how soon.
const AT_ONCE: usize = 4;

/// So many records in a row that cannot be had are not each one's own trouble.
const TOO_MANY: u32 = 5;

const LISTED_AND_GONE: &str = "is listed, but its own address answers that it is gone";

impl<S, T> RunContext<'_, S, T> {
    /// Reads the details of those summaries that are not enough, some at a time.
    pub(super) async fn read_details<R>(
        &self,
        summaries: Vec<Summary>,
        batch: &mut Batch<R>,
        state: &ResourceState,
    ) -> Result<(), EngineError>
    where
        R: Record,
        S: Source<R>,
        T: RecordStore<R>,
    {
        if summaries.is_empty() {
            return Ok(());
        }
        let merchant = self.claim.lease.merchant;
        let ids: Vec<i64> = summaries.iter().map(|summary| summary.id).collect();
        let (stored, checks) =
            (self.records.look_up(merchant, &ids).await?, self.records.checks(merchant, &ids).await?);
        let schedule = self.detail_check_schedule(state);
        let (closer, enough): (Vec<_>, Vec<_>) = summaries.into_iter().partition(|summary| {
            let failed = state.reader.has_failed(summary.id);
            needs_detail(summary, stored.get(&summary.id), checks.get(&summary.id), schedule, failed)
        });
        let is_newer = |summary: &&Summary| checks.get(&summary.id).is_some_and(|check| check.newer_locally);
        batch.newer_locally += enough.iter().filter(is_newer).count() as u64;
        batch.unchanged += enough.len() as u64;
        let ids: Vec<i64> = closer.iter().map(|summary| summary.id).collect();
        let rows = closer.into_iter().map(|summary| (summary.id, summary.content_hash)).collect();
        self.read_listed(&ids, &rows, batch, state).await
    }

    /// Beside a sorted list, the details that are due are read as samples.
    fn detail_check_schedule(&self, state: &ResourceState) -> DetailCheckSchedule {
        let is_sorted = state.reader.cursor().listing == Listing::Sort;
        let nights = if is_sorted { 0 } else { self.detail_checks.nights(false) };
        let all = self.claim.request.full || state.reader.cursor().all_details;
        DetailCheckSchedule { now: self.claim.now, all, nights }
    }

    /// Reads the details of orders that the list shows. `rows`: the hashes of their rows.
    pub(super) async fn read_listed<R>(
        &self,
        ids: &[i64],
        rows: &HashMap<i64, ContentHash>,
        batch: &mut Batch<R>,
        state: &ResourceState,
    ) -> Result<(), EngineError>
    where
        R: Record,
        S: Source<R>,
        T: RecordStore<R>,
    {
        let gone = self.read_records(ids, rows, batch, state).await?;
        let unknown: Vec<i64> = ids.iter().copied().filter(|id| !state.reader.has_failed(*id)).collect();
        if unknown.len() >= TOO_MANY as usize && unknown.iter().all(|id| gone.contains(id)) {
            let error = SourceError::Rejected { reason: LISTED_AND_GONE.to_owned() };
            let fetch = |id, suspect| self.source.record(self.merchant(), id, suspect, &state.requests);
            self.fail_if_merchant_wide(state.controls(ids), fetch, error).await?;
        }
        batch.unreadable.extend(gone.into_iter().map(|id| unreadable(id, LISTED_AND_GONE)));
        Ok(())
    }

    /// Reads records at their own addresses, and adds them to a batch with what is to be remembered of their details.
    /// Returns those that are gone.
    pub(super) async fn read_records<R>(
        &self,
        ids: &[i64],
        rows: &HashMap<i64, ContentHash>,
        batch: &mut Batch<R>,
        state: &ResourceState,
    ) -> Result<Vec<i64>, EngineError>
    where
        R: Record,
        S: Source<R>,
        T: RecordStore<R>,
    {
        let (mut records, mut gone) = (Vec::new(), Vec::new());
        for (&id, record) in ids.iter().zip(self.read_each(ids, state).await?) {
            match record {
                Some(Ok(record)) => records.push(record),
                Some(Err(bad)) => batch.unreadable.push(bad),
                None => gone.push(id),
            }
        }
        let details = self.assess_all(self.before_until(records), batch.latest, &mut batch.unreadable).await?;
        let of_row = |id| rows.get(&id).copied();
        batch.checked.extend(details.iter().filter_map(|detail| checked(detail, of_row(detail.record.id()))));
        batch.records.extend(details);
        Ok(gone)
    }

    /// Fetches records by id, several at a time. The results have the order of `ids`. `None`: the record is gone.
    ///
    /// An error fails only its record. After several errors in a row for records that had none before, control records
    /// show whether the merchant is affected.
    pub(super) async fn read_each<R>(
        &self,
        ids: &[i64],
        state: &ResourceState,
    ) -> Result<Vec<Option<Result<R, Unreadable>>>, EngineError>
    where
        R: Record,
        S: Source<R>,
    {
        let merchant = self.merchant();
        self.each(ids, state, |id, suspect| self.source.record(merchant, id, suspect, &state.requests)).await
    }

    /// The same of whatever can be had of one record at a time.
    pub(super) async fn each<X, F, Fut>(
        &self,
        ids: &[i64],
        state: &ResourceState,
        fetch: F,
    ) -> Result<Vec<Option<Result<X, Unreadable>>>, EngineError>
    where
        F: Fn(i64, bool) -> Fut,
        Fut: Future<Output = Result<Option<Result<X, Unreadable>>, SourceError>>,
    {
        let suspect = |id| state.reader.has_failed(id);
        let fetch = &fetch;
        let read = |id| async move { (id, fetch(id, suspect(id)).await) };
        let (mut records, mut in_a_row, mut readable) = (Vec::with_capacity(ids.len()), 0, None);
        while records.len() < ids.len() {
            let mut answers = stream::iter(ids[records.len()..].iter().copied()).map(read).buffered(AT_ONCE);
            let mut doubt = None;
            while doubt.is_none()
                && let Some((id, answer)) = self.cancellable(answers.next()).await?
            {
                records.push(match answer {
                    Ok(record) => {
                        in_a_row = 0;
                        readable = matches!(record, Some(Ok(_))).then_some(id).or(readable);
                        record
                    }
                    Err(error) if error.is_per_record() => {
                        let bad = unreadable(id, &error.to_string());
                        in_a_row += u32::from(!suspect(id));
                        doubt = (in_a_row == TOO_MANY).then_some(error);
                        Some(Err(bad))
                    }
                    Err(error) => return Err(error.into()),
                });
            }
            // Requests in flight are polled as well: they may hold a permit that the next request waits for.
            drop(answers);
            if let Some(error) = doubt {
                let controls = readable.into_iter().chain(state.controls(ids));
                self.fail_if_merchant_wide(controls, fetch, error).await?;
                in_a_row = 0;
            }
        }
        Ok(records)
    }

    /// Asks for records that ought to be well; where none of them can be had, `error` is the merchant's trouble.
    async fn fail_if_merchant_wide<X, F, Fut>(
        &self,
        controls: impl IntoIterator<Item = i64>,
        fetch: F,
        error: SourceError,
    ) -> Result<(), EngineError>
    where
        F: Fn(i64, bool) -> Fut,
        Fut: Future<Output = Result<Option<Result<X, Unreadable>>, SourceError>>,
    {
        for id in controls {
            match self.cancellable(fetch(id, false)).await? {
                Ok(Some(Ok(_))) => return Ok(()),
                // Such as a rate limit: it says more than the first error.
                Err(error) if !error.is_per_record() => return Err(error.into()),
                _ => {}
            }
        }
        Err(error.into())
    }
}

fn unreadable(id: i64, reason: &str) -> Unreadable {
    Unreadable::skipped(Some(id), "", reason)
}

/// The check to store for a record, once the record is stored as Salla has it. `row`: the hash of the row in the list.
pub(super) fn checked<R: Record>(detail: &AssessedRecord<R>, row: Option<ContentHash>) -> Option<DetailCheckResult> {
    let stored = match &detail.decision {
        Decision::Unchanged | Decision::NewerLocally | Decision::Restore => detail.stored.as_ref()?.state()?,
        Decision::Create | Decision::Update { .. } | Decision::Adopt => StoredRecord::state_of(&detail.record),
    };
    Some(DetailCheckResult {
        id: detail.record.id(),
        summary: row,
        changed: detail.record.updated_at(),
        stored,
        newer_locally: detail.decision == Decision::NewerLocally,
    })
}
