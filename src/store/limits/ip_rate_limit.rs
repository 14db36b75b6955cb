//! The requests of all processes that Salla counts by IP address.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{ConnectionTrait, DbErr};

use crate::{
    domain::Budget,
    reconcile::ports::{DatabaseError, IpRateLimitStore},
    store::{Store, connection::error::json},
};

impl IpRateLimitStore for Store {
    async fn take(&self, allowance: u32) -> Result<Result<(), Duration>, DatabaseError> {
        let taken = self.call(|| self.with_budget(|budget, now| budget.take(allowance, now))).await?;
        Ok(taken.map_err(|wait| wait.to_std().unwrap_or_default()))
    }

    async fn close(&self, pause: Duration) -> Result<(), DatabaseError> {
        let pause = TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
        self.call(|| self.with_budget(|budget, now| budget.close(pause, now))).await
    }
}

impl Store {
    /// Serializes all callers. Uses the database's clock at the moment of the lock.
    async fn with_budget<T>(&self, act: impl Fn(&mut Budget, DateTime<Utc>) -> T + Send) -> Result<T, DbErr> {
        let txn = self.begin_write().await?;
        let make = "INSERT INTO ip_rate_limit (id, usage) VALUES (1, '{}') ON CONFLICT (id) DO NOTHING";
        txn.execute_raw(self.statement(make, [])).await?;
        let lock = format!("SELECT usage FROM ip_rate_limit WHERE id = 1 {}", self.dialect.for_update());
        let row = txn.query_one_raw(self.statement(&lock, [])).await?;
        let clock = format!("SELECT {} AS now", self.dialect.clock());
        let now = txn.query_one_raw(self.statement(&clock, [])).await?;
        let (Some(row), Some(now)) = (row, now) else {
            return Err(DbErr::RecordNotFound("ip_rate_limit".to_owned()));
        };
        // An unreadable value was not written by this program. It must not stop the customers of every merchant.
        let mut budget: Budget = serde_json::from_str(&row.try_get::<String>("", "usage")?).unwrap_or_default();
        let result = act(&mut budget, now.try_get("", "now")?);
        let keep = "UPDATE ip_rate_limit SET usage = $1 WHERE id = 1";
        txn.execute_raw(self.statement(keep, [json(&budget)?.into()])).await?;
        txn.commit().await?;
        Ok(result)
    }
}
