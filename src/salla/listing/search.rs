//! Records that are searched in a list.

use std::collections::HashSet;

use super::source::unreadable;
use crate::{
    domain::{Scope, Unreadable},
    reconcile::ports::{CredentialStore, MerchantContext, Page, PageRequest, RequestCount, Row, Source, SourceError},
    salla::{http::client::SallaClient, resources::api_resource::ApiResource, wire::error::malformed},
};

/// No list in which a record is searched has so many pages: a day of orders, or the statuses of a store.
const MAX_PAGES: u32 = 1_000;

impl<C: CredentialStore> SallaClient<C> {
    /// Looks for a record without an address in the list, read again: a record that is not in it is gone.
    pub(super) async fn look_for<R: ApiResource>(
        &self,
        whose: MerchantContext<'_>,
        id: i64,
        requests: &RequestCount,
    ) -> Result<Option<Result<R, Unreadable>>, SourceError> {
        let request = PageRequest { whose, scope: Scope::EVERYTHING, number: 1, page_size: None, by_id: false };
        let (found, is_nameless) = self.find_in_list::<R>(request, id, requests).await?;
        // A row whose id cannot be read may be the one.
        let nameless = || is_nameless.then(|| Err(unreadable(id, "id", "may belong to a row without a readable id")));
        Ok(match found {
            Some(Row::Whole(record)) => Some(Ok(record)),
            Some(Row::Summary(_)) => Some(Err(unreadable(id, "updated_at", "is missing"))),
            Some(Row::Unreadable(bad)) => Some(Err(bad)),
            None => nameless(),
        })
    }

    /// Looks for a row in a list, from a page on. Beside it: whether rows without a readable id were met. Without
    /// `totalPages`, the list ends with the first page that shows no new row.
    pub(super) async fn find_in_list<R: ApiResource>(
        &self,
        mut request: PageRequest<'_>,
        id: i64,
        requests: &RequestCount,
    ) -> Result<(Option<Row<R>>, bool), SourceError> {
        let (mut is_nameless, mut seen) = (false, HashSet::new());
        loop {
            let page: Page<R> = self.page(request, requests).await?;
            is_nameless |=
                page.rows.iter().any(|listed| matches!(&listed.row, Row::Unreadable(bad) if bad.id.is_none()));
            let met = seen.len();
            seen.extend(page.rows.iter().map(|listed| listed.key.id));
            if let Some(listed) = page.rows.into_iter().find(|listed| listed.key.id == id) {
                return Ok((Some(listed.row), is_nameless));
            }
            if page.total_pages.map_or(seen.len() == met, |pages| request.number >= pages) {
                return Ok((None, is_nameless));
            }
            if request.number >= MAX_PAGES {
                return Err(malformed("a list in which a record is searched does not end"));
            }
            request.number += 1;
        }
    }
}
