//! An order, as the platform knows it.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::{Fingerprint, Record, Resource};

/// The columns of an order. Salla leaves most of its fields out now and then, so most are optional.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderColumns {
    /// The number that merchants and customers see.
    pub reference_id: Option<i64>,
    /// Salla's slug, such as `under_review`; merchants define more.
    pub status: Option<String>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// The order's total in `currency`, exact.
    pub total_amount: Option<Decimal>,
    /// When the order was placed.
    pub salla_created_at: Option<DateTime<Utc>>,
}

/// An order as Salla has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Salla's id.
    pub id: i64,
    /// When Salla last changed it.
    pub updated_at: DateTime<Utc>,
    /// Not placed yet; Salla lists no drafts.
    pub draft: bool,
    /// What an analyst asks for.
    pub columns: OrderColumns,
    /// The JSON text that Salla sent.
    pub payload: String,
    /// What `payload` hashes to.
    pub fingerprint: Fingerprint,
}

impl Record for Order {
    const RESOURCE: Resource = Resource::Orders;

    type Columns = OrderColumns;

    fn id(&self) -> i64 {
        self.id
    }

    fn updated_at(&self) -> DateTime<Utc> {
        self.updated_at
    }

    fn payload(&self) -> &str {
        &self.payload
    }

    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn is_unlisted(&self) -> bool {
        self.draft
    }

    fn columns(&self) -> &OrderColumns {
        &self.columns
    }

    fn canonical(columns: &OrderColumns) -> String {
        let OrderColumns { reference_id, status, currency, total_amount, salla_created_at } = columns;
        let total = total_amount.map(|total| total.normalize());
        let created = salla_created_at.map(|at| at.timestamp_micros());
        format!("{reference_id:?} {status:?} {currency:?} {total:?} {created:?}")
    }

    fn differing(theirs: &OrderColumns, ours: &OrderColumns) -> Vec<&'static str> {
        [
            ("reference_id", theirs.reference_id != ours.reference_id),
            ("status", theirs.status != ours.status),
            ("currency", theirs.currency != ours.currency),
            ("total_amount", theirs.total_amount != ours.total_amount),
            ("salla_created_at", theirs.salla_created_at != ours.salla_created_at),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }
}
