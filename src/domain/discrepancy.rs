//! The discrepancies of records.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Resource, words::words};

words! {
    /// The kind of a discrepancy.
    DiscrepancyKind ("discrepancy kind") {
        /// We did not hold it.
        Missing = "missing",
        /// An older version or other content was stored.
        Stale = "stale",
        /// It could not be transformed.
        Skipped = "skipped",
        /// It could not be written, or Salla's answer fails whenever it holds the record.
        Failed = "failed",
    }
}

/// A column with its value before and after a correction, as text. Values of personal data are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The column.
    pub field: String,
    /// The stored value.
    pub before: Option<String>,
    /// The value that Salla has.
    pub after: Option<String>,
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &'_ Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        write!(f, "{}: {} → {}", self.field, value(&self.before), value(&self.after))
    }
}

/// One record that was not as Salla has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Discrepancy {
    /// The record's kind.
    pub resource: Resource,
    /// Salla's id; absent when a record came without one.
    pub salla_id: Option<i64>,
    /// The kind of the discrepancy.
    pub kind: DiscrepancyKind,
    /// The version of the stored record.
    pub local_updated_at: Option<DateTime<Utc>>,
    /// The version that Salla has.
    pub remote_updated_at: Option<DateTime<Utc>>,
    /// Which columns differed.
    pub fields: Vec<String>,
    /// The values of these columns, where they are known and not personal.
    pub changes: Vec<FieldChange>,
    /// Why it was skipped or failed.
    pub reason: Option<String>,
    /// It does not count as drift, because the program did not watch the record before.
    pub backfill: bool,
}

/// Whether fields that differ show that a record is deleted in Salla, and was not marked.
pub(super) fn is_deletion(fields: &[String]) -> bool {
    fields.iter().any(|field| field == "deleted_at")
}

impl Discrepancy {
    /// The record is deleted in Salla, and the stored one was not marked.
    #[must_use]
    pub fn is_deletion(&self) -> bool {
        is_deletion(&self.fields)
    }
}

/// A discrepancy of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The discrepancy.
    #[serde(flatten)]
    pub discrepancy: Discrepancy,
    /// When the run found it.
    pub found_at: DateTime<Utc>,
    /// How long Salla's version had not been here by then, in whole seconds; absent where that version is unknown, and for
    /// backfill.
    pub late_seconds: Option<u64>,
}

impl Found {
    /// `discrepancy`, found at `found_at`. A clock of Salla that is ahead gives no negative delay.
    #[must_use]
    pub fn new(discrepancy: Discrepancy, found_at: DateTime<Utc>) -> Self {
        let drifted = discrepancy.remote_updated_at.filter(|_| !discrepancy.backfill);
        let late = drifted.map(|remote| (found_at - remote).num_seconds());
        Self { discrepancy, found_at, late_seconds: late.map(|seconds| u64::try_from(seconds).unwrap_or(0)) }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, TimeZone};

    use super::*;

    #[test]
    fn late_in_whole_seconds_and_never_negative() {
        let found_at = Utc.timestamp_opt(1_790_000_000, 0).unwrap();
        let late = |remote_updated_at| {
            let discrepancy = Discrepancy {
                resource: Resource::Orders,
                salla_id: Some(1),
                kind: DiscrepancyKind::Missing,
                local_updated_at: None,
                remote_updated_at,
                fields: Vec::new(),
                changes: Vec::new(),
                reason: None,
                backfill: false,
            };
            Found::new(discrepancy, found_at).late_seconds
        };
        assert_eq!(late(Some(found_at - TimeDelta::milliseconds(1_900))), Some(1));
        assert_eq!(late(Some(found_at + TimeDelta::hours(1))), Some(0));
        assert_eq!(late(None), None);
    }
}
