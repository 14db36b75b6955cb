//! The way of a run through the kinds of record. It reads one kind after the other, because the limits of Salla apply
//! to the whole merchant. A failure that concerns one kind does not affect the other kinds.

use chrono::{DateTime, TimeDelta, Utc};

use super::disposition::spares_other_kinds;
use crate::{
    domain::{
        Covered, Customer, Failure, InvalidWindow, ListingViolation, Order, OrderStatus, Outcome, Product, Resource,
        ResourceRun, Resources, RunStatus, Totals, Window, WindowPolicy,
    },
    reconcile::{
        engine::{EngineError, RunContext, RunProgress, reconcile},
        ports::{Claim, RecordStores, RequestCount, RunQueue, Sources},
    },
};

/// Reconciles the kind of record that the run is at. Returns how many failed records were deferred to the next run.
pub async fn reconcile_part<S, T>(
    context: &RunContext<'_, S, T>,
    progress: &mut RunProgress,
) -> Result<usize, EngineError>
where
    S: Sources,
    T: RecordStores + RunQueue,
{
    // Boxed, or the future of a run would hold those of all kinds beside each other.
    match progress.part().resource {
        Resource::Orders => Box::pin(reconcile::<Order, S, T>(context, progress)).await,
        Resource::Products => Box::pin(reconcile::<Product, S, T>(context, progress)).await,
        Resource::Customers => Box::pin(reconcile::<Customer, S, T>(context, progress)).await,
        Resource::OrderStatuses => Box::pin(reconcile::<OrderStatus, S, T>(context, progress)).await,
    }
}

/// The start position of a claimed run. It covers `configured` unless the request names others.
pub fn begin(claim: &Claim, configured: Resources, policy: WindowPolicy) -> Result<RunProgress, InvalidWindow> {
    if let Some(earlier) = &claim.resumed {
        let is_over = |part: &&ResourceRun| part.status.is_end();
        return Ok(RunProgress {
            at: earlier.parts.iter().take_while(is_over).count(),
            parts: earlier.parts.clone(),
            requests: RequestCount::from(earlier.requests),
            commits_ever: earlier.cursor.commits,
            ..RunProgress::default()
        });
    }
    let plan = |resource| Window::plan(claim.now, claim.covered(resource), policy, &claim.request);
    let parts = ResourceRun::plan(claim.request.resources.or(configured).iter(), plan)?;
    Ok(RunProgress { parts, ..RunProgress::default() })
}

/// Ends the part that the run is at and moves on to the next; or says that the run cannot go on. `ended`: how many failed
/// records were deferred, or why the part failed.
pub fn settle(progress: &mut RunProgress, ended: Result<usize, Failure>) -> Result<(), Failure> {
    if let Err(failure) = &ended
        && !spares_other_kinds(failure.kind)
    {
        return Err(failure.clone());
    }
    let alone = progress.parts.len() == 1;
    let part = &mut progress.parts[progress.at];
    part.status = match &ended {
        Err(failure) => {
            if !alone {
                tracing::error!(resource = %part.resource, error.kind = %failure.kind, error = failure.message, "{} of the merchant could not be reconciled; its other records can", part.resource);
            }
            RunStatus::Failed
        }
        Ok(deferred) if part.totals.incomplete() || *deferred > 0 => RunStatus::Partial,
        Ok(_) => RunStatus::Succeeded,
    };
    part.error = ended.err();
    progress.at += 1;
    Ok(())
}

/// The parts of a run that continues this one. Their totals start again.
pub fn rest(progress: &RunProgress) -> Vec<ResourceRun> {
    let restarted = |(number, part): (usize, &ResourceRun)| {
        let part = ResourceRun { totals: Totals::default(), ..part.clone() };
        if number < progress.at {
            return part;
        }
        ResourceRun { status: RunStatus::Queued, listing: None, observed_at: None, error: None, ..part }
    };
    progress.parts.iter().enumerate().map(restarted).collect()
}

