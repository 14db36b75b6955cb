//! The runs: the queue, claims and leases, the commit of a page, and the end.

pub mod claim;
pub mod commit;
pub mod fence;
pub mod finish;
pub mod idempotency;
pub mod lease;
pub mod ledger;
pub mod queue;
pub mod queue_position;
pub mod release;
pub mod schedule;
pub mod unrecorded_waits;
