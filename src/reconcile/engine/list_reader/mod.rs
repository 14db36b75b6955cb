//! A run's way through the lists of a merchant: which list, which page, and what on it the run has not met before.

mod sorted;

use std::collections::HashSet;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use tokio::time::Instant;

use crate::{
    domain::{Listing, Outcome, Record, Resource, STORED_STAMP_TOLERANCE, Scope, Summary, Unreadable},
    reconcile::{
        ports::{Batch, Cursor, MerchantContext, Page, PageRequest, Row, RowKey, Seen},
        walk::{Answer, ListWalk, SeenIds, WalkError},
    },
};

/// The number of control records of each class that are fetched to see whether the merchant is affected.
const CONTROLS: usize = 3;

/// Why a row was not read that no answer showed.
const BREAKS_EVERY_PAGE: &str = "a row of the list breaks its page, and is on another page each time";

/// Where a run is among the lists.
#[derive(Debug)]
pub struct ListReader {
    cursor: Cursor,
    seen: SeenIds,
    /// What earlier runs could not read or write, those not tried for longest first.
    failed: Vec<i64>,
    has_failed: HashSet<i64>,
    now: DateTime<Utc>,
    /// When `now` was.
    claimed_at: Instant,
    began: Instant,
    /// What Salla's clock showed, and when.
    clock: Option<(DateTime<Utc>, Instant)>,
}

/// What a page brought.
#[derive(Debug)]
pub struct NewRecords<R> {
    /// Records that the run has not seen.
    pub records: Vec<R>,
    /// Records that it has seen and counted: to be written if they are newer than what was.
    pub repeats: Vec<R>,
    /// Summaries of records that it has not seen.
    pub summaries: Vec<Summary>,
    /// Rows that it has not seen.
    pub unreadable: Vec<Unreadable>,
    /// All of the page's ids.
    pub ids: Seen,
}

impl<R> Default for NewRecords<R> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            repeats: Vec::new(),
            summaries: Vec::new(),
            unreadable: Vec::new(),
            ids: Seen::new(),
        }
    }
}

impl ListReader {
    /// Goes on from a cursor, with the ids that were seen up to there; `now`: by the database's clock.
    pub fn new(cursor: Cursor, seen: Seen, failed: Vec<i64>, now: DateTime<Utc>) -> Self {
        let mut ids = SeenIds::new();
        for (pass, page) in seen {
            ids.extend(page.into_iter().map(|id| (id, pass)));
        }
        Self {
            cursor,
            seen: ids,
            has_failed: failed.iter().copied().collect(),
            failed,
            now,
            claimed_at: Instant::now(),
            began: Instant::now(),
            clock: None,
        }
    }

    /// An empty batch whose first request is sent at an instant.
    pub fn batch<R: Record>(&self, asked_at: Instant) -> Batch<R> {
        let later = |at: DateTime<Utc>, since: Instant| {
            let passed = asked_at.saturating_duration_since(since);
            at + TimeDelta::from_std(passed).unwrap_or_default()
        };
        let by_database = later(self.now, self.claimed_at);
        let by_salla = self.clock.map_or(by_database, |(shown, when)| later(shown, when));
        Batch { asked_at, asked_on: by_database.min(by_salla), latest: self.latest_stamp(), ..Batch::default() }
    }

    /// The latest possible stamp by Salla's clock, or by the clock of the database while Salla shows none.
    pub fn latest_stamp(&self) -> Option<DateTime<Utc>> {
        let (shown, when) = self.clock.unwrap_or((self.now, self.claimed_at));
        Some(shown + TimeDelta::from_std(when.elapsed()).ok()? + STORED_STAMP_TOLERANCE)
    }

    /// The start position for a kind of record, after `commits` commits.
    pub fn start(resource: Resource, scopes: Vec<Scope>, listing: Listing, commits: u32) -> (Cursor, Seen) {
        let entered_by_change = scopes.last().is_some_and(Scope::is_entered_by_change);
        let cursor = Cursor {
            resource,
            commits,
            commits_before: commits,
            observed_at: None,
            listing,
            scopes,
            left_out: 0,
            unidentified: 0,
            failed_rows: 0,
            all_details: false,
            missed_changes: 0,
            walk: ListWalk::new(entered_by_change, 1),
        };
        (cursor, Seen::new())
    }

