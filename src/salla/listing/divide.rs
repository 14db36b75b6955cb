//! Splits a page that fails into smaller pages, down to the rows that cause the failure.
//!
//! One order whose data break Salla's server, or whose text breaks the JSON, must not cost the 59 others of the page. A
//! merchant that does not answer at all looks the same at first: so single rows are asked for before the page is divided.

use std::{ops::Range, time::Duration};

use rand::RngExt;
use tokio::time::sleep;

use super::source::Fetched;
use crate::{
    domain::{ContentHash, Unreadable},
    reconcile::ports::{CredentialStore, Listed, PageRequest, RequestCount, Row, RowKey, SourceError},
    salla::{
        http::{circuit_breaker::AfterFailure, client::SallaClient, request::Divisible},
        resources::api_resource::ApiResource,
        wire::envelope::Pagination,
    },
};

/// Between a page that failed and the first single row, as between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// The number of failures in a row after which single rows are requested again: Salla may have stopped answering.
const FAILURES_BEFORE_CONTROL: u32 = 4;

/// A part of a page: of page `number` of pages of `size` rows, the rows at these places of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PagePart {
    number: u32,
    size: u32,
    places: Range<u32>,
}

impl PagePart {
    /// A whole page.
    fn page(number: u32, size: u32) -> Self {
        Self { number, size, places: (number - 1) * size..number * size }
    }

    /// Pages of half the size that hold the rows of this part, in their order.
    fn divided(&self) -> impl DoubleEndedIterator<Item = Self> {
        let (size, places) = (self.size.div_ceil(2), self.places.clone());
        (places.start / size..places.end.div_ceil(size)).map(move |before| {
            let page = Self::page(before + 1, size);
            let places = page.places.start.max(places.start)..page.places.end.min(places.end);
            Self { places, ..page }
        })
    }

    /// Single rows that show whether Salla answers for the merchant: one beside the page, and the middle one of it.
    fn controls(&self) -> [Self; 2] {
        let beside = if self.places.start > 0 { self.places.start } else { self.places.end + 1 };
        let middle = self.places.start + (self.places.end - self.places.start) / 2 + 1;
        [Self::page(beside, 1), Self::page(middle, 1)]
    }

    /// Those of a page's rows that belong to the part.
    fn cut<T>(&self, rows: Vec<T>) -> impl Iterator<Item = T> {
        let before = (self.number - 1) * self.size;
        let (skipped, kept) = (self.places.start - before, self.places.end - self.places.start);
        rows.into_iter().skip(skipped as usize).take(kept as usize)
    }
}

impl<C: CredentialStore> SallaClient<C> {
    /// Reads a page of `size` rows in parts. `error`: the end of so many attempts at the whole page.
    pub(in crate::salla) async fn fetch_divided<R: ApiResource>(
        &self,
        request: PageRequest<'_>,
        size: u32,
        attempts: u32,
        error: SourceError,
        requests: &RequestCount,
    ) -> Result<Fetched<R>, SourceError> {
        let page = PagePart::page(request.number, size);
        let of = |part: &PagePart| PageRequest { number: part.number, page_size: Some(part.size), ..request };
        // After a single attempt there is always one more, to see whether Salla answers for the merchant.
        let left = self.max_attempts.saturating_sub(attempts).max(u32::from(attempts == 1));
        let controls = || page.controls().into_iter().take(left as usize).map(|part| of(&part));
        let mut is_answered = self.answers::<R>(controls(), requests).await?;
        if is_answered {
            tracing::warn!(merchant.id = request.whose.merchant.0, page = request.number, %error, "a page is read with smaller sizes");
        }
        let (mut rows, mut known, mut failures) = (Vec::with_capacity(size as usize), None, 0);
        let mut parts: Vec<PagePart> = page.divided().rev().collect();
        while let Some(part) = parts.pop().filter(|_| is_answered) {
            let divisible = if part.size > 1 { Divisible::PagePart } else { Divisible::Row };
            match self.fetch::<R>(of(&part), divisible, requests).await {
                // The server ignores the requested page size.
                Ok(fetched) if fetched.rows.len() > part.size as usize => return Err(error),
                Ok(Fetched { rows: fetched, pagination, served_at, .. }) => {
                    rows.extend(part.cut(fetched));
                    known = Some((part.size, pagination, served_at));
                    failures = 0;
                    continue;
                }
                Err(bad) if !bad.is_per_row() => return Err(bad),
                Err(bad) if part.size == 1 => rows.push(failed_row(part.number, &bad)),
                Err(_) => parts.extend(part.divided().rev()),
            }
            failures += 1;
            if failures % FAILURES_BEFORE_CONTROL == 0 {
                is_answered = self.answers::<R>(page.controls().iter().map(of), requests).await?;
            }
        }
        if !is_answered {
            return match self.circuit.blame(request.whose.merchant, error, attempts) {
                AfterFailure::GiveUp(error) => Err(error),
                // Salla answers for no merchant now: this request waits until it does.
                AfterFailure::SendAgain => self.fetch(request, Divisible::No, requests).await,
            };
        }
        let (small, pagination, served_at) = known.ok_or(error)?;
        let is_broken = !rows.iter().any(Listed::breaks_its_page);
        Ok(Fetched { rows, pagination: in_pages_of(size, small, pagination), served_at, is_broken })
    }

