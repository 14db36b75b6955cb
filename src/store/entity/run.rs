//! The table `runs`.

use sea_orm::entity::prelude::*;

use crate::{
    domain::{Backfilled, Failure, MerchantId, Request, ResourceRun, Run, Totals, UnknownValue, Waiting, Window},
    reconcile::ports::Lease,
    store::connection::stamp::{Stamp, or_epoch},
};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "runs")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub merchant_id: i64,
    #[sea_orm(column_type = "Text")]
    pub trigger: String,
    #[sea_orm(column_type = "Text")]
    pub status: String,
    pub sweep_scheduled_for: Option<Stamp>,
    pub since_requested: Option<Stamp>,
    pub until_requested: Option<Stamp>,
    pub full_history: bool,
    pub dry_run: bool,
    pub cancel_requested: bool,
    pub priority: i64,
    pub worker_id: Option<Uuid>,
    pub lease_expires_at: Option<Stamp>,
    pub epoch: i64,
    pub attempt: i64,
    /// Lapsed leases in a row without a page between them.
    pub failed_attempts: i64,
    pub window_since: Option<Stamp>,
    pub window_until: Option<Stamp>,
    #[sea_orm(column_type = "Text", nullable)]
    pub listing: Option<String>,
    /// The cursor, as JSON.
    #[sea_orm(column_type = "Text", nullable)]
    pub cursor: Option<String>,
    /// The targets of the pages before the cursor.
    #[sea_orm(column_type = "Text")]
    pub targets: String,
    pub fetched: i64,
    pub created: i64,
    pub updated: i64,
    pub unchanged: i64,
    pub skipped: i64,
    pub failed: i64,
    pub backfilled_created: i64,
    pub backfilled_updated: i64,
    pub requests: i64,
    /// The requested kinds of record, as words; none: the configured kinds.
    #[sea_orm(column_type = "Text", nullable)]
    pub resources_requested: Option<String>,
    /// The resource runs, as JSON.
    #[sea_orm(column_type = "Text", nullable)]
    pub resource_results: Option<String>,
    #[sea_orm(column_type = "Text", nullable)]
    pub error_kind: Option<String>,
    #[sea_orm(column_type = "Text", nullable)]
    pub error_message: Option<String>,
    #[sea_orm(column_type = "Text", nullable)]
    pub waiting_reason: Option<String>,
    #[sea_orm(column_type = "Text", nullable)]
    pub waiting_message: Option<String>,
    pub waiting_until: Option<Stamp>,
    pub waiting_attempts: i64,
    pub queued_at: Option<Stamp>,
    pub started_at: Option<Stamp>,
    pub finished_at: Option<Stamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Counts are never negative.
fn count(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}

impl Model {
    pub fn lease(&self) -> Lease {
        Lease { run_id: self.id, merchant: MerchantId(self.merchant_id), epoch: self.epoch }
    }

    /// `None` also for what another version wrote.
    pub fn resource_runs(&self) -> Option<Vec<ResourceRun>> {
        serde_json::from_str(self.resource_results.as_deref()?).ok()
    }

    /// The results of the kinds, as far as they are known.
    fn resource_results(&self) -> Vec<ResourceRun> {
        self.resource_runs()
            .unwrap_or_else(|| self.request().resources.iter().map(|one| ResourceRun::waiting(one, None)).collect())
    }

    pub fn request(&self) -> Request {
        Request {
            resources: self.resources_requested.as_deref().and_then(|words| words.parse().ok()).unwrap_or_default(),
            since: self.since_requested.map(|Stamp(at)| at),
            until: self.until_requested.map(|Stamp(at)| at),
            full: self.full_history,
            dry_run: self.dry_run,
        }
    }

    pub fn window(&self) -> Option<Window> {
        Some(Window { since: self.window_since?.0, until: self.window_until?.0 })
    }

    pub fn totals(&self) -> Totals {
        Totals {
            fetched: count(self.fetched),
            created: count(self.created),
            updated: count(self.updated),
            unchanged: count(self.unchanged),
            skipped: count(self.skipped),
            failed: count(self.failed),
            backfilled: Backfilled { created: count(self.backfilled_created), updated: count(self.backfilled_updated) },
            newer_locally: self
                .resource_runs()
                .map_or(0, |resource_runs| ResourceRun::sum(&resource_runs).newer_locally),
        }
    }

    /// Only for queued and running runs. An unknown reason of a newer version is not shown.
    fn waiting(&self) -> Option<Waiting> {
        let goes_on = matches!(self.status.as_str(), "queued" | "running");
        Some(Waiting {
            reason: self.waiting_reason.as_deref().filter(|_| goes_on)?.parse().ok()?,
            message: self.waiting_message.clone()?,
            until: self.waiting_until?.0,
            attempts: u32::try_from(self.waiting_attempts).unwrap_or(u32::MAX),
        })
    }

    pub fn requests(&self) -> u64 {
        count(self.requests)
    }
}

impl TryFrom<Model> for Run {
    type Error = UnknownValue;

    fn try_from(row: Model) -> Result<Self, UnknownValue> {
        let error = row
            .error_kind
            .as_deref()
            .map(|kind| Ok(Failure { kind: kind.parse()?, message: row.error_message.clone().unwrap_or_default() }))
            .transpose()?;
        Ok(Self {
            run_id: row.id,
            merchant_id: MerchantId(row.merchant_id),
            status: row.status.parse()?,
            trigger: row.trigger.parse()?,
            listing: row.listing.as_deref().map(str::parse).transpose()?,
            dry_run: row.dry_run,
            window: row.window(),
            totals: row.totals(),
            resource_results: row.resource_results(),
            requests: row.requests(),
            waiting: row.waiting(),
            error,
            queued_at: or_epoch(row.queued_at),
            started_at: row.started_at.map(|Stamp(at)| at),
            finished_at: row.finished_at.map(|Stamp(at)| at),
        })
    }
}
