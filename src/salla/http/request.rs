//! The requests to Salla.

use crate::{domain::MerchantId, reconcile::ports::RequestCount, salla::resources::api_resource::ApiResource};

/// A request for records.
#[derive(Debug)]
pub(in crate::salla) struct Get<'a> {
    /// On whose behalf.
    pub merchant: MerchantId,
    /// Behind `api_url`.
    pub path: &'a str,
    /// What the app needs to be allowed to ask for it.
    pub scope: &'static str,
    pub query: &'a [(&'static str, String)],
    /// It is one record that is asked for: if Salla refuses the token there and nowhere else, it is that record's
    /// trouble.
    pub single: bool,
    /// That record could not be had before.
    pub suspect: bool,
    /// The role of the request when a page is divided.
    pub divisible: Divisible,
    /// Salla counts it by the address that it comes from.
    pub counted_by_address: bool,
    /// Raised by every attempt.
    pub requests: &'a RequestCount,
}

impl<'a> Get<'a> {
    /// A request for records of a kind.
    pub fn new<R: ApiResource>(
        merchant: MerchantId,
        path: &'a str,
        query: &'a [(&'static str, String)],
        requests: &'a RequestCount,
    ) -> Self {
        Self {
            merchant,
            path,
            scope: R::SCOPE,
            query,
            single: false,
            suspect: false,
            divisible: Divisible::No,
            counted_by_address: R::COUNTED_BY_ADDRESS,
            requests,
        }
    }
}

impl Divisible {
    /// Whether a failure may be that of one row.
    pub fn is_divided(self) -> bool {
        matches!(self, Self::Page | Self::PagePart | Self::Row)
    }
}

/// Whether a page that cannot be read is read in smaller pages. Its failure says nothing about the merchant yet. Single
/// rows show whether Salla answers for the merchant at all. Together, the attempts at the page and at the first of
/// these rows are at most `salla.max_attempts`, or 2 if that is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Divisible {
    /// It is not.
    No,
    /// The page that the run asks for.
    Page,
    /// A single row that shows whether Salla answers for the merchant at all, which is tried once.
    Control,
    /// A part of such a page, which is tried once.
    PagePart,
    /// A single row of such a page.
    Row,
}