    /// Where the run stands.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The page of `whose` to read next; `None`: every list has been read whole.
    pub fn next<'a>(&self, whose: MerchantContext<'a>) -> Option<PageRequest<'a>> {
        let (scope, walk) = (*self.cursor.scopes.last()?, &self.cursor.walk);
        Some(PageRequest { whose, scope, number: walk.next()?, page_size: walk.page_size(), by_id: walk.is_by_id() })
    }

    /// Whether earlier runs could not read or write a record.
    pub fn has_failed(&self, id: i64) -> bool {
        self.has_failed.contains(&id)
    }

    /// The failed records of earlier runs that this run has not met.
    pub fn unsettled(&self) -> impl Iterator<Item = i64> {
        self.failed.iter().copied().filter(|id| !self.has_seen(*id))
    }

    /// Returns control records. They show whether an error concerns the whole merchant or only
    /// `ids`. First come some records that a list showed, then the last of `ids`. Earlier runs and
    /// this one (`bad`) know no error of them.
    pub fn controls(&self, ids: &[i64], bad: &HashSet<i64>) -> Vec<i64> {
        // A row without an id was seen under a negative number, at which there is nothing to ask for.
        let well = |id: &&i64| **id >= 0 && !self.has_failed(**id) && !bad.contains(id);
        let others = self.seen.keys().filter(|id| !ids.contains(id)).filter(well).take(CONTROLS);
        others.chain(ids.iter().rev().filter(well).take(CONTROLS)).copied().collect()
    }

    /// Whether the run has met a record.
    pub fn has_seen(&self, id: i64) -> bool {
        self.seen.contains_key(&id)
    }

    /// Whether a row that broke its page may be the record that cannot be read at its own address either. Each such row
    /// stands for one record.
    pub fn matches_failed_row(&mut self) -> bool {
        let is_matched = self.cursor.failed_rows > 0;
        self.cursor.failed_rows = self.cursor.failed_rows.saturating_sub(1);
        is_matched
    }

    /// Adds to the number of records that the lists omitted, and returns the new number.
    pub fn note_left_out(&mut self, more: u32) -> u32 {
        self.cursor.left_out += more;
        self.cursor.left_out
    }

    /// Notes records that were read at their own addresses. They count as seen by the next pass.
    pub fn note_details(&mut self, ids: Vec<i64>) -> Seen {
        self.note_seen(self.cursor.walk.pass() + 1, ids)
    }

    /// Notes records as seen by a pass over the list, for one commit.
    pub(super) fn note_seen(&mut self, pass: u32, ids: Vec<i64>) -> Seen {
        self.cursor.commits += 1;
        self.seen.extend(ids.iter().map(|&id| (id, pass)));
        vec![(pass, ids)]
    }

    /// Takes in the page that was next, and moves on; `None`: the lists are planned again, and its records will come in
    /// other pages.
    pub fn admit<R: Record>(&mut self, page: Page<R>) -> Result<Option<NewRecords<R>>, WalkError> {
        self.note_clock(page.served_at);
        if let Some(reason) = page.out_of_scope {
            self.scan();
            tracing::warn!(reason, "the listing of the merchant changes");
            return Ok(None);
        }
        if let Some((oldest, newest)) = page.too_long {
            let halves = self.cursor.scopes.pop().and_then(|scope| scope.split(oldest, newest));
            let [older, newer] = halves.ok_or(WalkError::TooLong)?;
            self.cursor.scopes.extend([newer, older]);
            self.start_list();
            let reason = "the list is longer than the server allows; its days are divided";
            tracing::warn!(reason, "the listing of the merchant changes");
            return Ok(None);
        }
        let mut keys: Vec<RowKey> = page.rows.iter().map(|listed| listed.key).collect();
        let failed_rows = keys.iter_mut().zip(&page.rows).filter(|(_, listed)| listed.breaks_its_page());
        self.cursor.walk.number_failed_rows(failed_rows.map(|(key, _)| key), &self.seen);
        let Page { total_pages, total, is_broken, .. } = page;
        let answer = Answer { rows: &keys, total_pages, total, is_broken };
        let pass = self.cursor.walk.pass();
        let marks = self.cursor.walk.admit(answer, &mut self.seen, self.cursor.observed_at, self.began.elapsed())?;
        self.cursor.commits += 1;
        let mut unread = 0;
        if self.cursor.walk.next().is_none() {
            unread = self.cursor.walk.unread();
            self.cursor.scopes.pop();
            if !self.cursor.scopes.is_empty() {
                self.start_list();
            }
        }
        let ids = vec![(pass, keys.iter().map(|key| key.id).collect())];
        let mut admitted = split_seen(page, &marks, ids);
        admitted.unreadable.extend((0..unread).map(|_| Unreadable::failed(BREAKS_EVERY_PAGE)));
        for bad in admitted.unreadable.iter().filter(|bad| bad.id.is_none()) {
            self.cursor.unidentified += 1;
            self.cursor.failed_rows += u32::from(bad.outcome == Outcome::Failed);
        }
        Ok(Some(admitted))
    }

    /// Notes what Salla's clock showed in an answer.
    pub fn note_clock(&mut self, served_at: Option<DateTime<Utc>>) {
        self.clock = served_at.map(|at| (at, Instant::now())).or(self.clock);
        // With a clock of Salla that is ahead, new changes would look old, and a gap would stay behind the watermark.
        let served_at = served_at.map(|at| at.min(self.now).trunc_subsecs(0));
        self.cursor.observed_at = self.cursor.observed_at.or(served_at);
    }

    /// Begins to walk the present list.
    fn start_list(&mut self) {
        let entered_by_change = self.cursor.scopes.last().is_some_and(Scope::is_entered_by_change);
        self.cursor.walk = ListWalk::new(entered_by_change, self.cursor.walk.pass() + 1);
        self.began = Instant::now();
    }
}

