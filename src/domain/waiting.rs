//! Why a run waits.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::words::words;

words! {
    /// What a run waits for.
    WaitReason ("reason to wait") {
        /// Salla, or its token endpoint, does not answer.
        SallaUnavailable = "salla_unavailable",
        /// Salla limits the merchant's requests.
        RateLimited = "rate_limited",
        /// The database does not answer.
        Database = "database",
        /// The service that keeps the tokens does not answer.
        TokenStoreUnavailable = "token_store_unavailable",
        /// Salla's request limit for this IP address is used up.
        AddressLimit = "address_limit",
    }
}

/// Why a run begins to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// One word.
    pub reason: WaitReason,
    /// One sentence for the person on call.
    pub message: String,
}

/// What a queued or running run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// One word.
    pub reason: WaitReason,
    /// One sentence for the person on call.
    pub message: String,
    /// When it is tried again, at the earliest.
    pub until: DateTime<Utc>,
    /// How often it has waited since its last progress.
    pub attempts: u32,
}
