//! Where a walk is in its list.

use serde::{Deserialize, Serialize};

use super::sort_order::Direction;

/// Where in the list the walk is, and which way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Nothing has been read.
    First,
    /// Through the list in the direction that is safe for its order.
    Through { direction: Direction, next: u32 },
    /// At the end where changes arrive.
    Edge { direction: Direction, next: u32, round: Round },
    /// Through the list whose order is not known.
    Verify { next: u32 },
    /// All of it has been read.
    Whole,
}

/// The new records that one page, or several pages, showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NewRows {
    /// Nothing.
    None,
    /// Records that changed since the walk began, or shortly before, and no others.
    Recent,
    /// Records that the walk ought to have met before.
    Settled,
}

/// One reading of the end where changes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Round {
    pub number: u8,
    /// What it brought so far.
    pub news: NewRows,
    /// The first answer.
    pub total: Option<u64>,
}
