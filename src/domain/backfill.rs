//! Backfill: differences that do not count as drift.

use chrono::{DateTime, Utc};

/// Which differences count as backfill: those that a lost webhook does not explain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackfillRule {
    /// None: earlier runs have covered the window.
    Nothing,
    /// Those of versions before this instant, the registration of the merchant: the requested window begins earlier.
    Before(DateTime<Utc>),
    /// All: this is the first run over these records, or a full run.
    All,
}

impl BackfillRule {
    /// Whether the difference to this version of Salla is backfill. A deletion has no version.
    #[must_use]
    pub fn includes(self, version: Option<DateTime<Utc>>) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Before(registered_at) => version.is_some_and(|version| version < registered_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn versions_before_the_registration_are_backfill() {
        let registered_at = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        let includes = |version| BackfillRule::Before(registered_at).includes(version);
        assert!(includes(Some(registered_at - TimeDelta::seconds(1))));
        assert!(!includes(Some(registered_at)));
        assert!(!includes(None), "a deletion");
        assert!(BackfillRule::All.includes(None));
        assert!(!BackfillRule::Nothing.includes(Some(registered_at - TimeDelta::days(1))));
    }
}
