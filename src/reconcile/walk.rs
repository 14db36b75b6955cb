//! The walk over the pages of a list: which page comes next, which rows are new, and when to give up.
//!
//! A short page is never taken for the last one: Salla may return fewer rows than asked for. The end is
//! an empty page, or the last page by the newest answer's own account.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use super::ports::{Cursor, Page};
use crate::domain::{FailureKind, Record, Unreadable};

/// No list is longer than this; a server that says so is not believed.
const MAX_PAGES: u32 = 20_000;

/// A server that does not say how many pages there are is given up after this many.
const MAX_UNANNOUNCED_PAGES: u32 = 500;

/// Or after so long.
const MAX_UNANNOUNCED_TIME: Duration = Duration::from_secs(270);

/// A list that has brought nothing new for so many pages goes round in circles.
const MAX_STALE_PAGES: u32 = 50;

/// A list may grow while it is read, by this many pages and a tenth.
const GROWTH_ALLOWED: u32 = 50;

/// Why a walk was given up.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// Fewer rows came than the list has.
    #[error("the list has {total} rows by the server's account, and {rows} came: it is not whole")]
    Incomplete {
        /// By the newest answer.
        total: u64,
        /// Repeated ones included.
        rows: u64,
    },
    /// A page that is the previous page again.
    #[error("page {0} of the list is the page before it again; the server seems to ignore the page number")]
    Repeated(u32),
    /// The list goes on and on.
    #[error("the list goes on beyond page {page}: {why}")]
    Endless {
        /// The last page that was looked at.
        page: u32,
        /// Which bound it broke.
        why: &'static str,
    },
}

impl WalkError {
    /// The word for the ledger.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Incomplete { .. } => FailureKind::ListingUnstable,
            Self::Repeated(_) => FailureKind::RepeatedPage,
            Self::Endless { .. } => FailureKind::EndlessList,
        }
    }
}

/// The state of a walk. Memory: eight bytes a distinct record.
#[derive(Debug)]
pub struct Walk {
    cursor: Cursor,
    seen: HashSet<i64>,
    previous_page: Vec<Option<i64>>,
    stale_pages: u32,
    began: Instant,
}

/// What a page brought that the walk had not seen.
#[derive(Debug)]
pub struct Admitted<R> {
    pub records: Vec<R>,
    pub unreadable: Vec<Unreadable>,
    /// Seen before and counted then: to be written if they are newer than what was.
    pub repeats: Vec<R>,
}

impl Walk {
    /// Begins at page 1, or where an earlier holder of the run stopped.
    pub fn new(resumed: Option<(Cursor, Vec<i64>)>) -> Self {
        let (cursor, seen) = resumed.unwrap_or_else(|| {
            let first = Cursor { next_page: Some(1), observed_at: None, first_total_pages: None, rows: 0 };
            (first, Vec::new())
        });
        Self {
            cursor,
            seen: seen.into_iter().collect(),
            previous_page: Vec::new(),
            stale_pages: 0,
            began: Instant::now(),
        }
    }

    /// Where the walk stands.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Takes in page `number`, and moves on.
    pub fn admit<R: Record>(&mut self, number: u32, page: Page<R>) -> Result<Admitted<R>, WalkError> {
        let ids: Vec<Option<i64>> =
            page.rows.iter().map(|row| row.as_ref().map_or_else(|bad| bad.id, |row| Some(row.id()))).collect();
        if !ids.is_empty() && ids.iter().any(Option::is_some) && ids == self.previous_page {
            return Err(WalkError::Repeated(number));
        }
        self.cursor.observed_at = self.cursor.observed_at.or(page.served_at);
        self.cursor.first_total_pages = self.cursor.first_total_pages.or(page.total_pages);
        let last = ids.is_empty() || page.total_pages.is_some_and(|pages| number >= pages);
        if !last {
            self.check_bounds(number, page.total_pages)?;
        }
        self.cursor.rows += ids.len() as u64;
        if let Some(total) = page.total.filter(|&total| last && self.cursor.rows < total) {
            return Err(WalkError::Incomplete { total, rows: self.cursor.rows });
        }
        self.previous_page = ids;
        self.cursor.next_page = (!last).then_some(number + 1);
        let admitted = self.distinct(page.rows);
        let news = !admitted.records.is_empty() || !admitted.unreadable.is_empty();
        self.stale_pages = if news { 0 } else { self.stale_pages + 1 };
        Ok(admitted)
    }

    /// Tells what the walk has not seen from what it has. Of two copies on one page the newer one counts. A
    /// row without an id is always new.
    fn distinct<R: Record>(&mut self, rows: Vec<Result<R, Unreadable>>) -> Admitted<R> {
        let mut admitted =
            Admitted { records: Vec::<R>::with_capacity(rows.len()), unreadable: Vec::new(), repeats: Vec::new() };
        for row in rows {
            match row {
                Ok(record) if self.seen.insert(record.id()) => admitted.records.push(record),
                Ok(record) => {
                    let mut earlier = admitted.records.iter_mut().chain(&mut admitted.repeats);
                    match earlier.find(|earlier| earlier.id() == record.id()) {
                        Some(earlier) if earlier.updated_at() < record.updated_at() => *earlier = record,
                        Some(_) => {}
                        None => admitted.repeats.push(record),
                    }
                }
                Err(bad) if bad.id.is_none_or(|id| self.seen.insert(id)) => admitted.unreadable.push(bad),
                Err(_) => {}
            }
        }
        admitted
    }

