//! One run's pages, in: what Salla lists; out: what the database now holds. The hot path.

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::{
    ports::{Assessed, Claim, PageCommit, PageRequest, RequestCount, Source, SourceError, Target, TargetError},
    progress::ProgressSender,
    walk::{Walk, WalkError},
};
use crate::domain::{Record, Totals, Window, assess};

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// A person asked for it.
    #[error("the run was cancelled")]
    Cancelled,
    /// The process is shutting down; the run can go on elsewhere.
    #[error("the process is shutting down")]
    Stopped,
}

/// What a run got done: kept up to date page by page, so that it is known whatever ends the run.
#[derive(Debug, Default)]
pub struct Done {
    pub totals: Totals,
    pub requests: RequestCount,
    /// What Salla's clock showed when the walk began.
    pub observed_at: Option<DateTime<Utc>>,
}

/// Reads every page and commits what differs. Fetches may be dropped when `stop` is called, commits never.
pub async fn reconcile<R, S, T>(
    claim: &Claim,
    window: Window,
    (source, target): (&S, &T),
    done: &mut Done,
    (stop, progress): (&CancellationToken, &ProgressSender),
) -> Result<(), EngineError>
where
    R: Record,
    S: Source<R>,
    T: Target<R>,
{
    let resumed = claim.resumed.clone();
    let mut walk = Walk::new(resumed.map(|earlier| (earlier.cursor, earlier.seen)));
    done.observed_at = walk.cursor().observed_at;
    let mut unfiltered = false;
    while let Some(number) = walk.cursor().next_page {
        let request = PageRequest { merchant: claim.lease.merchant, since: window.since, number };
        let page =
            stop.run_until_cancelled(source.page(request, &done.requests)).await.ok_or(EngineError::Stopped)??;
        if page.unfiltered && !unfiltered {
            unfiltered = true;
            tracing::warn!("the store's server ignores updated_at_min; reading its whole list");
        }
        progress.page(claim.lease.merchant, number, page.total_pages);

        let mut admitted = walk.admit(number, page)?;
        if let Some(until) = claim.request.until {
            admitted.records.retain(|record| record.updated_at() < until);
            admitted.repeats.retain(|record| record.updated_at() < until);
        }
        done.observed_at = walk.cursor().observed_at;

        let mut records = assess_all(target, claim, admitted.records, false).await?;
        if !admitted.repeats.is_empty() {
            records.extend(assess_all(target, claim, admitted.repeats, true).await?);
        }
        let commit = PageCommit {
            records: &records,
            unreadable: &admitted.unreadable,
            window,
            totals: done.totals,
            requests: done.requests.get(),
            cursor: walk.cursor(),
            dry_run: claim.request.dry_run,
        };
        let committed = target.commit(&claim.lease, commit).await?;
        done.totals = committed.totals;
        if committed.cancel {
            return Err(EngineError::Cancelled);
        }
    }
    Ok(())
}

/// Reads what is held of the page's records, in one query, and decides about each.
async fn assess_all<R: Record, T: Target<R>>(
    target: &T,
    claim: &Claim,
    records: Vec<R>,
    repeat: bool,
) -> Result<Vec<Assessed<R>>, TargetError> {
    let ids: Vec<i64> = records.iter().map(Record::id).collect();
    let held = target.held(claim.lease.merchant, &ids).await?;
    let assess_one = |record: R| {
        let held = held.get(&record.id());
        Assessed {
            verdict: assess(&record, held),
            held_updated_at: held.and_then(|held| held.updated_at),
            record,
            repeat,
        }
    };
    Ok(records.into_iter().map(assess_one).collect())
}
