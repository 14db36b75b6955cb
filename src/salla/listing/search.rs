//! Records that are searched in a list.

use super::source::unreadable;
use crate::{
    domain::{Scope, Unreadable},
    reconcile::ports::{CredentialStore, MerchantContext, Page, PageRequest, RequestCount, Row, Source, SourceError},
    salla::{http::client::SallaClient, resources::api_resource::ApiResource},
};

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

    /// Looks for a row in a list, from a page on. Beside it: whether rows without a readable id were met.
    pub(super) async fn find_in_list<R: ApiResource>(
        &self,
        mut request: PageRequest<'_>,
        id: i64,
        requests: &RequestCount,
    ) -> Result<(Option<Row<R>>, bool), SourceError> {
        let mut is_nameless = false;
        loop {
            let page: Page<R> = self.page(request, requests).await?;
            is_nameless |=
                page.rows.iter().any(|listed| matches!(&listed.row, Row::Unreadable(bad) if bad.id.is_none()));
            if let Some(listed) = page.rows.into_iter().find(|listed| listed.key.id == id) {
                return Ok((Some(listed.row), is_nameless));
            }
            if request.number >= page.total_pages.unwrap_or(1) {
                return Ok((None, is_nameless));
            }
            request.number += 1;
        }
    }
}
