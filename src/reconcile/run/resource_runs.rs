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
pub async fn reconcile_resource<S, T>(
    context: &RunContext<'_, S, T>,
    progress: &mut RunProgress,
) -> Result<usize, EngineError>
where
    S: Sources,
    T: RecordStores + RunQueue,
{
    // Boxed, or the future of a run would hold those of all kinds beside each other.
    match progress.resource_run().resource {
        Resource::Orders => Box::pin(reconcile::<Order, S, T>(context, progress)).await,
        Resource::Products => Box::pin(reconcile::<Product, S, T>(context, progress)).await,
        Resource::Customers => Box::pin(reconcile::<Customer, S, T>(context, progress)).await,
        Resource::OrderStatuses => Box::pin(reconcile::<OrderStatus, S, T>(context, progress)).await,
    }
}

/// The start position of a claimed run. It covers `configured` unless the request names others.
pub fn begin(claim: &Claim, configured: Resources, policy: WindowPolicy) -> Result<RunProgress, InvalidWindow> {
    if let Some(earlier) = &claim.resumed {
        let is_over = |resource_run: &&ResourceRun| resource_run.status.is_end();
        return Ok(RunProgress {
            at: earlier.resource_runs.iter().take_while(is_over).count(),
            resource_runs: earlier.resource_runs.clone(),
            requests: RequestCount::from(earlier.requests),
            commits_ever: earlier.cursor.commits,
            ..RunProgress::default()
        });
    }
    let plan = |resource| Window::plan(claim.now, claim.covered(resource), policy, &claim.request);
    let resource_runs = ResourceRun::plan(claim.request.resources.or(configured).iter(), plan)?;
    Ok(RunProgress { resource_runs, ..RunProgress::default() })
}

/// Ends the present resource run, and moves on to the next. Returns the failure if the run cannot go on. `ended`: how many
/// failed records were deferred, or why the resource run failed.
pub fn settle(progress: &mut RunProgress, ended: Result<usize, Failure>) -> Result<(), Failure> {
    if let Err(failure) = &ended
        && !spares_other_kinds(failure.kind)
    {
        return Err(failure.clone());
    }
    let alone = progress.resource_runs.len() == 1;
    let resource_run = &mut progress.resource_runs[progress.at];
    resource_run.status = match &ended {
        Err(failure) => {
            if !alone {
                tracing::error!(resource = %resource_run.resource, error.kind = %failure.kind, error = failure.message, "{} of the merchant could not be reconciled; its other records can", resource_run.resource);
            }
            RunStatus::Failed
        }
        Ok(deferred) if resource_run.totals.incomplete() || *deferred > 0 => RunStatus::Partial,
        Ok(_) => RunStatus::Succeeded,
    };
    resource_run.error = ended.err();
    progress.at += 1;
    Ok(())
}

/// The resource runs of a run that continues this one. Their totals start again.
pub fn rest(progress: &RunProgress) -> Vec<ResourceRun> {
    let restarted = |(number, resource_run): (usize, &ResourceRun)| {
        let resource_run = ResourceRun { totals: Totals::default(), ..resource_run.clone() };
        if number < progress.at {
            return resource_run;
        }
        ResourceRun { status: RunStatus::Queued, listing: None, observed_at: None, error: None, ..resource_run }
    };
    progress.resource_runs.iter().enumerate().map(restarted).collect()
}

/// Sets the status of the resource runs that did not end.
pub fn close(progress: &mut RunProgress, status: RunStatus) {
    for (number, resource_run) in progress.resource_runs.iter_mut().enumerate().skip(progress.at) {
        resource_run.status = if number == progress.at { status } else { RunStatus::Cancelled };
    }
}

/// A record that is never readable holds the watermark no longer than this.
const LONGEST_HOLD: TimeDelta = TimeDelta::days(28);

