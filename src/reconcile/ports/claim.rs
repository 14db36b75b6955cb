//! A run that a process holds, and what it needs to go on with it.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    domain::{BackfillRule, Covered, Listing, MerchantId, Request, Resource, ResourceRun, RunId, Scope, Trigger},
    reconcile::walk::ListWalk,
};

/// A run that came to nothing this often in a row, for its process or its database went away, is ended.
pub const MAX_FAILED_ATTEMPTS: u32 = 5;

/// A claim on a run: its holder may write for the run until the lease ends or another
/// process raises the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The run.
    pub run_id: RunId,
    /// The merchant.
    pub merchant: MerchantId,
    /// The fence: raised by each claim.
    pub epoch: i64,
}

/// Where a run goes on after a crash. No two commits of a run leave the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Which kind of record is being read.
    pub resource: Resource,
    /// The commits of the run so far, for all kinds: pages, and batches of single records.
    pub commits: u32,
    /// The number of commits before this kind started.
    pub commits_before: u32,
    /// What Salla's clock showed at the first answer.
    pub observed_at: Option<DateTime<Utc>>,
    /// How the records are found.
    pub listing: Listing,
    /// The lists that are yet to be read, the present one last; none: all are.
    pub scopes: Vec<Scope>,
    /// How many records the lists left out that they ought to hold.
    pub left_out: u32,
    /// Records that could not be read and whose ids are not known.
    #[serde(default)]
    pub unidentified: u32,
    /// Of these, rows that broke their pages and that no record at its own address has been matched with.
    #[serde(default)]
    pub failed_rows: u32,
    /// The details of all orders are read, whatever the list shows.
    #[serde(default)]
    pub all_details: bool,
    /// How many changes the sorted list should have shown and did not.
    #[serde(default)]
    pub missed_changes: u32,
    /// Where the walk over the present list stands.
    pub walk: ListWalk,
}

/// Ids in the order in which they were seen, under the number of the pass that saw them last.
pub type Seen = Vec<(u32, Vec<i64>)>;

/// A run that this process holds.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The fence.
    pub lease: Lease,
    /// Who asked for it.
    pub trigger: Trigger,
    /// The request for the run.
    pub request: Request,
    /// The database's clock at the claim.
    pub now: DateTime<Utc>,
    /// The merchant's watermarks at the claim.
    pub watermarks: Vec<(Resource, DateTime<Utc>)>,
    /// When the merchant was registered.
    pub registered_at: DateTime<Utc>,
    /// The remaining rate-limit backoff of the merchant.
    pub pause: Option<Duration>,
    /// Requests of another process for the merchant within the last minute, if known.
    pub recent_requests: u32,
    /// Whether earlier runs could not read or write any of the merchant's records.
    pub has_failed_records: bool,
    /// What an earlier holder got done.
    pub resumed: Option<Resumed>,
    /// The erased customers, of whom no data may be kept. If a customer is added during the run, the run loses its
    /// lease.
    pub erased: Vec<i64>,
    /// How often in a row it was taken up, this time not counted, and came to nothing: no page was committed.
    pub failed_attempts: u32,
}

/// A watermark that is further ahead of the database's clock is ignored, and replaced.
pub const WATERMARK_TOLERANCE: TimeDelta = TimeDelta::hours(1);

impl Claim {
    /// Up to when the merchant's records of a kind are known to be right.
    #[must_use]
    pub fn covered(&self, resource: Resource) -> Covered {
        // A watermark is never later than the database's clock: another program wrote that one.
        let is_possible = |watermark: DateTime<Utc>| watermark <= self.now + WATERMARK_TOLERANCE;
        let watermark = self.watermarks.iter().find(|(of, watermark)| *of == resource && is_possible(*watermark));
        watermark.map_or(Covered::NothingSince(self.registered_at), |(_, watermark)| Covered::UpTo(*watermark))
    }

    /// Which differences of a resource count as backfill.
    #[must_use]
    pub fn backfill(&self, resource: Resource) -> BackfillRule {
        let is_first = matches!(self.covered(resource), Covered::NothingSince(_));
        match self.request.since {
            _ if is_first || self.request.full => BackfillRule::All,
            Some(since) if since < self.registered_at => BackfillRule::Before(self.registered_at),
            _ => BackfillRule::Nothing,
        }
    }
}

/// What an earlier holder of a run got done before it went away or gave the run back.
#[derive(Debug, Clone)]
pub struct Resumed {
    /// What it planned, and what it counted.
    pub resource_runs: Vec<ResourceRun>,
    /// Where it stopped.
    pub cursor: Cursor,
    /// Requests it sent.
    pub requests: u64,
    /// The ids it has seen, of the kind that it was reading.
    pub seen: Seen,
}
