//! The contracts between the application and the outside.
//!
//! The traits [`Source`] and [`RecordStore`] carry the data, and are generic over the kind of record. The traits
//! [`RunQueue`], [`ScheduleStore`] and [`RunHistory`] keep the runs. The trait [`MerchantRegistry`] keeps the merchants
//! that are reconciled. The trait [`CredentialStore`] keeps the tokens, so that Salla and the database do not depend on
//! each other.

mod audit;
mod claim;
mod credentials;
mod every;
mod grant;
mod not_ready;
mod outbox;
mod overview;
mod owner;
mod rate_limits;
mod record_store;
mod register;
mod run_history;
mod run_queue;
mod schedule_store;
mod source;

pub use crate::reconcile::walk::RowKey;
pub use audit::{Action, Actor, Audit, Audited};
pub use claim::{Claim, Cursor, Lease, MAX_FAILED_ATTEMPTS, Resumed, Seen, WATERMARK_TOLERANCE};
pub use credentials::{CredentialError, CredentialStore, Credentials, REFRESH_TAKES_AT_MOST, Sealed, Tokens};
pub use every::{RecordStores, Sources};
pub use grant::Unusable;
pub use not_ready::NotReady;
pub use outbox::{Backlog, DELIVERY_LEASE, Outbox, OutboxEvent, PendingDelivery};
pub use overview::{MerchantIssue, Overview, SweepSummary, TokenState};
pub use owner::{OwnerUnknown, TokenOwner};
pub use rate_limits::{BackoffStore, IpRateLimitStore, LONGEST_PAUSE, RateLimitState};
pub use record_store::{
    AssessedRecord, Batch, Cause, Committed, DatabaseError, DetailCheckResult, ExpectedRecords, PageCommit,
    RecordStore, SortedListRead, StoredVersion,
};
pub use register::{
    AppEvent, Applied, Changed, MerchantFilter, MerchantRegistry, ParsedWebhook, ReadEvent, Registered, Registration,
    UnreadableEvent,
};
pub use run_history::{CorrectedRecord, DriftFilter, Gauges, PRUNE_BATCH, RunFilter, RunHistory};
pub use run_queue::{
    Again, ClaimedRuns, EnqueueOutcome, GlobalPause, IdempotencyKey, NewRun, Released, RunOutcome, RunQueue,
    StartOutcome,
};
pub use schedule_store::{EndedSweep, RecordedSweep, ScheduleStore, SweepDecision};
pub use source::{ItemsRead, Listed, MerchantContext, Page, PageRequest, RequestCount, Row, Source, SourceError};

/// Everything about runs, for who needs all of it.
pub trait RunStore: RunQueue + ScheduleStore + RunHistory {}

impl<S: RunQueue + ScheduleStore + RunHistory> RunStore for S {}
