//! A page, as the walk sees it.

use chrono::{DateTime, Utc};

/// The keys of a row: identity and order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowKey {
    /// Salla's id. A row without an id has a negative number instead, made from the content.
    pub id: i64,
    /// When it was last changed, if the row says so.
    pub updated_at: Option<DateTime<Utc>>,
    /// When it was created, likewise.
    pub created_at: Option<DateTime<Utc>>,
}

/// One page, as the walk sees it.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    pub rows: &'a [RowKey],
    pub total_pages: Option<u32>,
    pub total: Option<u64>,
    /// A row broke an earlier answer to the same request, and is not among the rows.
    pub is_broken: bool,
}

impl Answer<'_> {
    /// Whether the number of pages contradicts `total`; `page_rows`: the rows of a full page.
    pub fn contradicts_total(&self, page_rows: usize) -> bool {
        let Some((total, pages)) = self.total.zip(self.total_pages) else { return false };
        !self.is_broken && u64::from(pages.max(1)) != total.div_ceil(page_rows.max(1) as u64).max(1)
    }
}
