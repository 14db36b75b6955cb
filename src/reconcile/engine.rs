//! One run, in: what Salla lists; out: what the database now holds. The hot path.

use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    parts::Done,
    ports::{
        Assessed, Batch, Checked, Claim, Ledger, PageCommit, PageRequest, Source, SourceError, Target, TargetError,
    },
    progress::ProgressSender,
    span,
    survey::{Admitted, Step, Survey},
    vanished::{self, MassDisappearance},
    walk::WalkError,
};
use crate::domain::{DeepCheck, Held, Record, RunStatus, Summary, Unreadable, Verdict, Window, assess, needs_detail};

/// So many details are asked for at a time; the store's limit decides how soon.
const AT_ONCE: usize = 4;

/// So many records in a row that cannot be had are not each one's own trouble.
const TOO_MANY: u32 = 5;

const LISTED_AND_GONE: &str = "is listed, but Salla says at its own address that it is gone";

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Walk(#[from] WalkError),
    #[error(transparent)]
    MassDisappearance(#[from] MassDisappearance),
    /// A person asked for it.
    #[error("the run was cancelled")]
    Cancelled,
    /// The process is shutting down; the run can go on elsewhere.
    #[error("the process is shutting down")]
    Stopped,
    /// Others waited, and the run has been given back for them.
    #[error("the run has made way for others")]
    MadeWay,
}

/// What a run works with.
#[derive(Debug)]
pub struct Work<'a, S, T> {
    pub claim: &'a Claim,
    /// Of the part that the run is at.
    pub window: Window,
    pub source: &'a S,
    pub target: &'a T,
    /// The part of what is held that may be gone at once.
    pub max_disappeared: f64,
    /// Fetches may be dropped when this is called, commits never.
    pub stop: &'a CancellationToken,
    pub progress: &'a ProgressSender,
}

