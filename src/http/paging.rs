//! A list, a page at a time.

use super::{problem::Problem, runs::bad_request};

/// How many entries a page may have: one to this many.
pub const MAX_LIMIT: u64 = 500;

/// One page of a list.
#[derive(Debug, Clone, Copy)]
pub struct Paging {
    limit: u64,
}

impl Paging {
    /// Of `given` entries, or as many as are usual; at most `most`.
    pub fn new(given: Option<u64>, usual: u64, most: u64) -> Result<Self, Problem> {
        let limit = given.unwrap_or(usual);
        if (1..=most).contains(&limit) {
            Ok(Self { limit })
        } else {
            Err(bad_request(format!("limit must be between 1 and {most}")))
        }
    }

    /// How many entries are shown.
    pub fn limit(self) -> u64 {
        self.limit
    }

    /// The number of entries to query: one more than shown, to see whether more exist.
    pub fn ask_for(self) -> u64 {
        self.limit + 1
    }

    /// Cuts `entries` to the page, and returns the cursor of the next, made of this one's last entry.
    pub fn cut<T, C>(self, entries: &mut Vec<T>, cursor: impl FnOnce(&T) -> C) -> Option<C> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = entries.len() > limit;
        entries.truncate(limit);
        entries.last().filter(|_| more).map(cursor)
    }
}
