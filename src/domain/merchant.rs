//! A merchant: one Salla store.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::UnknownWord;

/// Salla's id of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MerchantId(pub i64);

impl fmt::Display for MerchantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MerchantId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Whether the schedule covers a merchant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MerchantState {
    /// Every sweep makes a run for it.
    Active,
    /// Left out of sweeps by a person; runs by hand still work.
    Paused,
    /// Only the merchant can mend it, by installing the app again: its refresh token is used up or revoked.
    NeedsReauthorization,
}

impl MerchantState {
    /// Every state, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Active, Self::Paused, Self::NeedsReauthorization];

    /// The word that the database, the API and the metrics use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::NeedsReauthorization => "needs_reauthorization",
        }
    }
}

impl FromStr for MerchantState {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownWord::new("merchant state", text))
    }
}

/// A store in the register. Its tokens live elsewhere, encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Merchant {
    /// Salla's id of the store.
    pub merchant_id: MerchantId,
    /// The store's name, for people.
    pub name: Option<String>,
    /// Whether sweeps cover it.
    pub state: MerchantState,
    /// Everything that Salla changed before this instant has been read back.
    pub watermark: Option<DateTime<Utc>>,
}
