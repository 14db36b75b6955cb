//! An order, as the platform knows it.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::record::{SallaRecord, columns};

columns! {
    /// The columns of an order.
    OrderColumns of Orders {
        /// The number that merchants and customers see.
        reference_id: i64,
        /// Salla's slug, such as `under_review`; merchants define more.
        status: String,
        /// ISO 4217.
        currency: String,
        /// The order's total in `currency`, exact.
        total_amount: Decimal,
        /// When the order was placed.
        salla_created_at: DateTime<Utc>,
    }
}

/// An order as Salla has it. Salla lists no drafts.
pub type Order = SallaRecord<OrderColumns>;