/// Reads every page and commits what differs; then asks for what no page showed.
pub async fn reconcile<R, S, T>(work: &Work<'_, S, T>, done: &mut Done) -> Result<(), EngineError>
where
    R: Record,
    S: Source<R>,
    T: Target<R> + Ledger,
{
    let resumed = work.claim.resumed.as_ref().filter(|earlier| earlier.cursor.resource == R::RESOURCE);
    let start = match resumed {
        Some(earlier) => (earlier.cursor.clone(), earlier.seen.clone()),
        None => Survey::start(R::RESOURCE, work.source.begin(work.window.since), done.commits_ever),
    };
    let unwell = work.target.unwell(work.claim.lease.merchant).await?;
    let mut survey = Survey::new(start, unwell, work.claim.now);
    loop {
        let (cursor, part) = (survey.cursor(), done.part());
        part.status = RunStatus::Running;
        part.observed_at = cursor.observed_at;
        part.listing = Some(cursor.listing);
        let Some((scope, number)) = survey.next() else {
            return vanished::ask(work, &mut survey, done).instrument(span::of_vanished()).await;
        };
        let request = PageRequest { merchant: work.claim.lease.merchant, scope, number };
        let committed = work.page(request, &mut survey, done).instrument(span::of_page(number)).await?;
        // A page that is committed is progress: runs that make way for each other come to their ends.
        if committed
            && let Some(turn) = &mut done.turn
            && turn.is_over(work.target, &work.claim.lease).await?
        {
            return Err(EngineError::MadeWay);
        }
    }
}

impl<S, T> Work<'_, S, T> {
    /// A fetch, which may be dropped.
    pub async fn unless_stopped<F: Future>(&self, fetch: F) -> Result<F::Output, EngineError> {
        self.stop.run_until_cancelled(fetch).await.ok_or(EngineError::Stopped)
    }

    /// Gets a page and settles it; false: the list is read in another way from here on.
    async fn page<R>(&self, request: PageRequest, survey: &mut Survey, done: &mut Done) -> Result<bool, EngineError>
    where
        R: Record,
        S: Source<R>,
        T: Target<R>,
    {
        let page = self.unless_stopped(self.source.page(request, &done.requests)).await??;
        self.progress.page(request.merchant, request.number, page.total_pages);
        match survey.admit(page)? {
            Step::Page(admitted) => self.settle(admitted, survey, done).await.map(|()| true),
            Step::Replanned(reason) => {
                tracing::warn!(reason, "the store's list is read in another way");
                Ok(false)
            }
        }
    }

    /// Decides about what a page brought, reads what is incomplete, and commits.
    async fn settle<R>(&self, admitted: Admitted<R>, survey: &Survey, done: &mut Done) -> Result<(), EngineError>
    where
        R: Record,
        S: Source<R>,
        T: Target<R>,
    {
        let Admitted { records, repeats, summaries, unreadable, ids } = admitted;
        let mut batch = Batch { unreadable, seen: ids, ..Batch::default() };
        batch.records = self.assess_all(self.in_time(records), false).await?;
        batch.records.extend(self.assess_all(self.in_time(repeats), true).await?);
        if !summaries.is_empty() {
            self.look_closer(summaries, &mut batch, (survey, done)).await?;
        }
        self.commit(survey, done, batch).await
    }

    /// Commits a batch.
    pub async fn commit<R>(&self, survey: &Survey, done: &mut Done, mut batch: Batch<R>) -> Result<(), EngineError>
    where
        R: Record,
        T: Target<R>,
    {
        let ids = batch.records.iter().map(|record| record.record.id()).chain(batch.gone.iter().map(|(id, _)| *id));
        batch.well = ids.filter(|id| survey.is_unwell(*id)).collect();
        let commit = PageCommit {
            batch: &batch,
            parts: &done.parts,
            at: done.at,
            requests: done.requests.get(),
            cursor: survey.cursor(),
            dry_run: self.claim.request.dry_run,
        };
        let committed = self.target.commit(&self.claim.lease, commit).await?;
        done.part().totals = committed.totals;
        done.commits += 1;
        done.commits_ever = survey.cursor().commits;
        if committed.cancel { Err(EngineError::Cancelled) } else { Ok(()) }
    }

    /// Reads the details of those summaries that are not enough, some at a time.
    async fn look_closer<R>(
        &self,
        summaries: Vec<Summary>,
        batch: &mut Batch<R>,
        (survey, done): (&Survey, &Done),
    ) -> Result<(), EngineError>
    where
        R: Record,
        S: Source<R>,
        T: Target<R>,
    {
        let merchant = self.claim.lease.merchant;
        let ids: Vec<i64> = summaries.iter().map(|summary| summary.id).collect();
        let (held, checks) = (self.target.held(merchant, &ids).await?, self.target.checks(merchant, &ids).await?);
        let deep = DeepCheck { now: self.claim.now, all: self.claim.request.full };
        let (closer, enough): (Vec<_>, Vec<_>) = summaries.into_iter().partition(|summary| {
            let unwell = survey.is_unwell(summary.id);
            needs_detail(summary, held.get(&summary.id), checks.get(&summary.id), (deep, unwell))
        });
        batch.unchanged += enough.len() as u64;
        let read = self.read_each(closer.iter().map(|summary| summary.id).collect(), done).await?;
        if read.len() >= TOO_MANY as usize && read.iter().all(Option::is_none) {
            return Err(SourceError::Rejected { reason: LISTED_AND_GONE.to_owned() }.into());
        }
        let (mut summaries, mut records) = (Vec::new(), Vec::new());
        for (summary, record) in closer.into_iter().zip(read) {
            match record {
                Some(Ok(record)) => {
                    summaries.push(summary);
                    records.push(record);
                }
                Some(Err(bad)) => batch.unreadable.push(bad),
                None => batch.unreadable.push(unreadable(summary.id, LISTED_AND_GONE)),
            }
        }
        let details = self.assess_all(self.in_time(records), false).await?;
        batch.checked.extend(summaries.into_iter().filter_map(|summary| checked(summary, &details)));
        batch.records.extend(details);
        Ok(())
    }

    /// Reads records at their own addresses, some at a time; the answers come in the order of `ids`. `None`: gone.
    ///
    /// What is wrong with one of them is its own trouble, until it is wrong with many in a row.
    pub async fn read_each<R>(
        &self,
        ids: Vec<i64>,
        done: &Done,
    ) -> Result<Vec<Option<Result<R, Unreadable>>>, EngineError>
    where
        R: Record,
        S: Source<R>,
    {
        let merchant = self.claim.lease.merchant;
        let read = |id| async move { (id, self.source.record(merchant, id, &done.requests).await) };
        let mut answers = stream::iter(ids).map(read).buffered(AT_ONCE);
        let (mut records, mut in_a_row) = (Vec::new(), 0);
        while let Some((id, answer)) = self.unless_stopped(answers.next()).await? {
            in_a_row = if answer.is_err() { in_a_row + 1 } else { 0 };
            records.push(match answer {
                Ok(record) => record,
                Err(error) if error.may_be_one_record_s() && in_a_row < TOO_MANY => {
                    Some(Err(unreadable(id, &error.to_string())))
                }
                Err(error) => return Err(error.into()),
            });
        }
        Ok(records)
    }

    /// What changed after the end that was asked for is left to later runs.
    fn in_time<R: Record>(&self, mut records: Vec<R>) -> Vec<R> {
        if let Some(until) = self.claim.request.until {
            records.retain(|record| record.updated_at() < until);
        }
        records
    }

    /// Reads what is held of the records, in one query, and decides about each.
    pub async fn assess_all<R>(&self, records: Vec<R>, repeat: bool) -> Result<Vec<Assessed<R>>, TargetError>
    where
        R: Record,
        T: Target<R>,
    {
        let ids: Vec<i64> = records.iter().map(Record::id).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let held = self.target.held(self.claim.lease.merchant, &ids).await?;
        let assess_one = |record: R| {
            let held = held.get(&record.id());
            Assessed {
                verdict: assess(&record, held),
                held_updated_at: held.and_then(|held| held.updated_at),
                held_state: held.and_then(Held::state),
                record,
                repeat,
            }
        };
        Ok(records.into_iter().map(assess_one).collect())
    }
}

fn unreadable(id: i64, reason: &str) -> Unreadable {
    Unreadable { id: Some(id), path: String::new(), reason: reason.to_owned() }
}

/// What to remember of a summary once its record is as Salla has it.
fn checked<R: Record>(summary: Summary, details: &[Assessed<R>]) -> Option<Checked> {
    let detail = details.iter().find(|detail| detail.record.id() == summary.id)?;
    let held = match &detail.verdict {
        Verdict::Unchanged | Verdict::Restore => detail.held_state?,
        Verdict::Create | Verdict::Update { .. } => Held::state_of(&detail.record),
    };
    Some(Checked { summary, held })
}
