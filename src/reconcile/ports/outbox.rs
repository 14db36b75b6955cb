//! Events about succeeded runs that are not delivered yet.

use std::{future::Future, time::Duration};

use super::TargetError;
use crate::domain::{MerchantId, RunId};

/// An event to deliver: the oldest one of its merchant.
#[derive(Debug, Clone)]
pub struct PendingDelivery {
    /// Its place in the outbox; `None`: another process has delivered all that the merchant had.
    pub event: Option<OutboxEvent>,
    /// The merchant.
    pub merchant: MerchantId,
    /// Raised with every taker: what an earlier one did comes too late.
    pub epoch: i64,
    /// The tries to deliver it, this one included.
    pub attempts: u32,
}

/// An event, as it is kept.
#[derive(Debug, Clone)]
pub struct OutboxEvent {
    /// Its place in the outbox.
    pub id: i64,
    /// The run that ended.
    pub run_id: RunId,
    /// That run as JSON, as the API shows it.
    pub run: String,
}

/// How the hand-over stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backlog {
    /// Events that are still to be delivered.
    pub pending: u64,
    /// When the oldest of them came to be.
    pub oldest: Option<chrono::DateTime<chrono::Utc>>,
    /// Bytes of WAL that the consumer of the slot has not confirmed; `None` without such a slot.
    pub replication_slot_lag_bytes: Option<u64>,
}

/// The outbox. A run's end puts its event there, in the transaction of that end. Every time is the database's own.
pub trait Outbox: Send + Sync + Clone + 'static {
    /// Takes up to `limit` merchants' oldest events that are due and, where a replication slot is named, whose changes
    /// its consumer has confirmed. The caller has a minute to deliver each.
    fn take(&self, limit: u32) -> impl Future<Output = Result<Vec<PendingDelivery>, TargetError>> + Send;

    /// These were delivered: each merchant's next event is due.
    fn delivered(&self, events: &[PendingDelivery]) -> impl Future<Output = Result<(), TargetError>> + Send;

    /// This one was not: it is due again after `pause`.
    fn put_off(&self, event: &PendingDelivery, pause: Duration)
    -> impl Future<Output = Result<(), TargetError>> + Send;

    /// What is wrong with the replication slot, if one is named.
    fn slot_trouble(&self) -> impl Future<Output = Result<Option<&'static str>, TargetError>> + Send;
}
