//! What was found wrong with a record.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Resource, UnknownWord};

/// What was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscrepancyKind {
    /// We did not hold it.
    Missing,
    /// We held an older version or another content.
    Stale,
    /// It could not be transformed.
    Skipped,
    /// It could not be written.
    Failed,
}

impl DiscrepancyKind {
    /// The word that the database and the API use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for DiscrepancyKind {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        [Self::Missing, Self::Stale, Self::Skipped, Self::Failed]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownWord::new("discrepancy kind", text))
    }
}

/// One record that was not as Salla has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Discrepancy {
    /// The record's kind.
    pub resource: Resource,
    /// Salla's id; absent when a record came without one.
    pub salla_id: Option<i64>,
    /// What was wrong.
    pub kind: DiscrepancyKind,
    /// The version that was held.
    pub local_updated_at: Option<DateTime<Utc>>,
    /// The version that Salla has.
    pub remote_updated_at: Option<DateTime<Utc>>,
    /// Which columns differed.
    pub fields: Vec<String>,
    /// Why it was skipped or failed.
    pub reason: Option<String>,
}
