//! How far the platform's copy of a merchant drifted from Salla over a period: what a user shows to Salla's
//! support.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{DiscrepancyKind, MerchantId, Period, Resource, RunStatus, discrepancy::is_deletion};

/// The runs that ended, by how they did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EndedRuns {
    /// Every record is as Salla has it.
    pub succeeded: u64,
    /// With skipped or failed records.
    pub partial: u64,
    /// Given up.
    pub failed: u64,
    /// Stopped by a person.
    pub cancelled: u64,
}

impl EndedRuns {
    /// Counts `runs` with this status; one that has not ended does not count.
    pub fn count(&mut self, status: RunStatus, runs: u64) {
        match status {
            RunStatus::Queued | RunStatus::Running => {}
            RunStatus::Succeeded => self.succeeded += runs,
            RunStatus::Partial => self.partial += runs,
            RunStatus::Failed => self.failed += runs,
            RunStatus::Cancelled => self.cancelled += runs,
        }
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.succeeded + self.partial + self.failed + self.cancelled
    }
}

/// How long orders had been wrong here when they were found and corrected. Each counts once, in the narrowest
/// span that holds it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Lateness {
    /// Up to an hour: these webhooks may still have been on their way.
    pub within_1h: u64,
    /// Up to a day.
    pub within_24h: u64,
    /// Up to a week.
    pub within_7d: u64,
    /// Longer than that.
    pub longer: u64,
    /// The longest; absent when nothing was late.
    pub max_seconds: Option<u64>,
    /// The median; the later of two middle values.
    pub median_seconds: Option<u64>,
}

impl Lateness {
    /// Where `within_1h`, `within_24h` and `within_7d` end, in seconds.
    pub const BOUNDS: [i64; 3] = [3_600, 86_400, 604_800];
}

/// Records whose difference does not count as drift, because the program did not watch them before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BackfilledRecords {
    /// Were not stored.
    pub missing: u64,
    /// Were stored in an older version or with other content.
    pub stale: u64,
}

/// Discrepancies of one kind and with the same fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Of which kind of record.
    pub resource: Resource,
    /// The kind of these discrepancies.
    pub kind: DiscrepancyKind,
    /// Which columns differed.
    pub fields: Vec<String>,
    /// They do not count as drift.
    pub backfill: bool,
    /// Only the payload differed, and not the version: another writer keeps it in another spelling.
    pub rewritten: bool,
    /// How many.
    pub count: u64,
    /// How late they were found; the median is nothing that tallies have.
    pub lateness: Lateness,
}

/// The drift of one merchant over a period. Dry runs do not count. A version that several runs found counts once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// The merchant.
    pub merchant_id: MerchantId,
    /// The merchant's name, for people.
    pub name: Option<String>,
    /// Over which period.
    pub period: Period,
    /// The runs that looked.
    pub runs: EndedRuns,
    /// Records that were not stored.
    pub missing: u64,
    /// Records that were stored in an older version or with other content.
    pub stale: u64,
    /// Those of the stale that Salla says are gone, and were held as if they were there: with `deleted_at` among the
    /// fields.
    pub deleted: u64,
    /// Records in the right version with another spelling of the payload. No webhook was lost.
    pub rewritten: u64,
    /// What the first run and full runs found, and what runs over earlier windows found of the time before the registration.
    pub backfilled: BackfilledRecords,
    /// Records that could not be transformed.
    pub skipped: u64,
    /// Records that could not be written, and were not later.
    pub failed: u64,
    /// How often each column differed, among the stale.
    pub fields: BTreeMap<String, u64>,
    /// The number of lost webhooks by event.
    pub lost_webhooks: BTreeMap<String, u64>,
    /// How late the missing and the stale were corrected.
    pub lateness: Lateness,
}

impl BackfilledRecords {
    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.missing + self.stale
    }
}

