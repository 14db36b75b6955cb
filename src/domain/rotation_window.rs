//! A part of what a merchant has had for long, of a kind whose list cannot be asked for what changed.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::DEEP_CHECK_NIGHTS;

/// What was created from one instant to another. Night by night the next one is read, and after the last the first again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationWindow {
    /// At or after; absent: from the beginning.
    pub from: Option<DateTime<Utc>>,
    /// Before; absent: to the end.
    pub to: Option<DateTime<Utc>>,
}

impl RotationWindow {
    /// So many nights one turn takes.
    pub const NIGHTS: u16 = DEEP_CHECK_NIGHTS;

    /// A merchant that has no more than this of a kind is read whole each night: ten pages.
    pub const FEW: u64 = 600;
}
