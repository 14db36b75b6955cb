//! The result of a run for one kind of record.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Failure, InvalidWindow, Listing, Resource, RotationWindow, RunStatus, SortedList, Totals, Window};

/// The work of a run on one kind of record. A run has one for each kind, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceRun {
    /// Which kind.
    pub resource: Resource,
    /// Where it stands. In a run that has ended, `cancelled`: it was stopped, or not come to.
    pub status: RunStatus,
    /// How its records were found; absent until it begins.
    pub listing: Option<Listing>,
    /// What it covers; absent until the run begins.
    pub window: Option<Window>,
    /// With the listings `rotation` and `sort`: which part of the older records was read besides. The next run reads the next
    /// part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<RotationWindow>,
    /// The state of the sorted list after this; absent where the list was not considered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sorted_list: Option<SortedList>,
    /// The time on Salla's clock when the reading of the list began. All changes up to this time are covered. Absent
    /// until the reading begins, and if the answers of Salla carry no date.
    pub observed_at: Option<DateTime<Utc>>,
    /// Records that could not be read and whose ids are not known. They cannot be asked for again, so the watermark does
    /// not move past them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unidentified: u32,
    /// What it counted so far.
    pub totals: Totals,
    /// Why it failed, though the run went on.
    pub error: Option<Failure>,
}

impl ResourceRun {
    /// One that waits its turn.
    #[must_use]
    pub fn waiting(resource: Resource, window: Option<Window>) -> Self {
        let totals = Totals::default();
        Self {
            resource,
            status: RunStatus::Queued,
            listing: None,
            window,
            slice: None,
            sorted_list: None,
            observed_at: None,
            unidentified: 0,
            totals,
            error: None,
        }
    }

    /// One for each of `resources`, each with the window that `plan` gives it.
    ///
    /// # Errors
    /// When one of the windows has nothing in it.
    pub fn plan(
        resources: impl IntoIterator<Item = Resource>,
        plan: impl Fn(Resource) -> Result<Window, InvalidWindow>,
    ) -> Result<Vec<Self>, InvalidWindow> {
        resources.into_iter().map(|resource| Ok(Self::waiting(resource, Some(plan(resource)?)))).collect()
    }

    /// What they counted together.
    #[must_use]
    pub fn sum(resource_runs: &[Self]) -> Totals {
        resource_runs.iter().fold(Totals::default(), |mut sum, resource_run| {
            sum += resource_run.totals;
            sum
        })
    }

    /// From where the first of their windows begins to where the last one ends.
    #[must_use]
    pub fn hull(resource_runs: &[Self]) -> Option<Window> {
        resource_runs
            .iter()
            .filter_map(|resource_run| resource_run.window)
            .reduce(|hull, window| Window { since: hull.since.min(window.since), until: hull.until.max(window.until) })
    }

    /// How the records of the first that has begun were found.
    #[must_use]
    pub fn first_listing(resource_runs: &[Self]) -> Option<Listing> {
        resource_runs.iter().find_map(|resource_run| resource_run.listing)
    }

    /// The status of a run after all kinds, with the first error: failed if all kinds failed; partial if some failed,
    /// or left records out.
    #[must_use]
    pub fn outcome(resource_runs: &[Self]) -> (RunStatus, Option<Failure>) {
        let error = resource_runs.iter().find_map(|resource_run| {
            let error = resource_run.error.clone()?;
            let of_several = resource_runs.len() > 1;
            let message =
                if of_several { format!("{}: {}", resource_run.resource, error.message) } else { error.message };
            Some(Failure { message, ..error })
        });
        let all = |status: RunStatus| resource_runs.iter().all(|resource_run| resource_run.status == status);
        let status = if all(RunStatus::Succeeded) {
            RunStatus::Succeeded
        } else if all(RunStatus::Failed) {
            RunStatus::Failed
        } else {
            RunStatus::Partial
        };
        (status, error)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FailureKind;

    #[test]
    fn the_status_of_a_run_follows_from_its_parts() {
        let resource_run = |status| {
            let error = (status == RunStatus::Failed)
                .then(|| Failure { kind: FailureKind::MissingScope, message: "no".to_owned() });
            ResourceRun { status, error, ..ResourceRun::waiting(Resource::Orders, None) }
        };
        let of = |statuses: &[RunStatus]| {
            let (status, error) =
                ResourceRun::outcome(&statuses.iter().map(|status| resource_run(*status)).collect::<Vec<_>>());
            (status, error.map(|error| error.message))
        };
        use RunStatus::{Failed, Partial, Succeeded};
        assert_eq!(of(&[Succeeded]), (Succeeded, None));
        assert_eq!(of(&[Succeeded, Partial]), (Partial, None));
        assert_eq!(of(&[Failed]), (Failed, Some("no".to_owned())));
        assert_eq!(of(&[Failed, Failed]).0, Failed);
        assert_eq!(of(&[Succeeded, Failed]), (Partial, Some("orders: no".to_owned())));
    }
}