impl Drift {
    /// Nothing yet.
    #[must_use]
    pub fn none(merchant_id: MerchantId, name: Option<String>, period: Period) -> Self {
        Self {
            merchant_id,
            name,
            period,
            runs: EndedRuns::default(),
            missing: 0,
            stale: 0,
            deleted: 0,
            rewritten: 0,
            backfilled: BackfilledRecords::default(),
            skipped: 0,
            failed: 0,
            fields: BTreeMap::new(),
            lost_webhooks: BTreeMap::new(),
            lateness: Lateness::default(),
        }
    }

    /// Counts what was found.
    pub fn count(&mut self, tally: &Tally) {
        if tally.rewritten {
            self.rewritten += tally.count;
            return;
        }
        match tally.kind {
            DiscrepancyKind::Missing if tally.backfill => self.backfilled.missing += tally.count,
            DiscrepancyKind::Stale if tally.backfill => self.backfilled.stale += tally.count,
            _ => self.count_drift(tally),
        }
    }

    fn count_drift(&mut self, tally: &Tally) {
        let lost = lost_webhook(tally.resource, tally.kind, &tally.fields);
        *match tally.kind {
            DiscrepancyKind::Missing => &mut self.missing,
            DiscrepancyKind::Stale => &mut self.stale,
            DiscrepancyKind::Skipped => &mut self.skipped,
            DiscrepancyKind::Failed => &mut self.failed,
        } += tally.count;
        if matches!(tally.kind, DiscrepancyKind::Skipped | DiscrepancyKind::Failed) {
            return;
        }
        if let Some(lost) = lost {
            *self.lost_webhooks.entry(lost).or_default() += tally.count;
        }
        if tally.kind == DiscrepancyKind::Stale {
            if is_deletion(&tally.fields) {
                self.deleted += tally.count;
            }
            for field in &tally.fields {
                *self.fields.entry(field.clone()).or_default() += tally.count;
            }
        }
        self.lateness.within_1h += tally.lateness.within_1h;
        self.lateness.within_24h += tally.lateness.within_24h;
        self.lateness.within_7d += tally.lateness.within_7d;
        self.lateness.longer += tally.lateness.longer;
        self.lateness.max_seconds = self.lateness.max_seconds.max(tally.lateness.max_seconds);
    }

    /// Records that were not as Salla had them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.missing + self.stale
    }
}

