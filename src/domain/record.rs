//! What every kind of record that is reconciled has in common.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Fingerprint, UnknownWord};

/// A kind of record; its name labels metrics and discrepancies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// A store's orders.
    Orders,
}

impl Resource {
    /// The word that the database, the API and the metrics use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orders => "orders",
        }
    }

    /// The word for one of them.
    #[must_use]
    pub fn one(self) -> &'static str {
        match self {
            Self::Orders => "order",
        }
    }
}

impl FromStr for Resource {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        [Self::Orders]
            .into_iter()
            .find(|resource| resource.as_str() == text)
            .ok_or_else(|| UnknownWord::new("resource", text))
    }
}

/// A record as Salla has it, transformed into our terms.
pub trait Record: Send + Sync + 'static {
    /// Its kind.
    const RESOURCE: Resource;

    /// The columns that the platform's database keeps beside the raw payload.
    type Columns: Send + Sync + 'static;

    /// Salla's id, unique within a merchant and a resource.
    fn id(&self) -> i64;

    /// When Salla last changed it. One-second grain: equal stamps do not prove equal content.
    fn updated_at(&self) -> DateTime<Utc>;

    /// The JSON text that Salla sent.
    fn payload(&self) -> &str;

    /// What `payload` hashes to.
    fn fingerprint(&self) -> Fingerprint;

    /// It exists, and Salla shows it in no list: a draft.
    fn is_unlisted(&self) -> bool;

    /// Its columns.
    fn columns(&self) -> &Self::Columns;

    /// A text that is the same for columns that are equal, however they were read.
    fn canonical(columns: &Self::Columns) -> String;

    /// The names of the columns in which `ours` differs from `theirs`.
    fn differing(theirs: &Self::Columns, ours: &Self::Columns) -> Vec<&'static str>;
}

/// A record that could not be transformed. Its neighbours are not affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Salla's id, when at least that could be read.
    pub id: Option<i64>,
    /// Where in the record's JSON the trouble is, such as `total.amount`; empty: the record itself.
    pub path: String,
    /// What is wrong there, without the value (it may be personal data).
    pub reason: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.path, self.reason) }
    }
}