/// Tells what the run has not met from what it has. Of two copies on one page the newer one counts.
fn split_seen<R: Record>(page: Page<R>, marks: &[Option<u32>], ids: Seen) -> NewRecords<R> {
    let mut admitted = NewRecords { ids, records: Vec::with_capacity(page.rows.len()), ..NewRecords::default() };
    for (listed, mark) in page.rows.into_iter().zip(marks) {
        match (listed.row, mark) {
            (Row::Whole(record), None) => admitted.records.push(record),
            (Row::Whole(record), Some(_)) => {
                if let Some(place) = admitted.summaries.iter().position(|summary| summary.id == record.id()) {
                    // The page has it twice, here in full.
                    admitted.summaries.swap_remove(place);
                    admitted.records.push(record);
                    continue;
                }
                let mut earlier = admitted.records.iter_mut().chain(&mut admitted.repeats);
                match earlier.find(|earlier| earlier.id() == record.id()) {
                    Some(earlier) if earlier.updated_at() < record.updated_at() => *earlier = record,
                    Some(_) => {}
                    None => admitted.repeats.push(record),
                }
            }
            (Row::Summary(summary), None) => admitted.summaries.push(summary),
            (Row::Unreadable(bad), None) => admitted.unreadable.push(bad),
            // A later change also changes the summary by the next night.
            (Row::Summary(_) | Row::Unreadable(_), Some(_)) => {}
        }
    }
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_a_clock_of_salla_the_clock_of_the_database_limits_stamps() {
        let now = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        let (cursor, seen) = ListReader::start(Resource::Orders, Vec::new(), Listing::Scan, 0);
        let reader = ListReader::new(cursor, seen, Vec::new(), now);
        tokio::time::advance(std::time::Duration::from_secs(60)).await;
        assert_eq!(reader.latest_stamp(), Some(now + TimeDelta::seconds(60) + STORED_STAMP_TOLERANCE));
    }
}
