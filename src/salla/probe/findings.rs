//! What a probe reports.

use serde::Serialize;

use super::{Probe, ProbeReport, ProbeSettings, Seen};
use crate::{domain::Listing, reconcile::ports::CredentialStore};

/// The answer to one question.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// The question.
    pub subject: &'static str,
    /// What the store shows.
    pub found: String,
    /// What the program needs, or the documentation says.
    pub expected: &'static str,
    /// What follows for runs.
    pub consequence: &'static str,
    /// Whether the store does what is expected; `None`: the probe could not tell.
    pub as_expected: Option<bool>,
}

impl<C: CredentialStore> Probe<'_, C> {
    pub(super) fn find(
        &mut self,
        subject: &'static str,
        as_expected: Option<bool>,
        found: String,
        expected: &'static str,
        consequence: &'static str,
    ) {
        self.findings.push(Finding { subject, found, expected, consequence, as_expected });
    }

    /// The listing that fits, and what a night costs with it.
    pub(super) fn conclude(
        self,
        plain: &Seen,
        filters: Option<bool>,
        sorts: Option<bool>,
        settings: ProbeSettings,
    ) -> ProbeReport {
        let orders = plain.pagination.total;
        let (listing, reason) = match (filters, sorts) {
            (Some(true), _) => (Listing::Filter, "the server honours updated_at_min"),
            (_, Some(false)) => (Listing::Scan, "the server ignores updated_at_min and sort_by"),
            _ if orders.is_some_and(|orders| orders < 120) => {
                (Listing::Scan, "the server ignores updated_at_min, and the store has fewer than 120 orders")
            }
            (_, Some(true)) => {
                (Listing::Sort, "the server ignores updated_at_min and sorts; each run demands evidence")
            }
            (_, None) => (Listing::Sort, "the server ignores updated_at_min, and may sort; each run demands evidence"),
        };
        let nights = u64::from(settings.detail_checks.nights(false));
        let details = |orders: u64| if nights == 0 { 0 } else { orders.div_ceil(nights) };
        let requests_per_night = orders.map(|orders| match listing {
            Listing::Filter => 3,
            Listing::Sort => orders / 390 + details(orders) + 30,
            Listing::Scan | Listing::Rotation => orders.div_ceil(60) + 3 + details(orders),
        });
        let announced = plain.header("x-ratelimit-limit").and_then(|limit| limit.parse().ok());
        let limit = f64::from(announced.filter(|limit| *limit > 0).unwrap_or(settings.requests_per_minute).max(1));
        ProbeReport {
            merchant_id: self.merchant,
            findings: self.findings,
            listing,
            reason: reason.to_owned(),
            orders,
            requests: self.requests.get(),
            requests_per_night,
            minutes_per_night: requests_per_night.map(|requests| (requests as f64 / limit * 10.0).round() / 10.0),
        }
    }
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
