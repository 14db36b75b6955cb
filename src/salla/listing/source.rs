//! Lists of records: the requests, and the checks whether the answers are reliable.
//!
//! The filter `updated_at_min` is the specified one. Salla's public documentation knows no such filter, and its rows
//! are summaries without `updated_at`; there the whole merchant is listed by the days of creation.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use super::{page_query::page_query, row_window::too_long};
use crate::{
    domain::{Listing, OrderItem, RotationWindow, STAMP_TOLERANCE, Scope, Unreadable},
    reconcile::ports::{
        CredentialStore, ItemsRead, Listed, MerchantContext, Page, PageRequest, RequestCount, Row, RowKey, Source,
        SourceError,
    },
    salla::{
        config::ListingChoice,
        http::{
            client::SallaClient,
            request::{Divisible, Get},
        },
        resources::{api_resource::ApiResource, row},
        wire::{
            date,
            envelope::{Pagination, RawRow},
            error::malformed,
        },
    },
};

/// By Salla's documentation no page has more.
const MOST_ROWS: u32 = 65;

/// A list that has no pages is a short one.
const MOST_IN_ONE: u32 = 10_000;

impl<C: CredentialStore, R: ApiResource> Source<R> for SallaClient<C> {
    fn supports_rotation(&self) -> bool {
        R::LIST.changed_since.is_none() && R::LIST.created_days.is_some() && !R::LIST.summaries
    }

    fn shows_summaries(&self) -> bool {
        R::LIST.summaries
    }

    fn supports_sort(&self) -> bool {
        R::LIST.last_change_first.is_some() && matches!(self.listing, ListingChoice::Auto | ListingChoice::Sort)
    }

    fn slice_scope(&self, slice: RotationWindow) -> Scope {
        Scope::Created { from: slice.from.map(date::day_of), to: slice.to.map(date::day_of) }
    }

    fn begin(&self, since: DateTime<Utc>, slice: Option<RotationWindow>) -> (Vec<Scope>, Listing) {
        if let Some(slice) = slice {
            let older = Source::<R>::slice_scope(self, slice);
            return (vec![older, Scope::Created { from: Some(date::day_of(since)), to: None }], Listing::Rotation);
        }
        let (scope, listing) = match self.listing {
            ListingChoice::Auto | ListingChoice::Filter if R::LIST.changed_since.is_some() => {
                (Scope::Changed { since }, Listing::Filter)
            }
            ListingChoice::Sort if R::LIST.last_change_first.is_some() => (Scope::SortedByChange, Listing::Sort),
            _ => (Scope::EVERYTHING, Listing::Scan),
        };
        (vec![scope], listing)
    }

    async fn page(&self, request: PageRequest<'_>, requests: &RequestCount) -> Result<Page<R>, SourceError> {
        let size = request.page_size.unwrap_or(self.reading.page_size);
        let is_divisible = R::LIST.paged && size > 1;
        let divisible = if is_divisible { Divisible::Page } else { Divisible::No };
        let sent = requests.get();
        let fetched = match self.fetch(request, divisible, requests).await {
            Err(error) if is_divisible && error.is_per_row() => {
                let attempts = u32::try_from(requests.get() - sent).unwrap_or(u32::MAX);
                self.fetch_divided(request, size, attempts, error, requests).await?
            }
            fetched => fetched?,
        };
        let Fetched { rows, pagination, served_at, is_broken } = fetched;
        let (rows, out_of_scope) = match request.scope {
            Scope::Changed { since } => self.changed_only(rows, since)?,
            Scope::Created { .. } | Scope::SortedByChange => (rows, None),
        };
        let now = served_at.unwrap_or_else(Utc::now);
        Ok(Page {
            too_long: R::LIST.created_days.and_then(|_| too_long(&request, pagination.total, &rows, now)),
            rows,
            total_pages: pagination.total_pages,
            total: pagination.total,
            served_at,
            is_broken,
            out_of_scope,
        })
    }