/// Says of the parts that a run did not come to the end of how the run ended.
pub fn close(progress: &mut RunProgress, status: RunStatus) {
    for (number, part) in progress.parts.iter_mut().enumerate().skip(progress.at) {
        part.status = if number == progress.at { status } else { RunStatus::Cancelled };
    }
}

/// A record that is never readable holds the watermark no longer than this.
const LONGEST_HOLD: TimeDelta = TimeDelta::days(28);

/// The watermarks move only where everything was read, and never by a dry run. They move to what Salla's clock showed;
/// where Salla showed none, they stay.
pub fn watermarks(
    claim: &Claim,
    parts: &[ResourceRun],
    (status, overlap): (RunStatus, TimeDelta),
) -> Vec<(Resource, DateTime<Utc>)> {
    let is_well = |status| matches!(status, RunStatus::Succeeded | RunStatus::Partial);
    if !is_well(status) || claim.request.dry_run {
        return Vec::new();
    }
    let advance = |part: &ResourceRun| {
        if part.observed_at.is_none() {
            tracing::warn!(resource = %part.resource, "Salla's answers have no Date header: the watermark stays");
        }
        let covered = claim.covered(part.resource);
        let watermark = part.window?.advance(covered, overlap, part.observed_at?, claim.request.until)?;
        if part.unidentified == 0 {
            return Some((part.resource, watermark));
        }
        tracing::warn!(
            resource = %part.resource,
            records = part.unidentified,
            "records without an id could not be read: the watermark stays, and the next run covers the window again"
        );
        match covered {
            Covered::UpTo(before) => Some((part.resource, before.max(watermark - LONGEST_HOLD))),
            // The first window goes back to the registration, and so does the next one.
            Covered::NothingSince(registered_at) => Some((part.resource, registered_at.max(watermark - LONGEST_HOLD))),
        }
    };
    parts.iter().filter(|part| is_well(part.status)).filter_map(advance).collect()
}

/// The outcomes that were counted since the claim.
pub fn counted(claim: &Claim, parts: &[ResourceRun]) -> Vec<(Resource, Outcome, u64)> {
    let earlier = claim.resumed.as_ref().map_or(&[][..], |earlier| &earlier.parts);
    let before = |resource| earlier.iter().find(|part| part.resource == resource).map(|part| part.totals);
    let of_part = |part: &ResourceRun| {
        let (resource, before, after) = (part.resource, before(part.resource).unwrap_or_default(), part.totals);
        Outcome::ALL.map(|outcome| (resource, outcome, after.of(outcome) - before.of(outcome)))
    };
    parts.iter().flat_map(of_part).collect()
}

/// The contradictions of sorted lists that were found since the claim.
pub fn new_violations(claim: &Claim, parts: &[ResourceRun]) -> Vec<ListingViolation> {
    let earlier = claim.resumed.as_ref().map_or(&[][..], |earlier| &earlier.parts);
    let violation = |part: &ResourceRun| part.sorted_list?.violation;
    let is_known =
        |part: &ResourceRun| earlier.iter().any(|one| one.resource == part.resource && violation(one).is_some());
    parts.iter().filter(|part| !is_known(part)).filter_map(violation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{RotationWindow, SortedList};

    #[test]
    fn a_continuation_keeps_what_ended_parts_leave_to_later_runs() {
        let part = |resource, status| ResourceRun {
            status,
            slice: Some(RotationWindow { from: None, to: Some(DateTime::UNIX_EPOCH) }),
            sorted_list: Some(SortedList { scan_nights: 3, ..SortedList::default() }),
            observed_at: Some(DateTime::UNIX_EPOCH),
            unidentified: 2,
            ..ResourceRun::waiting(resource, None)
        };
        let parts = vec![part(Resource::Orders, RunStatus::Succeeded), part(Resource::Products, RunStatus::Running)];
        let continued = rest(&RunProgress { parts: parts.clone(), at: 1, ..RunProgress::default() });
        assert_eq!(continued[0], parts[0]);
        assert_eq!(continued[1], ResourceRun { status: RunStatus::Queued, observed_at: None, ..parts[1].clone() });
    }
}
