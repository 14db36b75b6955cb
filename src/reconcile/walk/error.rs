//! Why a walk is given up, and the bounds that it keeps.

use std::time::Duration;

use crate::domain::FailureKind;

/// No list is longer than this; a server that says so is not believed.
const MAX_PAGES: u32 = 20_000;

/// A server that does not say how many pages there are is given up after this many.
const MAX_UNANNOUNCED_PAGES: u32 = 500;

/// The time after which it fails.
const MAX_UNANNOUNCED_TIME: Duration = Duration::from_secs(270);

/// A list without a new record in this many pages repeats itself.
const MAX_STALE_PAGES: u32 = 50;

/// A list may grow while it is read, by this many pages and a tenth.
const GROWTH_ALLOWED: u32 = 50;

/// No list is read for longer than this.
const MAX_TIME: Duration = Duration::from_hours(24);

/// Why a walk was given up.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// It does not hold still, or the server's own account of it is wrong.
    #[error(
        "the list could not be proved complete: {passes} readings showed {distinct} different records, and `total` is {}", total.map_or_else(|| "no number".to_owned(), |total| total.to_string())
    )]
    Unstable {
        /// How often it was read from one end to the other.
        passes: u32,
        /// How many different records it showed.
        distinct: u64,
        /// How many the server says there are.
        total: Option<u64>,
    },
    /// A page that is the previous page again.
    #[error("page {0} of the list repeats the previous page; the server ignores the page number")]
    Repeated(u32),
    /// The list does not end.
    #[error("the list does not end at page {page}: {why}")]
    Endless {
        /// The last page that was looked at.
        page: u32,
        /// Which bound it broke.
        why: &'static str,
    },
    /// A single day holds more records than the server lets be read.
    #[error("the list of one day is longer than the server allows")]
    TooLong,
}

impl WalkError {
    /// The failure kind.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Unstable { .. } => FailureKind::ListingUnstable,
            Self::Repeated(_) => FailureKind::PaginationLoop,
            Self::Endless { .. } => FailureKind::PaginationLimitExceeded,
            Self::TooLong => FailureKind::ListingUnsupported,
        }
    }
}

/// How far a walk has gone.
#[derive(Debug, Clone, Copy)]
pub struct Distance {
    pub page: u32,
    pub first_total_pages: Option<u32>,
    pub total_pages: Option<u32>,
    pub stale_pages: u32,
    /// Since this process began to read the list.
    pub elapsed: Duration,
}

/// Keeps a walk from going on for ever.
pub fn check(walked: Distance) -> Result<(), WalkError> {
    let Distance { page, first_total_pages, total_pages, stale_pages, elapsed } = walked;
    let why = match (first_total_pages, total_pages) {
        (_, Some(pages)) if pages > MAX_PAGES => "the server announces more than 20,000 pages",
        (Some(first), _) if page >= first.saturating_add(first / 10 + GROWTH_ALLOWED) => {
            "it grew by more than a tenth and 50 pages"
        }
        _ if stale_pages >= MAX_STALE_PAGES => "50 pages in a row showed no new record",
        (None, None) if elapsed > MAX_UNANNOUNCED_TIME => {
            "the server shows no number of pages, and 4.5 minutes have passed"
        }
        (None, None) if page >= MAX_UNANNOUNCED_PAGES => "the server shows no number of pages, and 500 pages were read",
        _ if page >= MAX_PAGES => "20,000 pages were read",
        _ if elapsed > MAX_TIME => "24 hours have passed",
        _ => return Ok(()),
    };
    Err(WalkError::Endless { page, why })
}