    async fn record(
        &self,
        whose: MerchantContext<'_>,
        id: i64,
        suspect: bool,
        requests: &RequestCount,
    ) -> Result<Option<Result<R, Unreadable>>, SourceError> {
        let Some(single) = R::SINGLE else {
            return self.look_for(whose, id, requests).await;
        };
        let path = format!("{}/{id}", R::PATH);
        let query: Vec<_> = single.iter().map(|&(name, value)| (name, value.to_owned())).collect();
        let get = Get { single: true, suspect, ..Get::new::<R>(whose.merchant, &path, &query, requests) };
        let answer = match self.get(&get).await {
            Ok(answer) => answer,
            Err(SourceError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let data = answer.envelope.data().ok_or_else(|| malformed("`data` is missing"))?;
        let data = RawRow { text: data, is_damaged: false };
        Ok(Some(match self.read::<R>(whose, &data, answer.served_at).row {
            Row::Whole(record) if record.id() == id => Ok(record),
            Row::Whole(_) => Err(unreadable(id, "id", &format!("belongs to another {}", R::RESOURCE.one()))),
            Row::Summary(_) => Err(unreadable(id, "updated_at", "is missing")),
            Row::Unreadable(bad) => Err(Unreadable { id: Some(id), ..bad }),
        }))
    }

    async fn is_listed(
        &self,
        whose: MerchantContext<'_>,
        record: &R,
        requests: &RequestCount,
    ) -> Result<bool, SourceError> {
        let Some(day) = record.created_at().map(date::day_of) else {
            return Ok(false);
        };
        let scope = Scope::Created { from: Some(day), to: Some(day) };
        let request = PageRequest { whose, scope, number: 1, page_size: None, by_id: false };
        Ok(self.find_in_list::<R>(request, record.id(), requests).await?.0.is_some())
    }

    fn has_items(&self) -> bool {
        self.reading.order_items && R::ITEMS.is_some()
    }

    async fn lines(
        &self,
        whose: MerchantContext<'_>,
        id: i64,
        suspect: bool,
        requests: &RequestCount,
    ) -> Result<ItemsRead, SourceError> {
        let Some((path, parameter, line)) = R::ITEMS else {
            return Ok(Some(Ok(Vec::new())));
        };
        let (mut items, mut number): (Vec<OrderItem>, u32) = (Vec::new(), 1);
        let mut known = HashSet::new();
        loop {
            let query =
                [(parameter, id.to_string()), ("page", number.to_string()), ("per_page", MOST_ROWS.to_string())];
            let get = Get { single: true, suspect, ..Get::new::<R>(whose.merchant, path, &query, requests) };
            let answer = match self.get(&get).await {
                Ok(answer) => answer,
                Err(SourceError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            for row in answer.envelope.rows().map_err(malformed)?.iter() {
                if row.is_damaged {
                    return Ok(Some(Err(unreadable(id, "items", row::NO_TEXT))));
                }
                match line(&row.text) {
                    Ok(line) if known.insert(line.id) => items.push(line),
                    Ok(_) => {
                        return Ok(Some(Err(unreadable(id, "items", "are listed twice: the pages are not reliable"))));
                    }
                    Err((path, reason)) => return Ok(Some(Err(unreadable(id, path, reason)))),
                }
            }
            // A list without pages does not say how many there are.
            let pages = answer.envelope.pagination().total_pages.unwrap_or(1);
            if number >= pages {
                return Ok(Some(Ok(items)));
            }
            if pages > MAX_ITEM_PAGES {
                return Ok(Some(Err(unreadable(id, "items", "are more than a page can hold"))));
            }
            number += 1;
        }
    }
}

/// The limit for the pages of the items of one order.
const MAX_ITEM_PAGES: u32 = 100;

impl<C: CredentialStore> SallaClient<C> {
    /// Gets one page, and reads its rows.
    pub(in crate::salla) async fn fetch<R: ApiResource>(
        &self,
        request: PageRequest<'_>,
        divisible: Divisible,
        requests: &RequestCount,
    ) -> Result<Fetched<R>, SourceError> {
        let query = page_query(&request, &R::LIST, request.page_size.unwrap_or(self.reading.page_size));
        let get = Get { divisible, ..Get::new::<R>(request.whose.merchant, R::PATH, &query, requests) };
        let answer = self.get(&get).await?;
        let rows = answer.envelope.rows().map_err(malformed)?;
        let limit = if R::LIST.paged { self.reading.page_size.max(MOST_ROWS) * 4 } else { MOST_IN_ONE } as usize;
        if rows.len() > limit {
            let more = if rows.len() > MOST_IN_ONE as usize { "or more " } else { "" };
            return Err(malformed(&format!(
                "{} {more}rows on a page of at most {}",
                rows.len(),
                self.reading.page_size
            )));
        }
        let announced = answer.envelope.pagination();
        let is_more = announced.total.is_some_and(|total| total > rows.len() as u64) || announced.total_pages > Some(1);
        if !R::LIST.paged && is_more {
            return Err(malformed("a list without pages announces more rows than it shows"));
        }
        let pagination = if R::LIST.paged { announced } else { Pagination::whole(rows.len()) };
        let rows = rows.iter().map(|row| self.read(request.whose, row, answer.served_at)).collect();
        Ok(Fetched { rows, pagination, served_at: answer.served_at, is_broken: false })
    }

    /// Reads the keys of a row, in an answer of this instant.
    fn read<R: ApiResource>(
        &self,
        whose: MerchantContext<'_>,
        row: &RawRow,
        served_at: Option<DateTime<Utc>>,
    ) -> Listed<R> {
        let privacy = &self.reading.privacy;
        if let Some(large) = row::too_large(&row.text, || privacy.surrogate_key(&row.text, &row.text)) {
            return large;
        }
        let kept = privacy.keep::<R>(whose.merchant, row.text.clone(), whose.erased);
        let listed = row::read(&kept, || privacy.surrogate_key(&row.text, &kept));
        if row.is_damaged {
            return row::set_aside(listed, "", row::NO_TEXT);
        }
        let latest = served_at.unwrap_or_else(Utc::now) + STAMP_TOLERANCE;
        if listed.key.updated_at > Some(latest) {
            return row::set_aside(listed, "updated_at", "is ahead of Salla's clock");
        }
        listed
    }

    /// Checks whether the server knows the filter. Without it, the server returns older rows, or
    /// rows without `updated_at`, whose age is unknown. Then the setting `filter` fails, and the
    /// other settings list in another way. If only some rows lack `updated_at`, each of them is
    /// fetched at its own address.
    fn changed_only<R: ApiResource>(
        &self,
        rows: Vec<Listed<R>>,
        since: DateTime<Utc>,
    ) -> Result<(Vec<Listed<R>>, Option<&'static str>), SourceError> {
        let summaries = rows.iter().any(|listed| matches!(listed.row, Row::Summary(_)));
        let stamped = rows.iter().any(|listed| matches!(listed.row, Row::Whole(_)));
        // The filter has a grain of one second.
        let older = |key: &RowKey| key.updated_at.is_some_and(|at| at.timestamp() < since.timestamp());
        let why = if summaries && !stamped {
            "its rows carry no updated_at"
        } else if rows.iter().any(|listed| older(&listed.key)) {
            "the server ignores updated_at_min: the list contains older records"
        } else {
            return Ok((rows, None));
        };
        match self.listing {
            ListingChoice::Filter => Err(SourceError::ListingUnsupported { reason: why.to_owned() }),
            ListingChoice::Auto | ListingChoice::Sort | ListingChoice::Scan => Ok((rows, Some(why))),
        }
    }
}

/// A page, as it came.
#[derive(Debug)]
pub(in crate::salla) struct Fetched<R> {
    pub rows: Vec<Listed<R>>,
    pub pagination: Pagination,
    pub served_at: Option<DateTime<Utc>>,
    /// A row broke an answer to the same request, and is not among the rows.
    pub is_broken: bool,
}

pub(super) fn unreadable(id: i64, path: &str, reason: &str) -> Unreadable {
    Unreadable::skipped(Some(id), path, reason)
}
