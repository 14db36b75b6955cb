//! The list of orders: what is asked, and whether what comes can be relied on.

use serde_json::value::RawValue;

use super::{
    client::{Get, SallaClient},
    config::Listing,
    error::malformed,
    orders::transform,
};
use crate::{
    domain::{Order, Unreadable},
    reconcile::ports::{CredentialStore, Page, PageRequest, RequestCount, Source, SourceError},
};

impl<C: CredentialStore> Source<Order> for SallaClient<C> {
    async fn page(&self, request: PageRequest, requests: &RequestCount) -> Result<Page<Order>, SourceError> {
        let query = self.query(&request);
        let get = Get { merchant: request.merchant, path: "v2/orders", query: &query, requests };
        let answer = self.get(&get).await?;
        let data = answer.envelope.data.as_deref();
        let rows: Vec<&RawValue> = data
            .map_or(Ok(Vec::new()), |data| serde_json::from_str(data.get()))
            .map_err(|_| malformed("`data` is not a list"))?;
        if data.is_none() {
            return Err(malformed("`data` is missing"));
        }
        let pagination = answer.envelope.pagination();
        let rows: Vec<_> = rows.into_iter().map(transform).collect();
        let unfiltered = self.check_listing(&request, &rows)?;
        Ok(Page {
            rows,
            total_pages: pagination.total_pages,
            total: pagination.total,
            served_at: answer.served_at,
            unfiltered,
        })
    }
}

impl<C: CredentialStore> SallaClient<C> {
    fn query(&self, request: &PageRequest) -> [(&'static str, String); 3] {
        [
            ("updated_at_min", request.since.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
            ("page", request.number.to_string()),
            ("per_page", self.page_size.to_string()),
        ]
    }

    /// A server that ignores the filter returns older rows. They are true all the same, so `auto` reads the
    /// whole list; `updated_at_min` insists. A list without `updated_at` is a list of summaries, of which none
    /// can be told to be newer or older. Returns whether there are older rows.
    fn check_listing(&self, request: &PageRequest, rows: &[Result<Order, Unreadable>]) -> Result<bool, SourceError> {
        let unsupported = |reason: &str| Err(SourceError::ListingUnsupported { reason: reason.to_owned() });
        let no_stamp = |bad: &Unreadable| bad.path == "updated_at" && bad.reason == "is missing";
        if rows.len() > 1 && rows.iter().all(|row| row.as_ref().is_err_and(no_stamp)) {
            return unsupported("its rows carry no updated_at");
        }
        // The filter has a grain of one second.
        let since = request.since.timestamp();
        let older = rows.iter().flatten().any(|order| order.updated_at.timestamp() < since);
        if older && self.listing == Listing::UpdatedAtMin {
            return unsupported("it contains orders older than updated_at_min asked for");
        }
        Ok(older)
    }
}