    fn check_bounds(&self, page: u32, total_pages: Option<u32>) -> Result<(), WalkError> {
        let endless = |why| Err(WalkError::Endless { page, why });
        match (self.cursor.first_total_pages, total_pages) {
            (_, Some(pages)) if pages > MAX_PAGES => endless("the server announces more than 20,000 pages"),
            (Some(first), _) if page >= first.saturating_add(first / 10 + GROWTH_ALLOWED) => {
                endless("it has grown by more than a tenth and 50 pages since it was first read")
            }
            _ if self.stale_pages >= MAX_STALE_PAGES => endless("50 pages in a row brought nothing new"),
            (None, None) if self.began.elapsed() > MAX_UNANNOUNCED_TIME => {
                endless("the server does not say how many pages there are, and four minutes were not the end")
            }
            (None, None) if page >= MAX_UNANNOUNCED_PAGES => {
                endless("the server does not say how many pages there are, and 500 were not the end")
            }
            _ if page >= MAX_PAGES => endless("20,000 pages were not the end"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::domain::{Fingerprint, Order, OrderColumns};

    fn page(ids: &[i64], total_pages: Option<u32>) -> Page<Order> {
        let row = |&id: &i64| {
            Ok(Order {
                id,
                updated_at: DateTime::UNIX_EPOCH,
                columns: OrderColumns {
                    reference_id: None,
                    status: None,
                    currency: None,
                    total_amount: None,
                    salla_created_at: None,
                },
                payload: "{}".to_owned(),
                fingerprint: Fingerprint::of_json("{}").unwrap(),
            })
        };
        Page { rows: ids.iter().map(row).collect(), total_pages, served_at: None, total: None, unfiltered: false }
    }

    /// Walks a list, and returns the ids that were admitted and how it ended.
    fn walk(mut list: impl FnMut(u32) -> Page<Order>) -> (Vec<i64>, Result<u32, WalkError>) {
        let (mut walk, mut ids, mut pages) = (Walk::new(None), Vec::new(), 0);
        while let Some(number) = walk.cursor().next_page {
            pages += 1;
            match walk.admit(number, list(number)) {
                Ok(admitted) => ids.extend(admitted.records.iter().map(|order| order.id)),
                Err(error) => return (ids, Err(error)),
            }
        }
        (ids, Ok(pages))
    }

    #[test]
    fn a_short_page_is_not_the_last_one() {
        let (ids, end) = walk(|n| page(if n == 1 { &[1] } else { &[2, 3] }, Some(2)));
        assert_eq!((ids, end.unwrap()), (vec![1, 2, 3], 2));
    }

    #[test]
    fn without_a_page_count_an_empty_page_is_the_end() {
        let (ids, end) = walk(|n| page(&[1, 2, 3][n as usize - 1..3.min(n as usize)], None));
        assert_eq!((ids, end.is_err()), (vec![1, 2, 3], false));
    }

    #[test]
    fn a_record_that_is_listed_twice_is_admitted_once() {
        let (ids, _) = walk(|n| page(if n == 1 { &[1, 2] } else { &[2, 3] }, Some(2)));
        assert_eq!(ids, vec![1, 2, 3]);
    }

    #[test]
    fn a_page_that_is_the_previous_one_again_ends_the_walk() {
        let (_, end) = walk(|_| page(&[1, 2], Some(9)));
        assert!(matches!(end, Err(WalkError::Repeated(2))));
    }

    #[test]
    fn endless_lists_are_given_up() {
        let growing = walk(|n| page(&[i64::from(n)], Some(n + 1)));
        assert!(matches!(growing.1, Err(WalkError::Endless { page: 52, .. })), "{:?}", growing.1);
        let silent = walk(|n| page(&[i64::from(n)], None));
        assert!(matches!(silent.1, Err(WalkError::Endless { page: 500, .. })));
        let absurd = walk(|n| page(&[i64::from(n)], Some(1_000_000)));
        assert!(matches!(absurd.1, Err(WalkError::Endless { page: 1, .. })));
    }

    #[test]
    fn a_list_that_is_not_whole_is_not_taken_for_it() {
        let list = |n| Page { total: Some(5), ..page(if n == 1 { &[1, 2] } else { &[] }, Some(3)) };
        let (ids, end) = walk(list);
        assert_eq!(ids, vec![1, 2]);
        assert!(matches!(end, Err(WalkError::Incomplete { total: 5, rows: 2 })), "{end:?}");
    }

    #[test]
    fn a_list_that_goes_round_in_circles_is_given_up() {
        let (_, end) = walk(|n| page(&[i64::from(n % 2)], Some(15_000)));
        assert!(matches!(end, Err(WalkError::Endless { page: 53, .. })), "{end:?}");
    }

    #[test]
    fn a_walk_goes_on_where_it_stopped() {
        let cursor = Cursor { next_page: Some(2), observed_at: None, first_total_pages: Some(2), rows: 2 };
        let mut walk = Walk::new(Some((cursor, vec![1, 2])));
        let admitted = walk.admit(2, page(&[2, 3], Some(2))).unwrap();
        assert_eq!(admitted.records.len(), 1);
        assert_eq!(walk.cursor().next_page, None);
    }
}
