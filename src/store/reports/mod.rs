//! What people and scrapes read.

pub mod audit;
mod corrected_records;
pub mod drift;
pub mod overview;
pub mod readiness;
pub mod run_queries;

use std::time::Duration;

use super::Store;
use crate::{
    domain::{Drift, Found, Merchant, Run, RunId},
    reconcile::ports::{Audited, CorrectedRecord, DatabaseError, DriftFilter, Gauges, NotReady, RunFilter, RunHistory},
};

impl RunHistory for Store {
    async fn runs(&self, filter: RunFilter) -> Result<Vec<Run>, DatabaseError> {
        Self::runs(self, filter).await
    }

    async fn run(&self, id: RunId) -> Result<Option<Run>, DatabaseError> {
        Self::run(self, id).await
    }

    async fn discrepancies(&self, id: RunId, skip: u64, limit: u64) -> Result<Vec<Found>, DatabaseError> {
        Self::discrepancies(self, id, skip, limit).await
    }

    async fn drift(&self, filter: DriftFilter) -> Result<Vec<Drift>, DatabaseError> {
        Self::drift(self, filter).await
    }

    async fn corrected_records(
        &self,
        filter: DriftFilter,
        after: i64,
        limit: u64,
    ) -> Result<Vec<CorrectedRecord>, DatabaseError> {
        self.call(|| self.corrected_records_once(filter, after, limit)).await
    }

    async fn audit(&self, before: Option<i64>, limit: u64) -> Result<Vec<Audited>, DatabaseError> {
        Self::audit(self, before, limit).await
    }

    async fn merchants(&self) -> Result<Vec<Merchant>, DatabaseError> {
        self.call(|| self.register_rows()).await
    }

    async fn gauges(&self) -> Result<Gauges, DatabaseError> {
        Self::gauges(self).await
    }

    async fn ready(&self) -> Result<(), NotReady> {
        Self::ready(self).await
    }

    async fn prune(&self, keep: Duration) -> Result<u64, DatabaseError> {
        Self::prune(self, keep).await
    }
}
