//! Events that are not delivered yet.

use std::{future::Future, time::Duration};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::DatabaseError;
use crate::domain::{MerchantId, RunId};

/// Another process takes events that are not delivered after this time.
pub const DELIVERY_LEASE: Duration = Duration::from_secs(60);

/// Events to deliver: the oldest ones of a merchant.
#[derive(Debug, Clone)]
pub struct PendingDelivery {
    /// In the order of their delivery; empty if another process has delivered all events of the merchant.
    pub events: Vec<OutboxEvent>,
    /// The merchant.
    pub merchant: MerchantId,
    /// Raised with every taker: what an earlier one did comes too late.
    pub epoch: i64,
    /// The tries to deliver the first event, this one included.
    pub attempts: u32,
}

/// An event, as it is kept.
#[derive(Debug, Clone)]
pub struct OutboxEvent {
    /// Its place in the outbox.
    pub id: i64,
    /// The id of the event, the same in each delivery.
    pub event_id: Uuid,
    /// The run that ended, or that wrote the record.
    pub run_id: RunId,
    /// The type without its prefix, such as `run.succeeded`.
    pub event_type: String,
    /// The merchant or the record, such as `merchants/1001`.
    pub subject: String,
    /// The run as the API shows it, or the record, as JSON.
    pub data: String,
    /// When the run ended, or the record was written.
    pub at: DateTime<Utc>,
}

/// How the hand-over stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backlog {
    /// Events that are still to be delivered.
    pub pending: u64,
    /// When the oldest of them came to be.
    pub oldest: Option<DateTime<Utc>>,
    /// Bytes of WAL that the consumer of the slot has not confirmed; `None` without such a slot.
    pub replication_slot_lag_bytes: Option<u64>,
}

/// The outbox. Events are added in the transaction of what they report. Every time is one of the database.
pub trait Outbox: Send + Sync + Clone + 'static {
    /// Takes up to `limit` merchants whose events are due, with their oldest events. With a replication slot, only events that
    /// its consumer has confirmed. The caller has [`DELIVERY_LEASE`] to deliver those of a merchant.
    fn take(&self, limit: u32) -> impl Future<Output = Result<Vec<PendingDelivery>, DatabaseError>> + Send;

    /// All `events` of these were delivered: the next event of each merchant is due.
    fn delivered(&self, deliveries: &[PendingDelivery]) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// The first event was not delivered: it is due again after `pause`.
    fn reschedule(
        &self,
        delivery: &PendingDelivery,
        pause: Duration,
    ) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// The problem of the replication slot, if a slot is named and has one.
    fn slot_problem(&self) -> impl Future<Output = Result<Option<&'static str>, DatabaseError>> + Send;
}
