//! What a run counts.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What became of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was missing, and is stored.
    Created,
    /// It was stale, and is corrected.
    Updated,
    /// The local row was as new or newer.
    Unchanged,
    /// It could not be transformed.
    Skipped,
    /// It could not be written, or Salla's answer fails whenever it holds the record.
    Failed,
}

impl Outcome {
    /// Every outcome, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Created, Self::Updated, Self::Unchanged, Self::Skipped, Self::Failed];

    /// The word that the metrics use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

/// Records that a run corrected and that count as backfill.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfilled {
    /// Were missing.
    pub created: u64,
    /// Were stale.
    pub updated: u64,
}

/// Distinct records by what became of them. `fetched` is always the sum of the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Distinct records read.
    pub fetched: u64,
    /// Were missing.
    pub created: u64,
    /// Were stale.
    pub updated: u64,
    /// Were as new or newer.
    pub unchanged: u64,
    /// Could not be transformed.
    pub skipped: u64,
    /// Could not be written, or Salla's answer fails whenever it holds the record.
    pub failed: u64,
    /// Part of `unchanged`: stored rows that are newer than Salla's and differ from them.
    #[serde(default)]
    pub newer_locally: u64,
    /// Part of `created` and `updated`: records whose difference does not count as drift, because the program did not watch them before.
    #[serde(default)]
    pub backfilled: Backfilled,
}

impl Totals {
    /// Counts one record.
    pub fn count(&mut self, outcome: Outcome) {
        self.fetched += 1;
        *match outcome {
            Outcome::Created => &mut self.created,
            Outcome::Updated => &mut self.updated,
            Outcome::Unchanged => &mut self.unchanged,
            Outcome::Skipped => &mut self.skipped,
            Outcome::Failed => &mut self.failed,
        } += 1;
    }

    /// Counts one record, which is backfill if it was corrected.
    pub fn count_backfill(&mut self, outcome: Outcome) {
        self.count(outcome);
        match outcome {
            Outcome::Created => self.backfilled.created += 1,
            Outcome::Updated => self.backfilled.updated += 1,
            Outcome::Unchanged | Outcome::Skipped | Outcome::Failed => {}
        }
    }

    /// Records that were corrected and do not count as drift.
    #[must_use]
    pub fn backfilled_total(&self) -> u64 {
        self.backfilled.created + self.backfilled.updated
    }

    /// Records that were corrected and are drift: those that were missing, and those that were stale.
    #[must_use]
    pub fn drift(&self) -> (u64, u64) {
        let Backfilled { created, updated } = self.backfilled;
        (self.created.saturating_sub(created), self.updated.saturating_sub(updated))
    }

    /// How many records had `outcome`.
    #[must_use]
    pub fn of(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Created => self.created,
            Outcome::Updated => self.updated,
            Outcome::Unchanged => self.unchanged,
            Outcome::Skipped => self.skipped,
            Outcome::Failed => self.failed,
        }
    }

    /// Some record was left as it was though it should have been looked at or written.
    #[must_use]
    pub fn incomplete(&self) -> bool {
        self.skipped + self.failed > 0
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.fetched += other.fetched;
        self.created += other.created;
        self.updated += other.updated;
        self.unchanged += other.unchanged;
        self.skipped += other.skipped;
        self.failed += other.failed;
        self.newer_locally += other.newer_locally;
        self.backfilled.created += other.backfilled.created;
        self.backfilled.updated += other.backfilled.updated;
    }
}