    /// Whether Salla answers with one of these rows, or says that it does not exist.
    async fn answers<R: ApiResource>(
        &self,
        controls: impl Iterator<Item = PageRequest<'_>>,
        requests: &RequestCount,
    ) -> Result<bool, SourceError> {
        let mut pause = PAUSE.mul_f64(rand::rng().random_range(0.5..1.0));
        for control in controls {
            sleep(pause).await;
            pause *= 2;
            match self.fetch::<R>(control, Divisible::Control, requests).await {
                Ok(_) | Err(SourceError::Rejected { .. }) => return Ok(true),
                Err(SourceError::Malformed { .. } | SourceError::Unavailable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// The row that breaks its page. Its id is not known: the negative place in the list stands for it.
fn failed_row<R>(place: u32, error: &SourceError) -> Listed<R> {
    let id = (ContentHash::of_text(&format!("the row at {place}")).short() | 1 << 63).cast_signed();
    let reason = format!("row {place} of the list breaks its page: {error}");
    let row = Row::Unreadable(Unreadable::failed(reason));
    Listed { key: RowKey { id, updated_at: None, created_at: None }, row }
}

/// What the server says of a list in small pages, as it would say it of larger ones.
fn in_pages_of(size: u32, small: u32, pagination: Pagination) -> Pagination {
    let rows = pagination.total.or(pagination.total_pages.map(|pages| u64::from(pages) * u64::from(small)));
    let pages = rows.map(|rows| rows.div_ceil(u64::from(size)));
    Pagination { total_pages: pages.and_then(|pages| pages.try_into().ok()), total: pagination.total }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_page_contain_exactly_its_rows() {
        for (number, size) in [(1, 60), (3, 60), (2, 59), (7, 1), (4, 45), (5, 53)] {
            let (mut parts, mut places, mut requests) = (vec![PagePart::page(number, size)], Vec::new(), 0);
            while let Some(part) = parts.pop() {
                requests += 1;
                let page: Vec<u32> = ((part.number - 1) * part.size..part.number * part.size).collect();
                let cut: Vec<u32> = part.cut(page).collect();
                // One row breaks every page that shows it.
                let bad = (number - 1) * size + size / 3;
                if part.size == 1 || !cut.contains(&bad) {
                    places.extend(cut);
                } else {
                    parts.extend(part.divided().rev());
                }
            }
            assert_eq!(places, ((number - 1) * size..number * size).collect::<Vec<_>>(), "{number} of {size}");
            assert!(requests <= 20, "{size}: {requests}");
        }
        let halves: Vec<PagePart> = PagePart::page(2, 60).divided().collect();
        assert_eq!(halves, [PagePart::page(3, 30), PagePart::page(4, 30)]);
    }

    #[test]
    fn totals_are_converted_to_the_usual_page_size() {
        let small = Pagination { total_pages: Some(200), total: Some(200) };
        assert_eq!(in_pages_of(60, 1, small).total_pages, Some(4));
        assert_eq!(in_pages_of(60, 30, Pagination { total_pages: Some(7), total: None }).total_pages, Some(4));
        assert_eq!(in_pages_of(60, 30, Pagination::default()), Pagination::default());
    }
}
