//! A status that a merchant gives its orders, as the platform knows it.

use super::record::{SallaRecord, columns};

columns! {
    /// The columns of an order status.
    OrderStatusColumns of OrderStatuses {
        /// In the merchant's language.
        name: String,
        /// Salla's word for what it means, which stands in an order's `status`; several of a merchant's may share one.
        slug: String,
        /// `original` is Salla's own, `custom` the merchant's.
        status_type: String,
        /// The status that it is a part of.
        parent_id: i64,
        /// Salla's own status that it stands for.
        original_id: i64,
    }
}

/// An order status as Salla has it. Salla does not say when it was changed.
pub type OrderStatus = SallaRecord<OrderStatusColumns>;