/// The webhook that would have prevented a discrepancy, by Salla's name of the event.
///
/// One discrepancy stands for one webhook. For an order, it is the first one that fits:
///
/// - `order.created` for a missing order
/// - `order.deleted` for a stale order if `deleted_at` differed
/// - `order.status.updated` if `status` differed
/// - `order.total.price.updated` if `total_amount` differed
/// - `order.updated` for any other stale order
///
/// For other kinds of record there are only `created`, `deleted` and `updated`, as far as Salla
/// sends webhooks about them. A skipped or failed record says nothing about webhooks.
#[must_use]
pub fn lost_webhook(resource: Resource, kind: DiscrepancyKind, fields: &[String]) -> Option<String> {
    let differed = |name: &str| resource == Resource::Orders && fields.iter().any(|field| field == name);
    let (what, event) = match kind {
        DiscrepancyKind::Missing => ("created", "created"),
        DiscrepancyKind::Stale if is_deletion(fields) => ("deleted", "deleted"),
        DiscrepancyKind::Stale if differed("status") => ("updated", "status.updated"),
        DiscrepancyKind::Stale if differed("total_amount") => ("updated", "total.price.updated"),
        DiscrepancyKind::Stale => ("updated", "updated"),
        DiscrepancyKind::Skipped | DiscrepancyKind::Failed => return None,
    };
    resource.webhook_events().contains(&what).then(|| format!("{}.{event}", resource.one()))
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeZone, Utc};

    use super::*;

    fn at(days: i64) -> DateTime<Utc> {
        Utc.timestamp_opt(1_790_000_000 + days * 86_400, 0).unwrap()
    }

    fn names(fields: &[&str]) -> Vec<String> {
        fields.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_discrepancy_stands_for_the_first_webhook_that_fits() {
        let of = |resource, kind, fields: &[&str]| lost_webhook(resource, kind, &names(fields)).unwrap_or_default();
        let stale = |fields: &[&str]| of(Resource::Orders, DiscrepancyKind::Stale, fields);
        assert_eq!(of(Resource::Orders, DiscrepancyKind::Missing, &[]), "order.created");
        assert_eq!(stale(&["deleted_at"]), "order.deleted");
        assert_eq!(stale(&["status", "payload", "deleted_at"]), "order.deleted");
        assert_eq!(stale(&["total_amount", "status", "payload"]), "order.status.updated");
        assert_eq!(stale(&["total_amount", "payload"]), "order.total.price.updated");
        assert_eq!(stale(&["payload"]), "order.updated");
        assert_eq!(stale(&[]), "order.updated");
        assert_eq!(of(Resource::Products, DiscrepancyKind::Missing, &[]), "product.created");
        assert_eq!(of(Resource::Products, DiscrepancyKind::Stale, &["status", "payload"]), "product.updated");
        assert_eq!(of(Resource::Products, DiscrepancyKind::Stale, &["deleted_at"]), "product.deleted");
        assert_eq!(of(Resource::Customers, DiscrepancyKind::Missing, &[]), "customer.created");
        assert_eq!(of(Resource::Customers, DiscrepancyKind::Stale, &["deleted_at"]), "", "Salla sends no webhook");
        for kind in [DiscrepancyKind::Skipped, DiscrepancyKind::Failed] {
            assert_eq!(lost_webhook(Resource::Orders, kind, &names(&["status"])), None);
        }
    }

    #[test]
    fn totals_add_up() {
        let period = Period { since: at(-30), until: at(0) };
        let mut drift = Drift::none(MerchantId(1), None, period);
        let late = |within_1h, longer, max| Lateness { within_1h, longer, max_seconds: max, ..Lateness::default() };
        for (kind, fields, count, lateness) in [
            (DiscrepancyKind::Missing, &[][..], 2, late(2, 0, Some(10))),
            (DiscrepancyKind::Stale, &["status", "payload"], 3, late(1, 2, Some(700_000))),
            (DiscrepancyKind::Stale, &["payload"], 1, late(1, 0, Some(20))),
            (DiscrepancyKind::Stale, &["deleted_at"], 1, Lateness::default()),
            (DiscrepancyKind::Skipped, &["updated_at"], 4, Lateness::default()),
            (DiscrepancyKind::Failed, &["status"], 5, Lateness::default()),
        ] {
            let resource = Resource::Orders;
            let fields = names(fields);
            let tally = Tally { resource, backfill: false, rewritten: false, kind, fields, count, lateness };
            drift.count(&tally);
            if matches!(kind, DiscrepancyKind::Missing | DiscrepancyKind::Stale) {
                drift.count(&Tally { backfill: true, ..tally });
            }
        }
        assert_eq!((drift.missing, drift.stale, drift.deleted, drift.skipped, drift.failed), (2, 5, 1, 4, 5));
        assert_eq!(drift.backfilled, BackfilledRecords { missing: 2, stale: 5 });
        assert_eq!(drift.total(), 7);
        assert_eq!(drift.total(), drift.lost_webhooks.values().sum::<u64>());
        let fields: Vec<_> = drift.fields.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(fields, [("deleted_at", 1), ("payload", 4), ("status", 3)]);
        assert_eq!(drift.lateness, late(4, 2, Some(700_000)));
    }

    #[test]
    fn runs_that_have_not_ended_do_not_count() {
        let mut runs = EndedRuns::default();
        RunStatus::ALL.iter().for_each(|&status| runs.count(status, 2));
        assert_eq!(runs, EndedRuns { succeeded: 2, partial: 2, failed: 2, cancelled: 2 });
        assert_eq!(runs.total(), 8);
    }
}
