//! What the application needs of the outside, as contracts.
//!
//! [`Source`] and [`Target`] carry the data and are generic over the record kind. [`Ledger`] is the
//! run queue and its proof. [`CredentialStore`] keeps Salla and the database strangers to each other.

mod claim;
mod credentials;
mod ledger;
mod pauses;
mod source;
mod target;

pub use claim::{Claim, Cursor, Lease, Resumed, Seen};
pub use credentials::{CredentialError, CredentialStore, Credentials, REFRESH_TAKES_AT_MOST, Sealed, Tokens};
pub use ledger::{
    Begun, DriftFilter, EndedSweep, Ending, Enqueued, Firing, Gauges, Ledger, NewRun, PRUNE_BATCH, RunFilter,
};
pub use pauses::PauseStore;
pub use source::{Listed, Page, PageRequest, RequestCount, Row, RowKey, Source, SourceError};
pub use target::{Assessed, Batch, Cause, Checked, Committed, HeldVersion, PageCommit, Target, TargetError};