/// The watermarks move only where everything was read, and never by a dry run. They move to what Salla's clock showed;
/// where Salla showed none, they stay.
pub fn watermarks(
    claim: &Claim,
    resource_runs: &[ResourceRun],
    status: RunStatus,
    overlap: TimeDelta,
) -> Vec<(Resource, DateTime<Utc>)> {
    let is_well = |status| matches!(status, RunStatus::Succeeded | RunStatus::Partial);
    if !is_well(status) || claim.request.dry_run {
        return Vec::new();
    }
    let advance = |resource_run: &ResourceRun| {
        if resource_run.observed_at.is_none() {
            tracing::warn!(resource = %resource_run.resource, "Salla's answers have no Date header: the watermark stays");
        }
        let covered = claim.covered(resource_run.resource);
        let watermark =
            resource_run.window?.advance(covered, overlap, resource_run.observed_at?, claim.request.until)?;
        if resource_run.unidentified == 0 {
            return Some((resource_run.resource, watermark));
        }
        tracing::warn!(
            resource = %resource_run.resource,
            records = resource_run.unidentified,
            "records without an id could not be read: the watermark stays, and the next run covers the window again"
        );
        match covered {
            Covered::UpTo(before) => Some((resource_run.resource, before.max(watermark - LONGEST_HOLD))),
            // The first window goes back to the registration, and so does the next one.
            Covered::NothingSince(registered_at) => {
                Some((resource_run.resource, registered_at.max(watermark - LONGEST_HOLD)))
            }
        }
    };
    resource_runs.iter().filter(|resource_run| is_well(resource_run.status)).filter_map(advance).collect()
}

/// The outcomes that were counted since the claim.
pub fn counted(claim: &Claim, resource_runs: &[ResourceRun]) -> Vec<(Resource, Outcome, u64)> {
    let earlier = claim.resumed.as_ref().map_or(&[][..], |earlier| &earlier.resource_runs);
    let before = |resource| {
        earlier.iter().find(|resource_run| resource_run.resource == resource).map(|resource_run| resource_run.totals)
    };
    let of_resource = |resource_run: &ResourceRun| {
        let (resource, before, after) =
            (resource_run.resource, before(resource_run.resource).unwrap_or_default(), resource_run.totals);
        Outcome::ALL.map(|outcome| (resource, outcome, after.of(outcome) - before.of(outcome)))
    };
    resource_runs.iter().flat_map(of_resource).collect()
}

/// The contradictions of sorted lists that were found since the claim.
pub fn new_violations(claim: &Claim, resource_runs: &[ResourceRun]) -> Vec<ListingViolation> {
    let earlier = claim.resumed.as_ref().map_or(&[][..], |earlier| &earlier.resource_runs);
    let violation = |resource_run: &ResourceRun| resource_run.sorted_list?.violation;
    let is_known = |resource_run: &ResourceRun| {
        earlier.iter().any(|one| one.resource == resource_run.resource && violation(one).is_some())
    };
    resource_runs.iter().filter(|resource_run| !is_known(resource_run)).filter_map(violation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{RotationWindow, SortedList};

    #[test]
    fn a_continuation_keeps_what_ended_parts_leave_to_later_runs() {
        let resource_run = |resource, status| ResourceRun {
            status,
            slice: Some(RotationWindow { from: None, to: Some(DateTime::UNIX_EPOCH) }),
            sorted_list: Some(SortedList { scan_nights: 3, ..SortedList::default() }),
            observed_at: Some(DateTime::UNIX_EPOCH),
            unidentified: 2,
            ..ResourceRun::waiting(resource, None)
        };
        let resource_runs = vec![
            resource_run(Resource::Orders, RunStatus::Succeeded),
            resource_run(Resource::Products, RunStatus::Running),
        ];
        let continued = rest(&RunProgress { resource_runs: resource_runs.clone(), at: 1, ..RunProgress::default() });
        assert_eq!(continued[0], resource_runs[0]);
        assert_eq!(
            continued[1],
            ResourceRun { status: RunStatus::Queued, observed_at: None, ..resource_runs[1].clone() }
        );
    }
}
